"""Windows under our own load: real servers, one of them slower, failing, overwhelmed or gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from autotuner.analyze.canary import judge_canary
from autotuner.daemon import loading
from autotuner.daemon.loading import Load
from autotuner.daemon.measuring import Measuring
from autotuner.daemon.sources import Gap, Reading
from autotuner.daemon.spec import load_service
from autotuner.errors import UsageError
from autotuner.load.process import LoadClient
from autotuner.types import CanaryRules, Ruling, Window

pytestmark = pytest.mark.alone
FAULTY = Path(__file__).parent.parent / "servers" / "faulty.py"
DAEMON = """
service: chat
study: study.yaml
signals:
  latency_p50_s: {load: latency_p50_s}
  throughput_requests_per_s: {load: throughput_requests_per_s}
arms: {stable: STABLE, candidate: CANDIDATE}
load:
  url: "http://127.0.0.1:{arm}"
  api: completions
  timeout: 5 s
  traffic: {TRAFFIC}
watch: {interval: 1 s}
canary: {minimize: latency_p50_s, window: 1 ms}
hooks: {apply: [x], observe: [x]}
"""
CLOSED = "concurrency: 4, requests: 8, prompt_words: 8, output_tokens: 2"

PACED = "arrivals: constant, rate_per_s: 50, requests: 20, prompt_words: 8, output_tokens: 2"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def ports():
    """Of servers by name."""
    fast, slow = (["good", "--service-s", service_s] for service_s in (0.02, 0.04))
    words = {"fast": fast, "slow": slow, "bad": ["error-body"], "narrow": [*slow, "--places", 1]}
    found, processes = {name: free_port() for name in (*words, "none")}, []
    try:
        for name, behaviour in words.items():
            processes.append(subprocess.Popen([sys.executable, FAULTY, str(found[name]), *map(str, behaviour)]))
        for name in words:
            await_port(found[name])
        yield found
    finally:
        for process in processes:
            process.kill()
            process.wait()


def await_port(port):
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the server did not start")


@pytest.fixture(scope="module")
def client():
    """One for all tests: each takes half a second to start."""
    with LoadClient() as opened:
        yield opened


@pytest.fixture
def measuring(tmp_path, ports, client):
    """Of two servers under some traffic."""
    with ExitStack() as stack:

        def opened(stable, candidate, traffic=CLOSED, moved=lambda: None):
            words = {"STABLE": str(ports[stable]), "CANDIDATE": str(ports[candidate]), "TRAFFIC": traffic}
            text = DAEMON
            for word, value in words.items():
                text = text.replace(word, value)
            (tmp_path / "daemon.yaml").write_text(text)
            (tmp_path / "study.yaml").write_text("")
            found = stack.enter_context(Measuring(load_service(tmp_path / "daemon.yaml"), moved))
            found._load._client = client
            return found

        yield opened


def turned(window):
    return Window(
        window.candidate, window.baseline, window.candidate_requests, window.candidate_failures,
        window.baseline_requests, window.baseline_failures,
    )  # fmt: skip


def test_each_episode_that_ends_is_a_sign_of_life(measuring):
    signs = []
    both = measuring("fast", "slow", moved=lambda: signs.append(True))
    both.look()
    assert len(signs) >= 1
    before = len(signs)
    both.window()
    assert len(signs) >= before + 4


def test_a_candidate_that_is_twice_as_slow(measuring):
    """Real windows come to a verdict: against the slow one, and for the fast one where they are turned."""
    both, windows = measuring("fast", "slow"), []
    terms, rules = both._spec.terms(), CanaryRules(least_windows=8)
    found = both.look()
    assert all(isinstance(read, Reading) for read in found.values())
    assert found["latency_p50_s"].value >= 0.02
    while True:
        windows += [window for window in [both.window()] if window.baseline]  # a neighbour may hold the client up
        verdicts = [judge_canary(seen, terms.aim, terms.guards, rules) for seen in (windows, [*map(turned, windows)])]
        if all(verdict.settled for verdict in verdicts):
            break
    assert [verdict.ruling for verdict in verdicts] == [Ruling.FAIL, Ruling.PASS]
    assert " is worse: 0." in verdicts[0].reason
    assert verdicts[1].gains["latency_p50_s"].value == pytest.approx(2, rel=0.4)
    assert {(one.baseline_requests, one.candidate_requests) for one in windows} == {(16, 16)}
    assert not any(one.baseline_failures or one.candidate_failures for one in windows)


@pytest.mark.parametrize("candidate", ["bad", "none"])
def test_a_candidate_that_fails_requests(measuring, candidate):
    """Its failures count, and it has no numbers that anybody could like."""
    both = measuring("fast", candidate)
    dialect = both._spec.load.target(both._spec.arms, "candidate").dialect()
    dialect.ask(both._load._opened().run, dialect.body("Hello", 2))  # the fake's first answer is a good one
    window = both.window()
    assert (window.baseline_requests, window.baseline_failures) == (16, 0)
    assert window.candidate_requests == 16
    assert window.candidate_failures == 16
    assert "latency_p50_s" in window.baseline
    assert "latency_p50_s" not in window.candidate
    terms = both._spec.terms()
    verdict = judge_canary([window], terms.aim, terms.guards, CanaryRules())
    assert (verdict.ruling, verdict.settled) == (Ruling.FAIL, True)
    assert "of 16 requests" in verdict.reason


def test_without_a_stable_server_nothing_is_said(measuring):
    both = measuring("none", "fast")
    assert replace(window := both.window(), gap="") == Window({}, {})
    assert window.gap
    found = both.look()["latency_p50_s"]
    assert isinstance(found, Gap)
    assert "the connection failed" in found.reason


def test_a_promoted_one_that_does_not_answer_fails_its_requests(measuring, ports):
    """In probation it serves stably: the one that it replaced says how it would have been asked."""
    both = measuring("none", "fast")
    window, terms = both.window(promoted=True), both._spec.terms()
    assert (window.baseline_requests, window.baseline_failures) == (16, 16)
    assert (window.candidate_requests, window.candidate_failures) == (16, 0)
    verdict = judge_canary([turned(window)], terms.aim, terms.guards, terms.probation)
    assert (verdict.ruling, verdict.settled) == (Ruling.FAIL, True)
    ports |= {"gone": free_port()}
    neither = measuring("none", "gone").window(promoted=True)
    assert replace(neither, gap="") == Window({}, {}), "that is no fault of the new one"
    assert "the connection failed" in neither.gap


def test_a_window_without_numbers_is_as_long_as_any(monkeypatch):
    """Else a stable server that is restarted would use up many at once."""
    now_s = [100.0]

    class Clock:
        @staticmethod
        def monotonic():
            return now_s[0]

        @staticmethod
        def sleep(seconds):
            now_s[0] += seconds

    def refuse(_):
        now_s[0] += 0.5
        raise UsageError("HTTP 404")

    load = Load.__new__(Load)
    monkeypatch.setattr(loading, "time", Clock)
    monkeypatch.setattr(load, "_dialects", refuse)
    assert load.compare(30.0) == Gap("HTTP 404")
    assert now_s == [130.0]
    assert load.compare(0.1) == Gap("HTTP 404")
    assert now_s == [130.5]


def test_more_than_an_arm_can_bear_says_nothing(measuring, caplog, monkeypatch):
    both = measuring("fast", "narrow", PACED)
    monkeypatch.setattr(both, "_read", lambda *_: {"latency_p50_s": Reading(1.0, 0.0)})  # whatever others tell of it
    assert replace(window := both.window(), gap="") == Window({}, {})
    assert window.gap
    assert "requests piled up at candidate" in caplog.text


def test_a_client_that_was_held_up_is_not_believed(measuring, caplog, monkeypatch):
    """Somebody stops its process again and again: what it then measures is its own."""
    both, over = measuring("fast", "slow", PACED), threading.Event()
    assert both.window().baseline_requests == 40
    monkeypatch.setattr(loading, "_ATTEMPTS_S", 0.0)
    monkeypatch.setattr(loading, "_ATTEMPTS", 1)
    pid = both._load._client.pid

    def hold_up():
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.04)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)

    thread = threading.Thread(target=hold_up)
    thread.start()
    try:
        assert replace(window := both.window(), gap="") == Window({}, {})
        assert window.gap
    finally:
        over.set()
        thread.join()
    assert "client" in caplog.text


def test_a_client_that_died_is_started_anew(measuring):
    both = measuring("fast", "none")
    both._load._client = None  # this one is its own
    both.look()
    os.kill(both._load._client.pid, signal.SIGINT)  # Ctrl-C reaches all of a terminal; who goes on is not ours to say
    assert isinstance(both.look()["latency_p50_s"], Reading)
    os.kill(both._load._client.pid, signal.SIGKILL)
    assert "the load client died" in both.look()["latency_p50_s"].reason
    assert isinstance(both.look()["latency_p50_s"], Reading)


@contextmanager
def recording():
    """A server that keeps what it is asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            asked.append(json.loads(self.rfile.read(length))["prompt"])
            body = json.dumps({"choices": [{"text": "yes"}], "usage": {"completion_tokens": 2}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


def test_both_arms_are_asked_the_same_and_never_again(measuring, ports):
    with recording() as (one, first), recording() as (other, second):
        ports |= {"one": one, "other": other}
        traffic = "concurrency: 1, requests: 3, prompt_words: 8, output_tokens: 2"
        opened = measuring("one", "other", traffic)
        opened.window()
        asked = first[1:]  # by the first its dialect was learned
        assert sorted(asked) == sorted(second)
        assert len(set(asked)) == len(asked) >= 6
        opened.window()
        measuring("one", "other", traffic).window()  # and the next daemon
        assert len(second) == len(set(second)) >= 18


def test_arms_take_turns(monkeypatch):
    """Stable, candidate, candidate, stable: what drifts over the window meets both alike."""
    order = []
    load = Load.__new__(Load)
    monkeypatch.setattr(load, "_dialects", lambda _: {}, raising=False)
    monkeypatch.setattr(load, "_believed", lambda turn, _: order.extend(turn) or dict.fromkeys(turn), raising=False)
    load.compare(0.0)
    assert order == ["stable", "candidate", "candidate", "stable"]
