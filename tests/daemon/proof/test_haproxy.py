"""A real service behind a real HAProxy, watched through a real Prometheus by the real daemon, while users ask it."""

import os
import random
import signal
import time

import pytest
from outside import wait_until

from autotuner.types import Phase

pytestmark = pytest.mark.slow
ONE_STEP = ("percents: [20, 50]", "percents: [50]")


def phases(stage):
    return [entry.payload["state"]["phase"] for entry in stage.entries("state")]


def passes(stage):
    """How many PASSes a candidate has on its way."""
    rulings = [entry.payload["because"].get("verdict", {}).get("ruling") for entry in stage.entries("state")]
    return rulings.count("PASS")


def is_back(stage, before):
    """The last good one serves alone, and nothing of it failed meanwhile."""
    assert stage.state().last_good == before.last_good
    assert stage.observe() == {"stable": before.last_good, "candidate": "", "percent": 0}
    assert stage.arms() == [stage.ports["8001"]]
    wait_until(lambda: not stage.strays())
    seen = stage.users.answered, stage.users.failures.total()
    wait_until(lambda: stage.users.answered > seen[0] + 40)
    assert stage.users.failures.total() == seen[1]


def test_another_environment_is_noticed_and_a_better_configuration_found(found):
    seen = found.seen
    assert ["latency_mean_s is" in reason and "3 looks in a row" in reason for reason in seen["reasons"]] == [True]
    assert "answer_s" in found.state.reason
    assert (seen["before"], seen["after"]) == ({"block_kib": 8}, {"block_kib": 64})
    assert seen["answered"] > 100
    assert not seen["failures"]


def test_what_is_better_is_promoted_without_one_failed_request(waiting, found):
    before, stage = found.state, waiting(start_s=1.0)  # long enough for HAProxy to find it down
    with stage.daemon() as daemon:
        stage.until(lambda state: state.phase is Phase.PROBATION, daemon)
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
    assert passes(stage) == 3, "of each step of the traffic, and in probation"
    assert (state.last_good, state.previous) == (before.candidate, before.last_good)
    assert stage.observe() == {"stable": before.candidate, "candidate": "", "percent": 0}
    assert stage.users.answered > 500
    assert not stage.users.failures


def test_a_canary_that_errs_is_taken_back(waiting, found):
    """Users see its own failures, and no others."""
    stage = waiting(errors={"64": 0.5})
    with stage.daemon() as daemon:
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        is_back(stage, found.state)
    assert "it failed" in state.reason
    assert Phase.PROMOTING not in phases(stage)
    assert len(stage.entries("window")) <= 1 + 4, "as soon as it cannot be luck any more"
    assert stage.users.failures
    assert all("out of memory" in failure for failure in stage.users.failures), stage.users.failures


def test_a_canary_that_is_a_tenth_worse_is_taken_back(waiting, found):
    """It was better in the study, and is not where it serves."""
    stage = waiting(ONE_STEP, answer_s={"8": 0.05, "64": 0.055})
    with stage.daemon() as daemon:
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        is_back(stage, found.state)
    assert "latency_mean_s is worse" in state.reason
    assert Phase.PROMOTING not in phases(stage)
    assert not stage.users.failures


def test_what_is_good_in_the_canary_and_bad_afterwards_is_taken_back(waiting, found):
    """A fifth of the requests is no burden for it, four fifths are."""
    stage = waiting(("percents: [20, 50]", "percents: [20]"), answer_s={"8": 0.05, "64": 0.03}, most_per_s={"64": 22})
    with stage.daemon() as daemon:
        stage.until(lambda state: state.phase is Phase.PROBATION, daemon)
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        is_back(stage, found.state)
    assert "in probation, FAIL" in state.reason or "over latency_mean_s" in state.reason
    assert not stage.users.failures


def is_at(state, phase):
    """Or just after: a busy machine may have seen nothing of a phase that ends by itself."""
    return state.phase is phase or (phase is Phase.PROMOTING and state.phase is Phase.PROBATION)


KILLED = ((Phase.CANARY, False), (Phase.CANARY, True), (Phase.PROMOTING, False), (Phase.PROBATION, True))


def test_killed_on_the_way_it_goes_on_and_the_way_back_stays_open(waiting, found):
    """Amid the hook, amid windows, in each phase; users do not notice, and in the end a person wants the old one."""
    draw, before, stage = random.Random(0), found.state, waiting(ONE_STEP)
    for phase, reached in KILLED:
        with stage.daemon() as daemon:
            stage.until(lambda state, p=phase, r=reached: is_at(state, p) and state.reached >= r, daemon)
            time.sleep(draw.uniform(0.0, 1.0))
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.wait()
        wait_until(lambda: not stage.strays(), 10)
        assert stage.observe()["stable"] or stage.observe()["candidate"], "somebody serves"
        assert len(stage.arms()) <= 2
    with stage.daemon() as daemon:
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        assert (state.last_good, state.previous) == (before.candidate, before.last_good)
        assert stage.observe() == {"stable": before.candidate, "candidate": "", "percent": 0}
        assert passes(stage) == 2
        stage.say("rollback")
        stage.until(lambda state: state.last_good == before.last_good, daemon)
        os.kill(daemon.pid, signal.SIGKILL)
        daemon.wait()
    with stage.daemon() as daemon:
        stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        is_back(stage, before)
    assert not stage.users.failures
