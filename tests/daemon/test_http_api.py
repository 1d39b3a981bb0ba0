"""A real daemon asked over HTTP: by who may, and by who may not; and its interface alone, for what takes hours."""

import json
import signal
import sqlite3
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from test_service import World, prometheus

from autotuner.cli.main import app
from autotuner.daemon.http_api import serving, token_at
from autotuner.daemon.pulse import Pulse, patience_of
from autotuner.daemon.spec import load_service
from autotuner.errors import MachineError
from autotuner.store import open_record
from autotuner.types import Deployment, Phase, ServiceState

NOW = datetime(2026, 11, 1, tzinfo=UTC)
WORDS = ("approve", "refuse", "rollback", "clear", "freeze", "unfreeze", "tune")


def autotune(*words):
    return CliRunner().invoke(app, ["daemon", *words])


class Client:
    """Of one address."""

    def __init__(self, address, token):
        self.address, self.token = address, token

    def __call__(self, path, method="GET", body=None, **headers):
        """(status, headers, what the JSON says)."""
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        request = urllib.request.Request(
            self.address + path, body, {name: text for name, text in headers.items() if text is not None}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.load(error)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A daemon that watches a service whose level is kept: the world, the process, and who asks it."""
    folder = tmp_path_factory.mktemp("user")
    with prometheus(folder) as url:
        world = World(folder, url)
        file = folder / "daemon.yaml"
        file.write_text(file.read_text().replace("<= 150 ms", "<= 1 s").replace("interval: 50 ms", "interval: 0.3 s"))
        process = world.start("--port", "0")
        try:
            said = process.stderr.readline()
            _, _, address, *_, path = said.split()
            client = Client(address, (folder / path).read_text().strip())
            world.until(lambda state: state is not None and state.reached, process)
            yield world, process, client
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 0


def test_it_tells_what_the_commands_tell(running):
    world, _, ask = running
    status, headers, facts = ask("status")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (
        200, "application/json; charset=utf-8", "no-store",
    )  # fmt: skip
    assert facts == json.loads(autotune("status", "--json", "--db", world.db).stdout)
    assert facts["phase"] == "watching"
    assert ask("history")[2] == json.loads(autotune("history", "chat", "--json", "--db", world.db).stdout)
    assert [row["kind"] for row in ask("history?last=1")[2]] == ["state"]
    status, _, health = ask("healthz", Authorization=None)
    assert (status, health["phase"]) == (200, "watching")
    assert health["last_turn_age_s"] >= 0


def test_what_is_said_is_heard(running):
    world, process, ask = running
    status, _, answer = ask("freeze", "POST", b'{"by": "anna"}')
    assert (status, answer) == (200, {"service": "chat", "said": "freeze"})
    world.until(lambda state: state.frozen, process)
    assert ask("status")[2]["frozen"] is True
    status, _, answer = ask("clear", "POST")
    assert (status, answer["but"]) == (200, "there is no alarm")
    assert ask("unfreeze", "POST")[0] == 200
    world.until(lambda state: not state.frozen, process)
    with open_record(world.db) as record:
        said = [entry for entry in record.journal("chat").entries() if entry.kind in WORDS]
    assert [(entry.kind, entry.payload["by"]) for entry in said][-2:] == [
        ("clear", "somebody over HTTP"), ("unfreeze", "somebody over HTTP"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "path", "method", "body", "headers"),
    [
        (401, "status", "GET", None, {"Authorization": None}),
        (401, "status", "GET", None, {"Authorization": "Bearer guess"}),
        (401, "status", "GET", None, {"Authorization": "Bearer "}),
        (401, "status", "GET", None, {"Authorization": "Basic guess"}),
        (401, "status", "GET", None, {"Authorization": "Bearer \xff"}),
        (401, "status?token=TOKEN", "GET", None, {"Authorization": None}),
        (401, "status", "GET", None, {"Authorization": None, "Cookie": "token=TOKEN"}),
        (401, "tune", "POST", None, {"Authorization": None}),
        (401, "nothing", "GET", None, {"Authorization": None}),
        (403, "status", "GET", None, {"Host": "evil.example"}),
        (403, "healthz", "GET", None, {"Host": "evil.example:80", "Authorization": None}),
        (403, "tune", "POST", None, {"Origin": "http://evil.example"}),
        (403, "status", "GET", None, {"Origin": "null"}),
        (404, "nothing", "GET", None, {}),
        (404, "", "GET", None, {}),
        (405, "status", "POST", b"{}", {}),
        (405, "tune", "GET", None, {}),
        (405, "tune", "DELETE", None, {}),
        (413, "tune", "POST", b" " * 5000, {}),
        (400, "tune", "POST", b"{", {}),
        (400, "tune", "POST", b"[" * 4000, {}),
        (400, "tune", "POST", b"\xff\xfe", {}),
        (400, "tune", "POST", b"[]", {}),
        (400, "tune", "POST", b'{"who": "me"}', {}),
        (400, "tune", "POST", b'{"by": 5}', {}),
        (400, "tune", "POST", b'{"by": ""}', {}),
        (400, "tune", "POST", b'{"by": "a\\u001b[31m"}', {}),
        (400, "history?last=0", "GET", None, {}),
        (400, "history?last=1001", "GET", None, {}),
        (400, "history?last=-1", "GET", None, {}),
        (400, "history?last=many", "GET", None, {}),
        (400, "history?lst=5", "GET", None, {}),
    ],
)
def test_what_is_asked_wrongly_is_an_answer(running, status, path, method, body, headers):
    _, process, ask = running
    given = {name: text and text.replace("TOKEN", ask.token) for name, text in headers.items()}
    seen, answered, said = ask(path.replace("TOKEN", ask.token), method, body, **given)
    assert seen == status
    assert said.keys() == {"error", "hint"}
    assert ask.token not in json.dumps(said)
    assert status != 405 or answered["Allow"]
    assert "Set-Cookie" not in answered
    assert "Access-Control-Allow-Origin" not in answered
    assert process.poll() is None


def test_nothing_that_was_refused_was_written(running):
    world, _, ask = running
    with open_record(world.db) as record:
        assert not list(record.journal("chat").entries(kinds=("tune",)))
    port = ask.address.rstrip("/").rpartition(":")[2]
    assert ask("status", Origin=f"http://localhost:{port}", Host=f"localhost:{port}")[0] == 200, "our own page may"


def test_a_port_that_is_taken_and_one_for_a_single_turn(running):
    world, _, ask = running
    port = ask.address.rstrip("/").rpartition(":")[2]
    done = autotune("run", str(world.folder / "daemon.yaml"), "--db", world.db, "--port", port)
    assert done.exit_code == 3
    assert done.stderr.startswith(f"error: cannot listen on port {port}: ")
    assert done.stderr.count("\n") == 1
    done = autotune("run", str(world.folder / "daemon.yaml"), "--db", world.db, "--once", "--port", "0")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


@pytest.fixture
def journal(tmp_path):
    with open_record(str(tmp_path / "record.db")) as record:
        yield record.journal("chat")


def enter(journal, phase):
    token = journal.acquire("here/1", NOW.timestamp(), 30.0)
    journal.enter(token, ServiceState(phase, Deployment("aa"), True, "aa", NOW, "why"), {"event": "met"})


def test_it_is_ill_when_no_turn_ends_but_for_a_study(tmp_path, journal):
    now_s = [0.0]
    pulse = Pulse(10.0, lambda: now_s[0])
    with serving("chat", str(tmp_path / "record.db"), 0, pulse) as (address, path):
        ask = Client(address, path.read_text().strip())

        def health(at_s):
            now_s[0] = at_s
            status, _, said = ask("healthz", Authorization=None)
            return status, said["phase"], said["last_turn_age_s"]

        assert health(9.0) == (200, "starting", 9.0)
        assert ask("status")[0] == ask("tune", "POST")[0] == 503, "nobody has met it yet"
        enter(journal, Phase.WATCHING)
        assert health(11.0) == (503, "watching", 11.0)
        pulse.beat()
        assert health(12.0) == (200, "watching", 1.0)
        enter(journal, Phase.TUNING)
        assert health(9999.0)[:2] == (200, "tuning")
        enter(journal, Phase.CANARY)
        assert health(9999.0)[:2] == (503, "canary")
        pulse.move()
        assert health(10005.0) == (200, "canary", 9994.0), "no turn has ended, but a round of load has"


def test_it_is_ill_when_turns_only_fail(tmp_path, journal):
    enter(journal, Phase.TUNING)
    now_s = [0.0]
    pulse = Pulse(10.0, lambda: now_s[0])
    with serving("chat", str(tmp_path / "record.db"), 0, pulse) as (address, path):
        ask = Client(address, path.read_text().strip())

        def health(at_s, error):
            now_s[0] = at_s
            pulse.beat(error)
            status, _, said = ask("healthz", Authorization=None)
            return status, said.get("failing")

        assert health(5.0, "") == (200, None)
        assert health(14.0, "the record is locked") == (200, "the record is locked")
        assert health(16.0, "the disk is full") == (503, "the disk is full")
        assert health(17.0, "") == (200, None)
        assert health(18.0, "the disk is full") == (200, "the disk is full")


def test_a_record_that_is_locked_makes_a_probe_wait_no_longer(tmp_path, journal):
    enter(journal, Phase.WATCHING)
    db = str(tmp_path / "record.db")
    with serving("chat", f"sqlite:///{db}?timeout=1.5", 0, Pulse(99.0)) as (address, path):
        ask = Client(address, path.read_text().strip())
        assert ask("healthz")[2]["phase"] == "watching"
        with closing(sqlite3.connect(db, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            answers = []
            waiting = threading.Thread(target=lambda: answers.append(ask("status")))
            waiting.start()
            assert ask("healthz")[::2] == (200, {"phase": "watching", "last_turn_age_s": pytest.approx(0, abs=30)})
            assert not answers, "what needs the record waits for it, and nothing waits for that"
            waiting.join()
        assert answers[0][0] == 503
        assert "is locked" in answers[0][2]["error"]


def test_the_token_is_its_owner_s_alone(tmp_path):
    path = tmp_path / "_services" / "chat" / "http.token"
    token = token_at(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert token_at(path) == token
    assert [one.name for one in path.parent.iterdir()] == ["http.token"]
    path.chmod(0o640)
    with pytest.raises(MachineError, match="others than its owner may read"):
        token_at(path)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(MachineError, match="holds no token"):
        token_at(path)


def test_patience_outlasts_whatever_a_turn_may_take(tmp_path):
    spec = load_service(World(tmp_path, "http://127.0.0.1:9").folder / "daemon.yaml")
    assert patience_of(spec) > spec.watch.interval + spec.hooks.deadline + spec.canary.window


def test_patience_outlasts_an_episode_of_load(tmp_path):
    path = World(tmp_path, "http://127.0.0.1:9").folder / "daemon.yaml"
    without = patience_of(load_service(path))
    with path.open("a") as file:
        file.write("load: {url: 'http://{arm}:1', timeout: 90 s, traffic: {requests: 20, concurrency: 8}}\n")
    assert patience_of(load_service(path)) == without + 4 * 90.0
    path.write_text(path.read_text().replace("concurrency: 8", "arrivals: constant, rate_per_s: 2"))
    assert patience_of(load_service(path)) == pytest.approx(without + 2 * 90.0 + 10, abs=1)
