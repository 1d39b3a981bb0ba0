"""Alerts to real receivers: a program, and web hooks that answer, fail, answer late, or are not there."""

import json
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from pydantic import TypeAdapter, ValidationError

sys.path.insert(0, str(Path(__file__).parent))
from test_service import World

from autotuner.daemon.alerts import Alert, Alerts, WebHook, post, run_program
from autotuner.daemon.spec import load_service
from autotuner.errors import UsageError
from autotuner.store import open_record
from autotuner.types import Deployment, Phase, ServiceState

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path):
    with open_record(str(tmp_path / "record.db")) as record:
        journal = record.journal("chat")
        token = journal.acquire("here/1", NOW.timestamp(), 30.0)
        journal.enter(token, ServiceState(Phase.ALARM, Deployment("aa"), True, "aa", NOW, "the way back failed"), {})
        yield journal


@contextmanager
def receiver(*answers, late_s=0.0):
    """Its URL, and what came, (content type, body) each; it answers with each of these codes in turn."""
    came, codes = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.append((self.headers["Content-Type"], json.loads(body)))
            over.wait(late_s)
            self.send_response(codes.pop(0) if codes else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self):
            came.append("a GET")

        def log_message(self, *_):
            pass

    over, server = threading.Event(), ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/SECRET", came
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def tell(journal, alerts, text):
    journal.tell("alert", {"text": text, "phase": Phase.ALARM})
    alerts.take_up()


def texts(journal):
    return [entry.payload["text"] for entry in journal.entries(kinds=("alert",))]


def test_a_web_hook_that_answers_500_and_then_200_is_told_once_more(journal):
    with receiver(500, 200) as (url, came), Alerts(journal, webhook=url, pauses_s=(0.01, 0.01)) as alerts:
        tell(journal, alerts, "chat: alarm: the way back failed")
    assert len(came) == 2
    kind, told = came[-1]
    assert kind == "application/json"
    assert datetime.fromisoformat(told.pop("at")).tzinfo is not None
    assert told == {"service": "chat", "phase": "alarm", "text": "chat: alarm: the way back failed"}
    assert texts(journal) == ["chat: alarm: the way back failed"], "nothing failed in the end"


@pytest.mark.parametrize("code", [500, 404, 302])
def test_one_that_never_takes_it_is_asked_three_times_and_written_down(journal, code):
    with receiver(*[code] * 9) as (url, came), Alerts(journal, webhook=url, pauses_s=(0.01, 0.01)) as alerts:
        tell(journal, alerts, "it is broken")
    assert len(came) == 3
    assert "a GET" not in came
    assert texts(journal) == ["it is broken", f"the web hook at 127.0.0.1 answers {code}, 3 times"]


def test_a_dead_one_holds_nobody_up(journal):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Alerts(journal, webhook=f"http://127.0.0.1:{port}/SECRET", pauses_s=(0.2, 0.2)) as alerts:
        tell(journal, alerts, "it is broken")
        assert texts(journal) == ["it is broken"], "told and gone on before the attempts are over"
    (_, failure) = texts(journal)
    assert failure == "the web hook at 127.0.0.1 cannot be reached: Connection refused, 3 times"


def test_between_attempts_it_waits_and_not_longer_than_the_daemon_lives(journal, monkeypatch):
    monkeypatch.setattr("autotuner.daemon.alerts._LAST_S", 0.3)
    with receiver(500, 500) as (url, came):
        with suppress(KeyboardInterrupt), Alerts(journal, webhook=url, pauses_s=(3600.0,)) as alerts:
            tell(journal, alerts, "first")
            while not came:
                time.sleep(0.01)
            raise KeyboardInterrupt
        assert len(came) == 1
    assert texts(journal) == ["first", "the daemon ended, and left 1 of its alerts to the next one"]


def test_a_slow_one_holds_up_neither_the_daemon_nor_its_end(journal, monkeypatch):
    monkeypatch.setattr("autotuner.daemon.alerts._LAST_S", 0.3)
    with receiver(late_s=60.0) as (url, came):
        with suppress(KeyboardInterrupt), Alerts(journal, webhook=url) as alerts:
            tell(journal, alerts, "first")
            tell(journal, alerts, "second")
            while not came:
                time.sleep(0.01)
            raise KeyboardInterrupt
        assert texts(journal) == [
            "first",
            "second",
            "the daemon ended, and left 2 of its alerts to the next one",
        ]
        assert post(url, Alert("chat", "", "x", "y"), timeout_s=0.05) == (
            "the web hook at 127.0.0.1 gives no answer within 0.05 s"
        )


def test_what_a_daemon_that_was_killed_had_not_told_the_next_one_tells_once(journal):
    journal.enter(1, replace(journal.state(), phase=Phase.ALARM), {}, alert={"text": "first", "phase": Phase.ALARM})
    with receiver() as (url, came):
        for _ in range(3):
            with Alerts(journal, webhook=url) as alerts:
                alerts.take_up()
                alerts.take_up()
        assert [told["text"] for _, told in came] == ["first"]
        journal.enter(1, journal.state(), {}, alert={"text": "second", "phase": Phase.APPROVAL})
        with Alerts(journal, webhook=url) as alerts:
            alerts.take_up()
    assert [(told["text"], told["phase"]) for _, told in came] == [("first", "alarm"), ("second", "approval")]


def test_what_was_still_being_told_at_the_end_the_next_daemon_tells(journal, monkeypatch):
    monkeypatch.setattr("autotuner.daemon.alerts._LAST_S", 0.1)
    with receiver(500) as (url, came):
        with suppress(KeyboardInterrupt), Alerts(journal, webhook=url, pauses_s=(3600.0,)) as alerts:
            tell(journal, alerts, "first")
            while not came:
                time.sleep(0.01)
            raise KeyboardInterrupt
        alerts._thread.join()
        with Alerts(journal, webhook=url) as alerts:
            alerts.take_up()
    assert [told["text"] for _, told in came] == ["first", "first"], "and not that something was left"


def test_a_program_is_given_the_text_and_its_failure_is_written_down(journal, tmp_path):
    argv = [sys.executable, "-c", f"import sys; open({str(tmp_path / 'told')!r}, 'w').write(sys.argv[-1]); sys.exit(3)"]
    with Alerts(journal, argv) as alerts:
        tell(journal, alerts, "it\x00is\n\x1b[31mbroken")
    assert (tmp_path / "told").read_text() == "it is broken", "a hook's words can be anything"
    with Alerts(journal, [str(tmp_path / "none")]) as alerts:
        tell(journal, alerts, "again")
    assert texts(journal)[1] == "the alert program ended with 3"
    assert texts(journal)[3].endswith("none: No such file that may be run")


def test_a_word_that_no_program_can_be_given_is_a_failure():
    assert run_program(["true"], "half of a character: \ud800").startswith(
        "the alert program cannot be started: true: "
    )


def test_a_program_that_takes_too_long_dies_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr("autotuner.daemon.alerts._PROGRAM_LIMIT_S", 0.3)
    script = "sleep 300 & echo $! > $0; yes"
    said = run_program(["sh", "-c", script, str(tmp_path / "pid")], "it is broken")
    assert said == "the alert program did not end within 0.3 s"
    pid, ends_s = int((tmp_path / "pid").read_text()), time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < ends_s, psutil.Process(pid)


@pytest.mark.parametrize(
    "url",
    ["ftp://a/SECRET", "SECRET", "http://", "http:///SECRET", "http://a b/SECRET", "http://a:SECRET/", "http://[a/SECRET",
     "http://me:SECRET@a/", "http://a/SECRET\n", "http://a/ä/SECRET"],
)  # fmt: skip
def test_a_url_that_is_none_is_said_without_its_secret(url):
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(WebHook).validate_python(url)
    (error,) = raised.value.errors(include_input=False)
    assert error["type"] == "value_error"
    assert "SECRET" not in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/SECRET", "http://a\x00b/SECRET"])
def test_no_failure_tells_the_secret(url):
    assert "SECRET" not in post(url, Alert("chat", "", "x", "y"))


def test_a_daemon_posts_what_its_file_says_before_it_ends(tmp_path):
    world = World(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "hook.py").write_text("raise SystemExit('no machine is free')")
    with receiver() as (url, came):
        with (tmp_path / "daemon.yaml").open("a") as file:
            file.write(f"webhook: {url}\n")
        process = world.start("--once")
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    ((_, told),) = came
    assert (told["service"], told["phase"]) == ("chat", "rolling_back")
    assert told["text"] == "chat: rolling_back: apply ended with 1: no machine is free"
    assert "SECRET" not in said


def test_a_mistake_in_the_file_is_said_without_the_secret(tmp_path):
    path = World(tmp_path, "http://127.0.0.1:9").folder / "daemon.yaml"
    with path.open("a") as file:
        file.write("webhook: ftp://a/SECRET\n")
    with pytest.raises(UsageError, match=r"daemon.yaml:14: webhook: must be a URL that begins with http") as raised:
        load_service(path)
    assert "SECRET" not in str(raised.value)
