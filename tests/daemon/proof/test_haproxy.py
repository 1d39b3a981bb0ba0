"""A real service behind a real HAProxy, watched through a real Prometheus by the real daemon, while users ask it."""

import pytest
from conftest import APPROVAL
from stage import FAR, Stage

from autotuner.types import Phase

pytestmark = pytest.mark.slow


@pytest.fixture
def stage(found, tmp_path):
    """The daemon waits for a person, what is stable serves, users ask."""
    record, state, *_ = found
    with Stage(tmp_path / "s", record=record, changes=APPROVAL) as stage:
        stage.is_live(FAR)
        stage.resume(state.last_good)
        stage.users.begin()
        yield stage


def test_another_environment_is_noticed_and_a_better_configuration_found(found):
    _, state, (before, after), users = found
    assert "latency_mean_s" in state.reason or "BETTER" in state.reason or state.candidate
    assert (before, after) == ({"block_kib": 8}, {"block_kib": 64})
    assert users.answered > 100
    assert not users.failures


def test_what_is_better_is_promoted_without_one_failed_request(stage, found):
    _, before, *_ = found
    with stage.daemon() as daemon:
        stage.say("approve")
        stage.until(lambda state: state.phase is Phase.PROBATION, daemon)
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
    assert (state.last_good, state.previous) == (before.candidate, before.last_good)
    assert stage.observe() == {"stable": before.candidate, "candidate": "", "percent": 0}
    assert stage.users.answered > 500
    assert not stage.users.failures
