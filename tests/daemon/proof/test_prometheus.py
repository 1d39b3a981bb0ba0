"""A Prometheus that is down, empty, slow or stale, and numbers that are none: never a promotion, and no failed request.

The candidate is better: with a Prometheus that works the same canary is promoted, as test_haproxy.py shows.
"""

import os
import signal
from contextlib import contextmanager

import pytest
from outside import wait_until

from autotuner.types import Phase

pytestmark = pytest.mark.slow
INFINITE = 'sum(rate(request_seconds_count{arm="{arm}"}[1s])) / sum(rate(request_seconds_sum{arm="{arm}"}[1s]))'
LAST = 'last_answer_seconds{arm="{arm}"}'
QUERY = 'sum(rate(request_seconds_sum{arm="{arm}"}[1s])) / sum(rate(request_seconds_count{arm="{arm}"}[1s]))'
NOBODY_COUNTS = [("  requests:", "  #"), ("  failures:", "  #"), ("warm_up_windows: 1", "warm_up_windows: 0")]


@contextmanager
def tried(stage):
    """The canary, from when both arms serve; what the service is afterwards must be what it was."""
    before = stage.state()
    with stage.daemon() as daemon:
        stage.until(lambda state: state.phase is Phase.CANARY and state.reached, daemon)
        yield
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
    assert state.last_good == before.last_good
    assert "ERROR" in state.reason, state.reason
    assert "no usable numbers" in state.reason
    phases = [entry.payload["state"]["phase"] for entry in stage.entries("state")]
    assert Phase.PROMOTING not in phases
    assert stage.observe() == {"stable": before.last_good, "candidate": "", "percent": 0}
    assert not stage.users.failures


def ends(process, number=signal.SIGKILL):
    os.kill(process.pid, number)
    if number == signal.SIGKILL:
        process.wait()


def test_down(waiting):
    stage = waiting()
    ends(stage.prometheus)
    with tried(stage):
        pass


def test_empty(waiting):
    """As after the loss of its disk, with another file."""
    stage = waiting()
    ends(stage.prometheus)
    (stage.folder / "tsdb").rename(stage.folder / "lost")
    (stage.folder / "nothing.yml").write_text("scrape_configs: []\n")
    with stage.run_prometheus("nothing.yml"), tried(stage):
        pass


def test_not_a_number(waiting):
    stage = waiting(sum={"64": "NaN"})
    with tried(stage):
        wait_until(lambda: stage.ask(QUERY, "candidate") == "NaN")


def test_infinitely_good(waiting):
    """Its time does not grow: answers for each second of work are answers divided by nothing."""
    changes = [
        (QUERY, INFINITE),
        ("latency_mean_s:  ", "answers_per_s:  "),
        ("minimize: latency_mean_s", "maximize: answers_per_s"),
        ('slo: ["latency_mean_s <= 60 ms"]', "slo: []"),
    ]
    stage = waiting(*changes, sum={"64": "1"})
    with tried(stage):
        wait_until(lambda: stage.ask(INFINITE, "candidate") == "+Inf")


def test_stale(waiting):
    """After it came back without its targets, it repeats for five minutes what it knew last."""
    changes = [(QUERY, LAST), ('timestamp(request_seconds_count{arm="{arm}"})', f"timestamp({LAST})")]
    stage = waiting(*changes)
    (stage.folder / "nothing.yml").write_text("scrape_configs: []\n")
    with tried(stage):
        wait_until(lambda: any(entry.payload["candidate"] for entry in stage.entries("window")))
        ends(stage.prometheus)
        with stage.run_prometheus("nothing.yml"):
            assert 0 < float(stage.ask(LAST, "candidate")) < float(stage.ask(LAST, "stable")), "it looks better"
            stage.until(lambda state: state.phase is not Phase.CANARY)


def test_slow(waiting):
    """It takes connections and does not answer."""
    stage = waiting(*NOBODY_COUNTS)
    ends(stage.prometheus, signal.SIGSTOP)
    with tried(stage):
        pass
