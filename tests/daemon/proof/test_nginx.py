"""The same behind a real nginx: promoted, and taken back because a person wants it, without one failed request."""

import pytest

from autotuner.types import Phase

pytestmark = pytest.mark.slow


def test_promoted_and_taken_back_without_one_failed_request(waiting, found):
    before, stage = found.state, waiting(("percents: [20, 50]", "percents: [50]"), proxy="nginx")
    with stage.daemon() as daemon:
        stage.until(lambda state: state.phase is Phase.PROBATION, daemon)
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        assert (state.last_good, state.previous) == (before.candidate, before.last_good)
        assert stage.observe() == {"stable": before.candidate, "candidate": "", "percent": 0}
        stage.say("rollback")
        state = stage.until(lambda state: state.phase is Phase.WATCHING and state.last_good == before.last_good, daemon)
    assert stage.observe() == {"stable": before.last_good, "candidate": "", "percent": 0}
    assert stage.users.answered > 500
    assert not stage.users.failures
