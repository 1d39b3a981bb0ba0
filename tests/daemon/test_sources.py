"""A metrics backend as it should be, and in every way in which it is not; a real one answers at the end."""

import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from autotuner.daemon.scraping import Page, Scraped
from autotuner.daemon.sources import Gap, Prometheus, Reading

NOW_S = 1_900_000_000.0
PROMETHEUS = shutil.which("prometheus") or shutil.which("prometheus", path=str(Path(sys.executable).parent))


def vector(*values, at_s=NOW_S):
    result = [{"metric": {}, "value": [at_s, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


@contextmanager
def backend(answers):
    """A fake server: `{query: body, or (status, text), or seconds to wait}`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers[parse_qs(urlsplit(self.path).query)["query"][0]]
            if isinstance(answer, float):
                time.sleep(answer)
                answer = vector("1")
            status, text = answer if isinstance(answer, tuple) else (200, json.dumps(answer))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def read(answer, **options):
    with backend({"q": answer, **options.pop("others", {})}) as url:
        return Prometheus(url, "q", **options).read(NOW_S)


def test_one_number_and_its_time():
    assert read(vector("0.25")) == Reading(0.25, NOW_S)
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [NOW_S, "3"]}}
    assert read(scalar) == Reading(3.0, NOW_S)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (vector(), "the query gives nothing"),
        (vector("1", "2"), "the query gives 2 numbers"),
        (vector("NaN"), "the number is nan"),
        (vector(10**400), "holds no number"),
        ((200, "[" * 100_000), "its answer is no JSON"),
        ((500, "[" * 1900), "it answers 500: no reason given"),
        (vector("+Inf"), "the number is inf"),
        (vector("-Inf"), "the number is -inf"),
        (vector("1", at_s=NOW_S - 121), "stale: 121 s old"),
        ({"status": "error", "error": "x"}, "it could not answer"),
        ({"status": "success", "data": None}, "the query gives a None"),
        ({"status": "success", "data": {"resultType": "matrix", "result": []}}, "the query gives a matrix"),
        ({"status": "success", "data": {"resultType": "vector", "result": ["x"]}}, "holds no number"),
        ([], "it could not answer"),
        ((400, '{"status": "error", "error": "parse error"}'), "it answers 400: parse error"),
        ((503, "<html>"), "it answers 503: no reason given"),
        ((200, "<html>"), "its answer is no JSON"),
        (1.0, "no answer within 0.3 s"),
    ],
)
def test_everything_else_is_a_gap(answer, words):
    found = read(answer, timeout_s=0.3 if isinstance(answer, float) else 5.0)
    assert isinstance(found, Gap)
    assert words in found.reason


@contextmanager
def speaking(*parts, every_s=0.0, said=None):
    """A server that says just these bytes, part by part, and hangs up; what it said is added to `said`."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self):
            self.rfile.readline()
            for part in parts:
                self.wfile.write(part)
                self.wfile.flush()
                if said is not None:
                    said.append(part)
                time.sleep(every_s)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # we hang up on who drips
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([b"220 mail.example ESMTP\r\n"], "it speaks no HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"q 1\n"], "its answer breaks off"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"9\r\nq 1\n"], "it speaks no HTTP"),
        ([b"HTTP/1.1 200 OK\r\n\r\n", *[b"q 1\n"] * 20], "no whole answer in time"),
    ],
)
def test_answers_that_are_none(parts, words):
    """The last one would never hit a socket's own limit."""
    with speaking(*parts, every_s=0.03) as url:
        for source in (Prometheus(url, "q", timeout_s=0.2), Scraped(Page(url, 0.2), "q")):
            found = source.read(NOW_S)
            assert isinstance(found, Gap)
            assert words in found.reason


ERROR = b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\n"
ELSEWHERE = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([b"HTTP/1.1 200 OK\r\n", *[b"X: 1\r\n"] * 90], "no answer within 0.2 s"),
        ([b"H"] * 90, "no answer within 0.2 s"),
        ([ERROR, *[b"x"] * 90], "it answers 500: no reason given"),
        ([ELSEWHERE, *[b"x"] * 90], "no answer within 0.2 s"),
    ],
)
def test_what_drips_is_over_in_time_wherever_it_drips(parts, words):
    """Whoever waited for all of it would hear the server out."""
    said = []
    with speaking(*parts, every_s=0.1, said=said) as url:
        assert Prometheus(url, "q", timeout_s=0.2).read(NOW_S) == Gap(words)
        assert len(said) < len(parts) / 2


def test_a_server_that_is_down_is_a_gap():
    with backend({}) as url:
        pass
    found = Prometheus(url, "q").read(NOW_S)
    assert isinstance(found, Gap)
    assert "does not answer" in found.reason


def test_a_repeated_last_value_is_as_old_as_its_scrape():
    """For five minutes Prometheus gives the last value the time of the question."""
    fresh, old = {"age": vector("5")}, {"age": vector("250")}
    assert isinstance(read(vector("1"), age_query="age", others=fresh), Reading)
    assert read(vector("1"), age_query="age", others=old) == Gap("stale: 250 s old, at most 120 are allowed")
    unknown = read(vector("1"), age_query="age", others={"age": vector()})
    assert unknown == Gap("nobody knows how old it is: the query gives nothing")


@pytest.mark.slow
@pytest.mark.skipif(PROMETHEUS is None, reason="needs a prometheus: make prometheus")
def test_a_real_prometheus(tmp_path):
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {scrape_interval: 1s}\n")
    with backend({}) as free:
        port = free.rpartition(":")[2]
    argv = [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline_s = time.monotonic() + 60
            while not isinstance(found := Prometheus(url, "vector(42)").read(time.time()), Reading):
                assert time.monotonic() < deadline_s, found
                time.sleep(0.1)
            assert found.value == 42
            assert "the number is nan" in Prometheus(url, "vector(0) / 0").read(time.time()).reason
            assert "the number is inf" in Prometheus(url, "vector(1) / 0").read(time.time()).reason
            assert "the query gives nothing" in Prometheus(url, "up{job='x'}").read(time.time()).reason
            assert "parse error" in Prometheus(url, "up{").read(time.time()).reason
            assert Prometheus(url, "scalar(vector(7))").read(time.time()).value == 7
        finally:
            process.terminate()
