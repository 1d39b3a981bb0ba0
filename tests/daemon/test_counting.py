"""Who counts the failing requests of a canary without a load: a Prometheus, which may not answer, or not make sense."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from autotuner.analyze.canary import judge_canary
from autotuner.daemon.measuring import Measuring
from autotuner.daemon.spec import load_service
from autotuner.errors import UsageError
from autotuner.types import CanaryRules, Guard, Ruling, Window

DAEMON = """
service: chat
study: study.yaml
prometheus: URL
signals: {latency_p95_s: {query: 'p95 {arm}'}}
canary: {minimize: latency_p95_s, window: 1 ms, requests: 'requests {arm}', failures: 'failures {arm}'}
hooks: {apply: [x], observe: [x]}
"""
GOOD = {"p95 stable": ["0.2"], "p95 candidate": ["0.1"], "requests stable": ["100"], "failures stable": ["0"],
        "requests candidate": ["50.4"], "failures candidate": ["1.4"]}  # fmt: skip


@contextmanager
def prometheus(answers):
    """A fake one: `{query: the numbers it gives, each as text}`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            numbers = answers[parse_qs(urlsplit(self.path).query)["query"][0]]
            result = [{"metric": {}, "value": [time.time(), number]} for number in numbers]
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


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "study.yaml").write_text("")

    def loaded(url, old="", new=""):
        assert old in DAEMON
        (tmp_path / "daemon.yaml").write_text(DAEMON.replace(old, new).replace("URL", url))
        return load_service(tmp_path / "daemon.yaml")

    return loaded


def measured(spec, **changes):
    answers = GOOD | {name.replace("_", " "): value for name, value in changes.items()}
    with prometheus(answers) as url, Measuring(spec(url)) as measuring:
        return measuring.window()


def test_requests_and_failures_of_both_arms(spec):
    found = measured(spec)
    assert found == Window({"latency_p95_s": 0.2}, {"latency_p95_s": 0.1}, 100, 0, 50, 1)


@pytest.mark.parametrize("arm", ["stable", "candidate"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"failures": []}, "canary.failures: the query gives nothing"),
        ({"requests": []}, "canary.requests: the query gives nothing"),
        ({"failures": ["NaN"]}, "canary.failures: the number is nan"),
        ({"requests": ["+Inf"]}, "canary.requests: the number is inf"),
        ({"failures": ["-3"]}, "canary.failures: -3 is no number of requests"),
        ({"requests": ["1e300"]}, "canary.requests: 1e+300 is no number of requests"),
        ({"requests": ["7"], "failures": ["8"]}, "canary.failures: 8 of 7 requests failed, which cannot be"),
    ],
)
def test_a_window_whose_failures_nobody_knows_counts_for_neither(spec, caplog, arm, wrong, words):
    """Every request of the candidate may have failed: its good latency is no reason to promote it."""
    found = measured(spec, **{f"{name}_{arm}": value for name, value in wrong.items()})
    assert found == Window({}, {}, gap=found.gap)
    assert found.gap.startswith("the requests of ")
    assert f"a window cannot be used: the requests of {arm}: {words}" in caplog.text
    aim = Guard("latency_p95_s", maximize=False)
    verdict = judge_canary([found] * 20, aim, (), CanaryRules())
    assert (verdict.ruling, verdict.windows, verdict.unusable) == (Ruling.ERROR, 0, 20)


def test_where_nobody_counts_there_is_nothing_to_know(spec):
    with prometheus(GOOD) as url:
        silent = spec(url, ", requests: 'requests {arm}', failures: 'failures {arm}'")
        with Measuring(silent) as measuring:
            assert measuring.window() == Window({"latency_p95_s": 0.2}, {"latency_p95_s": 0.1})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (", failures: 'failures {arm}'", "", "canary: requests and failures are counted together: say failures: too"),
        ("requests: 'requests {arm}', ", "", "canary: requests and failures are counted together: say requests: too"),
        ("'failures {arm}'", "failures", "canary.failures: both arms would be counted together: write {arm}"),
        (
            "prometheus: URL\nsignals: {latency_p95_s: {",
            "signals: {latency_p95_s: {url: URL, ",
            "canary.requests: say where its Prometheus is",
        ),
    ],
)
def test_what_would_not_be_counted_is_a_mistake(spec, old, new, words):
    with pytest.raises(UsageError) as raised:
        spec("http://127.0.0.1:1", old, new)
    assert words in raised.value.message
    assert "daemon.yaml:" in raised.value.message
    assert "\n" not in raised.value.message
