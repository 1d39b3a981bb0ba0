"""Where the time of a study goes, and when its search has to end."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from autotuner.metrics import median
from autotuner.spec.model import Budget
from autotuner.types import Failure, Measurement, Metrics, Trial

_VERDICT_MARGIN = 1.25  # finalists are raced and proven to fit before the contest
_MOST_FOR_A_VERDICT = 0.6  # of the budget: a search that tried nothing finds nothing


class Clock:
    """Counts the minutes of a study over all its runs.

    Args:
        budget: Of the study.
        kept: Trials of earlier runs; their time is used up.
        now_s: A monotonic clock.
    """

    def __init__(self, budget: Budget, kept: Sequence[Trial], now_s: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._now_s, self._began_s = budget, now_s, now_s()
        self._kept_s = sum(_working_s(trial) for trial in kept)
        self._trial_durations_s = [_working_s(t) - (_outputs_s(t) if t.number == 0 else 0.0) for t in kept]
        self.phases_s: defaultdict[str, float] = defaultdict(float)
        for trial in kept:
            self._divide(trial)

    @property
    def elapsed_s(self) -> float:
        """Time used by this run and the earlier ones."""
        return self._kept_s + self._now_s() - self._began_s

    @property
    def total_s(self) -> float | None:
        """The whole budget; None when only trials are counted."""
        return None if self._budget.minutes is None else 60 * self._budget.minutes

    def left_s(self) -> float:
        """What is left of the whole budget; infinite without one."""
        return float("inf") if self.total_s is None else self.total_s - self.elapsed_s

    def search_ends(self, trials: Sequence[Trial], *, hopeful: bool = True, verdict_s: float = 0.0) -> str:
        """Why no further trial should start, as the end of "the search stopped because …"; empty when one should.

        While nobody is `hopeful`, there is nothing to verify, and the time for that is the search's. Otherwise its
        share is kept, and more where any verdict on the best so far takes more: `verdict_s` is the least.
        """
        if trials and isinstance(trials[0].outcome, Failure):
            return "the baseline failed"
        if len(trials) >= self._budget.trials:
            return f"all {self._budget.trials} trials of its budget are used"
        if self.total_s is None or not trials:
            return ""
        typical_s = median(self._trial_durations_s) if self._trial_durations_s else 0.0
        wanted_s = min(_VERDICT_MARGIN * verdict_s, _MOST_FOR_A_VERDICT * self.total_s)
        kept_s = max(self._budget.verify_share * self.total_s, wanted_s) if hopeful else 0.0
        if self.elapsed_s + typical_s > self.total_s - kept_s:
            return "its time was used"
        return ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time spent inside to a phase."""
        began_s = self._now_s()
        try:
            yield
        finally:
            self.phases_s[name] += self._now_s() - began_s

    def count(self, trial: Trial, duration_s: float) -> None:
        """Split a trial's time into phases; what it did not work was spent on starting the first worker, or lost."""
        self._trial_durations_s.append(duration_s - _outputs_s(trial) if trial.number == 0 else duration_s)
        self._divide(trial)
        if trial.number == 0:
            self.phases_s["starting"] += max(0.0, duration_s - _working_s(trial))

    def _divide(self, trial: Trial) -> None:
        match trial.outcome:
            case Measurement() as measured:
                self.phases_s["setup"] += measured.setup_s
                self.phases_s["warmup"] += measured.warmup_s
                self.phases_s["measuring"] += _windows_s(measured)
                self.phases_s["diagnosing"] += sum(measured.samples.get("explain_s", ()))
                self.phases_s["outputs"] += _outputs_s(trial)
            case Failure() as failure:
                self.phases_s["setup"] += failure.duration_s

    def by_phase_s(self) -> Metrics:
        """Seconds by phase, the trials of earlier runs included; "other" is what the tuner itself took."""
        known_s = sum(self.phases_s.values())
        return {**self.phases_s, "other": max(0.0, self.elapsed_s - known_s)}


def _working_s(trial: Trial) -> float:
    match trial.outcome:
        case Measurement() as measured:
            untimed_s = sum(sum(measured.samples.get(name, ())) for name in ("explain_s", "outputs_s"))
            return measured.setup_s + measured.warmup_s + _windows_s(measured) + untimed_s
        case Failure() as failure:
            return failure.duration_s


def _outputs_s(trial: Trial) -> float:
    """What comparing outputs took; the baseline's are computed several times, which says nothing of other trials."""
    return sum(trial.outcome.samples.get("outputs_s", ())) if isinstance(trial.outcome, Measurement) else 0.0


def _windows_s(measured: Measurement) -> float:
    """The timed windows, those that were disturbed and taken again included."""
    return sum(measured.samples.get("windows_s", (measured.duration_s,)))
