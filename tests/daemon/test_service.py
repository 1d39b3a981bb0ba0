"""The daemon as a process, from its file to a promoted bundle: a real study, real programs, a real record.

The service is a file that the hook writes, and the Prometheus is faked: its numbers follow from what is served.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from autotuner.cli import daemon_run
from autotuner.daemon.keeper import STUDY as KIND
from autotuner.daemon.machine import begin
from autotuner.daemon.service import keep_newest, opened
from autotuner.daemon.spec import load_service
from autotuner.errors import MachineError, UsageError
from autotuner.store import open_record
from autotuner.types import Phase

PROGRAM = "from autotuner.cli.main import app; app()"
STUDY = """
name: speed
workload: {kind: replay, step_s: "0.004 / (1 + fast)"}
probes: []
parameters:
  fast: {int: [0, 1], default: 0, live: true}
objectives: [{maximize: throughput_tokens_per_s}]
budget: {trials: 2, max_pairs: 6}
protocol:
  {block_s: 0.005, warmup_min_s: 0.01, warmup_max_s: 0.1, min_measure_s: 0.03, max_measure_s: 0.1, time_limit_s: 20}
"""
HOOK = """
import json, os, pathlib, sys
place = pathlib.Path(__file__).with_name("service.json")
if sys.argv[1] == "apply":
    stable, stable_hash, candidate, candidate_hash, percent, token = sys.argv[2:8]
    known = json.loads(place.read_text())["token"] if place.exists() else 0
    assert int(token) >= known, "an older daemon speaks"
    new = place.with_name(f"service.{os.getpid()}")
    new.write_text(json.dumps({"stable": stable_hash, "candidate": candidate_hash, "percent": int(percent),
                               "folders": [stable, candidate], "token": int(token)}))
    new.replace(place)
else:
    print(place.read_text())
"""
DAEMON = """
service: chat
study: speed.yaml
prometheus: URL
signals:
  latency_p95_s: {query: 'p95 {arm}'}
watch: {interval: 50 ms, slo: ["latency_p95_s <= 150 ms"], breaches: 2, cooldown: 0.1 s, per_day: 50, profile: false}
canary: {minimize: latency_p95_s, window: 10 ms, percents: [10, 50], probation_windows: 16, most_windows: 40}
hooks:
  apply: [PYTHON, HOOK, apply, "{stable}", "{stable_hash}", "{candidate}", "{candidate_hash}", "{percent}", "{token}"]
  observe: [PYTHON, HOOK, observe]
  deadline: 20 s
lease: 1 s
"""


class World:
    """The folder of a user, and what their Prometheus says."""

    def __init__(self, folder, url):
        self.folder, self.db = folder, str(folder / "record.db")
        (folder / "speed.yaml").write_text(STUDY)
        (folder / "hook.py").write_text(HOOK)
        text = DAEMON.replace("URL", url).replace("PYTHON", sys.executable).replace("HOOK", str(folder / "hook.py"))
        (folder / "daemon.yaml").write_text(text)

    def start(self, *words):
        argv = [sys.executable, "-c", PROGRAM, "daemon", "run", "daemon.yaml", "--db", self.db, *words]
        return subprocess.Popen(argv, cwd=self.folder, stderr=subprocess.PIPE, text=True)

    def ask(self, *words):
        argv = [sys.executable, "-c", PROGRAM, "daemon", *words, "--db", self.db]
        return subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60)

    def state(self):
        if not Path(self.db).exists():
            return None
        with open_record(self.db) as record:
            return record.journal("chat").state()

    def until(self, condition, process, limit_s=120):
        deadline_s = time.monotonic() + limit_s
        while not (condition(state := self.state())):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline_s, state
            time.sleep(0.05)
        return state

    def served(self):
        return json.loads((self.folder / "service.json").read_text())


@pytest.fixture
def world(tmp_path):
    with prometheus(tmp_path) as url:
        yield World(tmp_path, url)


@contextmanager
def prometheus(folder):
    """Fast bundles have half of the latency; a little noise."""
    draw = random.Random(0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            arm = parse_qs(urlsplit(self.path).query)["query"][0].split()[1]
            service = json.loads((folder / "service.json").read_text())
            place = service["folders"][0 if arm == "stable" else 1]
            config = json.loads((Path(place) / "config.json").read_text()) if place else {"fast": 0}
            value = 0.2 / (1 + config["fast"]) * draw.lognormvariate(0, 0.01)
            result = [{"metric": {}, "value": [time.time(), str(value)]}]
            self.send_response(200)
            self.end_headers()
            body = {"status": "success", "data": {"resultType": "vector", "result": result}}
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def promoted(state):
    return state is not None and state.phase is Phase.WATCHING and state.previous and state.reached


@pytest.mark.slow
def test_from_a_breach_to_a_promoted_bundle(world):
    process = world.start()
    try:
        state = world.until(promoted, process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert told.endswith("stopped; the next one goes on where this one was\n")
    assert world.served()["stable"] == state.last_good
    bundle = Path(world.served()["folders"][0])
    assert {path.name for path in bundle.iterdir()} == {"chat.json", "config.json"}, "named by the service, not a study"
    assert json.loads((bundle / "config.json").read_text()) == {"fast": 1}
    shown = json.loads(world.ask("status", "chat", "--json").stdout)
    assert (shown["phase"], shown["serves"]) == ("watching", state.last_good)
    history = world.ask("history", "chat", "--last", "100").stdout
    with open_record(world.db) as record:
        own = [entry.payload["name"] for entry in record.journal("chat").entries(kinds=("study",))]
        assert own == record.names(), "it wrote down which are its own"
    assert "tuning after triggered: latency_p95_s is 2" in history
    assert "promoting after ruled: PASS: latency_p95_s is better: " in history
    back = world.ask("rollback", "chat")
    assert back.returncode == 0
    assert world.start("--once").wait(60) == 0
    assert world.start("--once").wait(60) == 0
    assert world.state().wanted.stable == state.previous


@pytest.mark.slow
@pytest.mark.alone  # how far it comes between two kills depends on the machine
def test_killed_at_random_moments_it_comes_to_the_same_end(world):
    """kill -9 of the daemon, again and again: one incumbent, nothing promoted unproven, the way back kept."""
    draw, kills = random.Random(1), 0
    while not promoted(world.state()):
        process = world.start()
        try:
            world.until(promoted, process, limit_s=draw.uniform(0.4, 4.0) if kills < 8 else 120)
        except AssertionError:
            kills += 1
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if (state := world.state()) is not None:
            bundles = world.folder / "_services" / "chat" / "bundles"
            assert {state.last_good, state.wanted.stable} <= {path.name for path in bundles.iterdir()}
    assert kills > 0
    assert world.served()["stable"] == world.state().wanted.stable
    with open_record(world.db) as record:
        events = [entry.payload["because"] for entry in record.journal("chat").entries(kinds=("state",))]
    passes = [one for one in events if one.get("event") == "ruled" and one["verdict"]["ruling"] == "PASS"]
    assert len(passes) >= 2, "a PASS at 10 % and one at 50 %"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("study: speed.yaml", "study: none.yaml", "daemon.yaml:3: study: there is no file"),
        ("breaches: 2", "breeches: 2", "breeches"),
        ("minimize: latency_p95_s", "minimize: latency_p50_s", "nothing tells latency_p50_s"),
        ("percents: [10, 50]", "percents: [50, 10]", "percents must grow"),
        ("minimize: latency_p95_s,", "", "say one aim"),
        ("lease: 1 s", "http: true", "http"),
        ('"{percent}"', '"{percnt}"', "apply: nobody knows {percnt}: did you mean percent?"),
        ("service: chat", f"service: {'x' * 57}", "service"),  # with its number it would be no name of a study
        ("per_day: 50,", "money_per_day: 5,", "money_per_day needs gpu_hour_price"),
    ],
)
def test_a_mistake_in_its_file_is_one_line(world, old, new, words):
    path = world.folder / "daemon.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UsageError) as raised:
        load_service(path)
    assert words in raised.value.message
    assert "daemon.yaml:" in raised.value.message


def test_a_hook_that_is_not_there_is_a_mistake_before_anything_is_done(world):
    path = world.folder / "daemon.yaml"
    path.write_text(path.read_text().replace(f"observe: [{sys.executable},", "observe: [./nothing.sh,"))
    done = world.start("--once")
    _, told = done.communicate(timeout=60)
    assert done.returncode == 2
    assert told.startswith("error: daemon.yaml: hooks.observe: there is no program ./nothing.sh — a path starts at the")
    assert world.state() is None


def test_a_service_that_nobody_knows(world):
    with open_record(world.db, create=True):
        pass
    for word in ("status", "history", "freeze", "approve"):
        done = world.ask(word, "chat")
        assert done.returncode == 2
        assert done.stderr == "error: there is no service 'chat' in this record — autotune daemon run FILE\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MachineError("the record is locked by another process"), "the record is locked by another process"),
        (UsageError("speed.yaml:3: what is that"), "speed.yaml:3: what is that"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_goes_wrong_outside_does_not_end_the_daemon(world, error, words):
    class Fails:
        def turn(self):
            raise error

    spec, failures = load_service(world.folder / "daemon.yaml"), []
    told, pause_s = daemon_run._turned(Fails(), spec, False, failures.append)
    assert told.endswith(f"{words}: trying again")
    assert (pause_s, len(failures)) == (5.0, 1)
    assert words in failures[0]
    with pytest.raises(type(error)):
        daemon_run._turned(Fails(), spec, True, failures.append)


def test_a_dry_run_waits_between_its_looks(world):
    spec = load_service(world.folder / "daemon.yaml").model_copy(update={"dry_run": True})
    state = begin("b0", datetime.now(UTC))
    assert daemon_run._pause_s(state, spec) == spec.watch.interval
    assert daemon_run._pause_s(state, spec.model_copy(update={"dry_run": False})) == 0.0


def test_a_study_file_that_is_half_written_costs_turns_and_not_the_daemon(world):
    """At the start it is a mistake; later it is tried again."""
    file = world.folder / "speed.yaml"
    file.write_text(STUDY.replace("objectives", "objective"))
    wrong = world.start()
    try:
        _, told = wrong.communicate(timeout=60)
    finally:
        wrong.kill()
    assert wrong.returncode == 2
    assert "speed.yaml" in told
    file.write_text(STUDY)
    with opened(load_service(world.folder / "daemon.yaml"), world.db) as service:
        keeper, failures = service.keeper(), []
        daemon_run._turned(keeper, service.spec, False, failures.append)
        file.write_text("name: [")
        told, _ = daemon_run._turned(keeper, service.spec, False, failures.append)
        assert "speed.yaml" in told
        file.write_text(STUDY)
        told, _ = daemon_run._turned(keeper, service.spec, False, failures.append)
    assert told.startswith("watching")
    assert [bool(text) for text in failures] == [False, True, False]


def test_when_a_cycle_is_over_only_what_is_needed_is_kept(world):
    """Bundles of the way back, and the newest studies that it began itself."""
    path = world.folder / "daemon.yaml"
    path.write_text(path.read_text().replace("lease: 1 s", "keep_studies: 2"))
    with opened(load_service(path), world.db) as service, open_record(world.db) as record:
        bundle = service._first()
        spec = service._study()
        for name in ("mine", "chat-1", "chat-2", "chat-3"):
            record.create(spec, name)
            if name != "mine":
                service.journal.tell(KIND, {"name": name})
        service._world().tidy({bundle, ""})
        assert record.names() == ["mine", "chat-2", "chat-3"]
        assert service.bundles.path(bundle)
        service._world().tidy({"gone"})  # nobody knows what it came from
        assert record.names() == ["mine", "chat-2", "chat-3"]


def test_of_what_cycles_leave_the_newest_is_kept(tmp_path):
    for number in range(25):
        place = tmp_path / f"{number}"
        if number % 2:
            place.mkdir()
            (place / "profile.html").write_text("x")
        else:
            place.write_text("x")
        os.utime(place, (number, number))
    keep_newest(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {str(number) for number in range(5, 25)}
    keep_newest(tmp_path / "nothing")
