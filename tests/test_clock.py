"""When a search has to end so that there is time for a verdict."""

from datetime import UTC, datetime

import pytest

from autotuner.clock import Clock
from autotuner.spec.model import Budget
from autotuner.types import Measurement, Origin, Trial

BUDGET = Budget(trials=50, minutes=10, verify_share=0.35)


def kept(count, seconds=10.0):
    measured = Measurement({}, 0.0, 0.0, seconds, {}, {}, datetime(2026, 1, 1, tzinfo=UTC))
    return [Trial(number, {}, Origin.SAMPLER, measured, None) for number in range(count)]


@pytest.mark.parametrize(
    ("verdict_s", "hopeful", "trials"),
    [
        (0.0, True, 38),  # 65 % of ten minutes, ten seconds a trial
        (100.0, True, 38),  # fits into the share
        (240.0, True, 29),  # a quarter more than it needs: half of the budget
        (9999.0, True, 23),  # never more than 60 %
        (9999.0, False, 59),  # there is nothing to verify
    ],
)
def test_time_is_kept_for_a_verdict(verdict_s, hopeful, trials):
    def ends(count):
        clock = Clock(BUDGET.model_copy(update={"trials": 100}), kept(count), now_s=lambda: 0.0)
        return clock.search_ends(kept(count), hopeful=hopeful, verdict_s=verdict_s)

    assert ends(trials) == ""
    assert ends(trials + 1) == "its time was used"


def test_where_the_time_went_counts_the_runs_before():
    now_s = iter([0.0, 5.0, 5.0])
    clock = Clock(BUDGET, kept(3), now_s=lambda: next(now_s))
    assert clock.by_phase_s() == {"setup": 0, "warmup": 0, "measuring": 30, "diagnosing": 0, "outputs": 0, "other": 5}
