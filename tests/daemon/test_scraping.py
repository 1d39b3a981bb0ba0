"""A real service that shows its own numbers, and every way in which it does not."""

import random
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from autotuner.daemon.measuring import Measuring
from autotuner.daemon.scraping import Page, Scraped, percentile
from autotuner.daemon.sources import Gap, Reading
from autotuner.daemon.spec import load_service
from autotuner.metrics import quantile

NOW_S = 1_900_000_000.0
BUCKETS = [0.05 * 1.05**n for n in range(60)]


class Service:
    """Counts its requests; `page` in place of its numbers is what it shows instead."""

    def __init__(self):
        self.page, self.wait_s = None, 0.0
        self.start()

    def start(self):
        """As a process does that was started anew."""
        self.registry = CollectorRegistry()
        self.asked = Counter("asked", "", ["status"], registry=self.registry)
        self.seconds = Histogram("seconds", "", ["path"], registry=self.registry, buckets=BUCKETS)
        self.queued = Gauge("queued", "", ["engine"], registry=self.registry)
        self.size = Summary("size", "", registry=self.registry)

    def text(self):
        return generate_latest(self.registry) if self.page is None else self.page


@contextmanager
def serving():
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(service.wait_s)
            if isinstance(service.text(), int):
                self.send_error(service.text())
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(service.text())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield service, server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def served():
    with serving() as (service, port):
        yield service, f"http://127.0.0.1:{port}/metrics"


class Looks:
    """Looks at a signal, ten seconds apart."""

    def __init__(self, service, url):
        self.service, self.url, self.at_s = service, url, 0.0

    def signal(self, name, take="value", labels=None, **options):
        page = Page(self.url, options.pop("timeout_s", 5.0), lambda: self.at_s)
        return Scraped(page, name, labels or {}, take, **options)

    def at(self, source):
        self.at_s += 10
        return source.read(NOW_S + self.at_s)


@pytest.fixture
def looks(served):
    service, url = served
    service.start()
    service.page, service.wait_s = None, 0.0
    return Looks(service, url)


def test_a_level(looks):
    looks.service.queued.labels("0").set(3)
    assert looks.at(looks.signal("queued")) == Reading(3.0, NOW_S + 10)
    looks.service.queued.labels("1").set(5)
    assert looks.at(looks.signal("queued")) == Gap("2 series are called queued: tell one by its labels:")
    assert looks.at(looks.signal("queued", labels={"engine": "1"})).value == 5


def test_what_was_counted_between_two_looks(looks):
    rate, one = looks.signal("asked_total", "rate"), looks.signal("asked_total", "rate", {"status": "200"})
    mean, both = looks.signal("seconds", "mean"), (looks.service.asked.labels("200"), looks.service.asked.labels("500"))
    both[0].inc(1000)
    looks.service.seconds.labels("/a").observe(9)
    for source in (rate, one, mean):
        assert source.read(NOW_S) == Gap("a second look is needed")
    both[0].inc(30)
    both[1].inc(10)  # a series that was not there before
    for value in (0.1, 0.2, 0.6):
        looks.service.seconds.labels("/a").observe(value)
    looks.service.seconds.labels("/b").observe(0.3)
    looks.at_s = 10.0
    assert rate.read(NOW_S + 1).value == pytest.approx(4.0)
    assert one.read(NOW_S + 1).value == pytest.approx(3.0)
    assert mean.read(NOW_S + 1).value == pytest.approx(0.3)
    assert looks.at(rate).value == 0
    assert looks.at(mean) == Gap("nothing was counted since the last look")


def test_the_mean_of_a_summary(looks):
    mean = looks.signal("size", "mean")
    looks.at(mean)
    looks.service.size.observe(4)
    looks.service.size.observe(8)
    assert looks.at(mean).value == 6


@pytest.mark.parametrize(("take", "share"), [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)])
def test_a_percentile_is_as_good_as_its_buckets(looks, take, share):
    draw, source = random.Random(0), looks.signal("seconds", take)
    for _ in range(1000):  # what was before does not matter
        looks.service.seconds.labels("/").observe(0.06)
    looks.at(source)
    values = [draw.lognormvariate(-1.5, 0.3) for _ in range(500)]
    for number, value in enumerate(values):
        looks.service.seconds.labels(f"/{number % 2}").observe(value)
    assert looks.at(source).value == pytest.approx(quantile(values, share), rel=0.05)


def test_a_percentile_that_cannot_be_told(looks):
    source = looks.signal("seconds", "p95")
    child = looks.service.seconds.labels("/")
    looks.at(source)
    for _ in range(58):
        child.observe(0.1)
    assert looks.at(source) == Gap("58 were counted since the last look, and p95 needs 59")
    for _ in range(100):
        child.observe(1e9)
    assert "p95 lies beyond the last bucket" in looks.at(source).reason
    assert percentile(0.5, {"1": 4.0, "2": 3.0, "+Inf": 5.0}) == Gap("its buckets do not add up")
    assert percentile(0.5, {"1": 4.0, "2": 5.0}) == Gap("its buckets do not add up")
    assert percentile(0.5, {"one": 4.0, "+Inf": 5.0}) == Gap("its buckets have no bounds")
    assert percentile(0.5, {"1": 10.0, "3": 30.0, "+Inf": 40.0}) == 2.0


def test_a_service_that_was_started_anew(looks):
    """What it had counted in between is lost: that is no rate of nearly nothing."""
    source = looks.signal("asked_total", "rate")
    looks.service.asked.labels("200").inc(1000)
    looks.at(source)
    looks.service.start()
    looks.service.asked.labels("200").inc(30)
    assert looks.at(source) == Gap("it was started anew since the last look")
    looks.service.asked.labels("200").inc(10)
    assert looks.at(source).value == 1.0
    looks.service.start()
    looks.service.asked.labels("500").inc(99)  # the series is another one
    assert looks.at(source) == Gap("it was started anew since the last look")
    started = "process_start_time_seconds {}\nasked_total {}\n"
    for second, count in ((1, 1), (2, 999)):  # more than before, and yet from 0
        looks.service.page = started.format(second, count).encode()
        found = looks.at(source)
    assert found == Gap("it was started anew since the last look")


def test_a_look_that_failed_does_not_lose_the_one_before(looks):
    source = looks.signal("asked_total", "rate", most_s=25)
    looks.service.asked.labels("200").inc()
    looks.at(source)
    looks.service.page = 503
    assert isinstance(looks.at(source), Gap)
    looks.service.page = None
    looks.service.asked.labels("200").inc(20)
    assert looks.at(source).value == 1.0
    looks.at_s += 20
    assert looks.at(source) == Gap("the last look was 30 s ago, at most 25 are compared")


@pytest.mark.parametrize(
    ("page", "name", "take", "words"),
    [
        (b"other 1\n", "q", "value", "the page has no q with a=b"),
        (b'q{a="b"} NaN\n', "q", "value", "q is nan"),
        (b'q{a="b"} +Inf\n', "q", "value", "q is inf"),
        (b'q{a="b"} NaN\n', "q", "rate", "q is nan"),
        (b'q{a="b"} 1\nq{a="b"} 2\n', "q", "rate", "q is there twice"),
        (b'# TYPE q gauge\nq{a="b"} 1\n', "q", "rate", "q is a gauge, of which take: rate says nothing"),
        (b'# TYPE q_total counter\nq_total{a="b"} 1\n', "q_total", "value", "q_total is a counter"),
        (b'q{a="b"} 1 1000\n', "q", "value", "stale: "),
        (b'q{a="b"} 1 1000\n', "q", "rate", "stale: "),
        (b'q_sum{a="b"} 1\n', "q", "mean", "the page has no q_count"),
        (b'q_sum{a="b"} NaN\nq_count{a="b"} 1\n', "q", "mean", "q_sum is nan"),
        (b'q{a="b"} 1', "q", "value", "its page is empty or breaks off"),
        (b"", "q", "value", "its page is empty or breaks off"),
        (b"<html>\n", "q", "value", "its page is not in Prometheus' text format"),
        (b"\xff\n", "q", "value", "its page is not in Prometheus' text format"),
        (b"q " * 5_000_000 + b"\n", "q", "value", "its answer is longer than 8 MiB"),
        (404, "q", "value", "it answers 404"),
        (503, "q", "rate", "it answers 503"),
    ],
)
def test_everything_else_is_a_gap(looks, page, name, take, words):
    looks.service.page = page
    found = looks.at(looks.signal(name, take, {"a": "b"}))
    assert isinstance(found, Gap)
    assert words in found.reason


def test_a_service_that_is_slow_or_down(looks):
    looks.service.wait_s = 0.5
    assert looks.at(looks.signal("q", timeout_s=0.1)) == Gap("no answer within 0.1 s")
    looks.url = "http://127.0.0.1:1/metrics"
    assert "does not answer" in looks.at(looks.signal("q")).reason


DAEMON = """
service: chat
study: study.yaml
signals:
  seconds_s: {metrics: "http://127.0.0.1:{arm}/metrics", name: seconds, labels: {path: /}, take: mean}
  queued_s: {metrics: "http://127.0.0.1:{arm}/metrics", name: queued, labels: {engine: "0"}}
arms: {stable: STABLE, candidate: CANDIDATE}
canary: {minimize: seconds_s, guards: {queued_s: 0.1}, window: 200 ms}
hooks: {apply: [x], observe: [x]}
"""


def test_a_window_of_two_services(tmp_path):
    """Both over the same seconds, from its beginning on; where that was missed there is no number."""
    with serving() as (stable, port), serving() as (candidate, other):
        (tmp_path / "study.yaml").write_text("")
        (tmp_path / "daemon.yaml").write_text(DAEMON.replace("STABLE", str(port)).replace("CANDIDATE", str(other)))

        def at_work(service, seconds, page=None):
            service.queued.labels("0").set(seconds)
            service.seconds.labels("/").observe(9)  # before the window
            service.page = page
            timer = threading.Timer(0.1, lambda: (setattr(service, "page", None), work(service, seconds)))
            timer.start()
            return timer

        def work(service, seconds):
            for share in (0.9, 1.0, 1.1):
                service.seconds.labels("/").observe(seconds * share)

        with Measuring(load_service(tmp_path / "daemon.yaml")) as measuring:
            for page, seen in ((None, pytest.approx({"seconds_s": 0.4, "queued_s": 0.4})), (503, {"queued_s": 0.4})):
                timers = [at_work(stable, 0.2), at_work(candidate, 0.4, page)]
                window = measuring.window()
                assert window.baseline == pytest.approx({"seconds_s": 0.2, "queued_s": 0.2})
                assert window.candidate == seen
                for timer in timers:
                    timer.join()
