"""The client against a server whose service time is known: what others leave out of a latency is in ours."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.errors import MachineError
from autotuner.load.dialect import WISHES, Dialect, learn
from autotuner.load.process import LoadClient
from autotuner.load.results import dispatch_lag_s, doubts, duration_s, failures, latency_s, tpot_s, ttft_s
from autotuner.load.traffic import Traffic

pytestmark = pytest.mark.alone
AUTOTUNE = str(Path(sys.executable).with_name("autotune"))
FAULTY = Path(__file__).parent.parent / "servers" / "faulty.py"


@pytest.fixture
def start():
    processes = []

    def started(behaviour="good", *arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        processes.append(subprocess.Popen([sys.executable, str(FAULTY), str(port), behaviour, *map(str, arguments)]))
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        return Dialect(f"http://127.0.0.1:{port}/v1/completions", "completions", timeout_s=10)

    yield started
    for process in processes:
        process.kill()
        process.wait()


def test_waiting_for_a_place_is_part_of_the_latency(start):
    """vLLM's issue 54101: 500 ms of service, 10 requests/s, one at a time; 506 ms were reported, 1,932 ms are true."""
    dialect = start("good", "--service-s", 0.5)
    load = Traffic(arrivals="constant", rate_per_s=10, requests=8, max_in_flight=1, output_tokens=2)
    with LoadClient() as client:
        replies = client.run(load.plan(dialect, 0)).replies
    waited = [latency_s(reply) for reply in replies]
    served = [reply.ended_s - reply.sent_s for reply in replies]
    assert sum(served) / 8 == pytest.approx(0.5, rel=0.05)
    assert sum(waited) / 8 == pytest.approx(0.5 + 0.4 * 3.5, rel=0.05)  # each waits 0.4 s longer than the one before


def test_requests_are_sent_when_they_are_due(start):
    dialect = start("good", "--service-s", 0.02)
    plan = Traffic(arrivals="poisson", rate_per_s=100, requests=150, output_tokens=2).plan(dialect, 0)
    with LoadClient() as client:
        episode = client.run(plan)
    assert not failures(episode.replies)
    assert [reply.due_s for reply in episode.replies] == [call.due_s for call in plan.calls]
    assert all(reply.sent_s >= reply.due_s for reply in episode.replies)
    assert dispatch_lag_s(episode, True, None) < 0.1  # how small it is on a quiet machine is benchmarked


def test_a_closed_loop_never_has_more_than_its_places(start):
    dialect = start("good", "--service-s", 0.02)
    with LoadClient() as client:
        episode = client.run(Traffic(concurrency=3, requests=30, output_tokens=2).plan(dialect, 0))
    edges = sorted([(r.due_s, 1) for r in episode.replies] + [(r.ended_s, -1) for r in episode.replies])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    assert most == 3
    assert duration_s(episode) >= 0.02 * 30 / 3
    assert "Little" not in doubts(episode, False, 3)


def test_a_client_that_was_stopped_in_a_closed_loop_is_not_believed(start):
    """For a second: every answer that came meanwhile looks a second late, and nothing was due that would tell."""
    plan = Traffic(concurrency=4, requests=40, output_tokens=2).plan(start("good", "--service-s", 0.2), 0)
    with LoadClient() as client:
        client.run(replace(plan, calls=plan.calls[:4]))

        def stop():
            for word, pause_s in ((signal.SIGSTOP, 1.0), (signal.SIGCONT, 0.0)):
                os.kill(client.pid, word)
                time.sleep(pause_s)

        timer = threading.Timer(0.5, stop)
        timer.start()
        stopped = client.run(plan)
        timer.join()
    assert not failures(stopped.replies)
    assert max(map(latency_s, stopped.replies)) > 0.9
    assert max(length_s for _, length_s in stopped.stalls) > 0.9
    assert "client-bound: the client stood still for " in doubts(replace(stopped, client_busy_ratio=0.0), False, 4)


def test_times_of_tokens(start):
    dialect = start("slow-parts", "--service-s", 0.1)
    with LoadClient() as client:
        client.run(Traffic(requests=1).plan(dialect, 0))  # the first is served as by a good server
        reply = client.run(Traffic(requests=1, output_tokens=11).plan(dialect, 1)).replies[0]
    assert 0.1 <= ttft_s(reply) < latency_s(reply)
    assert tpot_s(reply) >= 0.01
    assert reply.answer.tokens == reply.answer.chunks == 11


@pytest.mark.parametrize(("behaviour", "granted"), [("good", WISHES), ("strict", {"temperature": 0.0})])
def test_a_server_is_asked_for_what_it_grants(start, behaviour, granted):
    dialect = start(behaviour)
    with LoadClient() as client:
        understood, answer = learn(client.run, dialect, {})
    assert answer.failure == ""
    assert understood.wishes == granted


def test_a_client_that_was_killed_says_so(start):
    dialect = start()
    with LoadClient() as client:
        subprocess.run(["kill", "-9", str(client.pid)], check=True)
        with pytest.raises(MachineError, match="the load client died with exit code -9"):
            client.run(Traffic(requests=1).plan(dialect, 0))


def test_the_command_line(start):
    url = start("good", "--service-s", 0.02).url
    argv = [AUTOTUNE, "load", url, "--api", "completions", "--requests", "60", "--concurrency", "2"]
    done = subprocess.run([*argv, "--slo", "latency_s=5 s", "--json"], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (found["requests"], found["answered"], found["attainment_ratio"]) == (60, 60, 1.0)
    assert found["percentiles"]["latency_s"]["p95"] >= 0.02
    assert found["percentiles"]["latency_s"]["p99"] is None  # 60 requests cannot prove it
    shown = subprocess.run(argv, capture_output=True, text=True)
    assert "each further token" in shown.stdout
    assert "p99 needs 299" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ftp://x"], 2, "is no URL of a server"),
        (["http://127.0.0.1:9", "--requests", "1"], 3, "is the server running?"),
        (["http://127.0.0.1:9", "--rate", "-1"], 2, "rate_per_s"),
        (["http://127.0.0.1:9", "--find-rate"], 2, "service level"),
        (["http://127.0.0.1:9", "--slo", "fast"], 2, "write --slo latency_s=200ms"),
        (["http://127.0.0.1:9", "--slo", "latency_s=soon"], 2, "is not a number"),
        (["http://127.0.0.1:9", "--trace", "nowhere.jsonl"], 2, "nowhere.jsonl cannot be read"),
    ],
)
def test_mistakes_on_the_command_line(arguments, code, says):
    done = subprocess.run([AUTOTUNE, "load", *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
