"""What a watcher knows of a running study: a value, folded from the events. Nothing here reads a clock or prints."""

import math
from dataclasses import dataclass, replace

from autotuner.events import Event, Note, PairMeasured, StageStarted, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from autotuner.report.text import value_of
from autotuner.types import Origin

_KEPT_TRIALS = 60  # more than any terminal shows
_KEPT_STAGES = 8


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the verification, and the last pair that was measured in it."""

    started: StageStarted
    last: PairMeasured | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A running study.

    Attributes:
        study: How it started; None before that.
        began_s: When, on the caller's clock.
        trials: The last trials, in order.
        best: The best feasible one of this run, None if there is none.
        baseline_value: Of the first objective; NaN until it is known.
        done: Trials in the record.
        failed: How many of this run's failed.
        measured: Trials of this run.
        ended_s: When the last trial of this run ended.
        used_s: Of the budget of time by then, earlier runs included.
        current: The trial that runs now.
        current_s: Since when.
        stages: Of the verification, in order.
        note: The last one.
        ended: Whether the study is over.
    """

    study: StudyStarted | None = None
    began_s: float = 0.0
    trials: tuple[TrialEnded, ...] = ()
    best: TrialEnded | None = None
    baseline_value: float = math.nan
    done: int = 0
    failed: int = 0
    measured: int = 0
    ended_s: float = 0.0
    used_s: float = 0.0
    current: TrialStarted | None = None
    current_s: float = 0.0
    stages: tuple[Stage, ...] = ()
    note: str = ""
    ended: bool = False


def advance(progress: Progress, event: Event, now_s: float) -> Progress:
    """What is known after one more event."""
    match event:
        case StudyStarted():
            return Progress(event, now_s, baseline_value=event.baseline_value, ended_s=now_s, done=event.kept_trials)
        case TrialStarted():
            return replace(progress, current=event, current_s=now_s)
        case TrialEnded():
            return _end_trial(progress, event, now_s)
        case StageStarted():
            return replace(progress, current=None, stages=(*progress.stages, Stage(event))[-_KEPT_STAGES:])
        case PairMeasured() if progress.stages:
            return replace(progress, stages=(*progress.stages[:-1], replace(progress.stages[-1], last=event)))
        case Note():
            return replace(progress, note=event.text)
        case StudyEnded():
            return replace(progress, ended=True, current=None)
        case PairMeasured():
            return progress


def _end_trial(progress: Progress, event: TrialEnded, now_s: float) -> Progress:
    trial, metric = event.trial, progress.study.metric if progress.study else ""
    return replace(
        progress,
        trials=(*progress.trials, event)[-_KEPT_TRIALS:],
        best=event if event.best == trial.number else progress.best,
        baseline_value=value_of(trial, metric) if trial.origin is Origin.BASELINE else progress.baseline_value,
        done=progress.done + 1,
        failed=progress.failed + (trial.verdict is None),
        measured=progress.measured + 1,
        ended_s=now_s,
        used_s=event.elapsed_s,
        current=None,
    )


def search_left_s(progress: Progress, now_s: float) -> float:
    """Seconds that the search still needs: the mean trial of this run times what is left; NaN before the first.

    A budget of time bounds it.
    """
    study = progress.study
    if study is None or not progress.measured:
        return math.nan
    mean_s = (progress.ended_s - progress.began_s) / progress.measured
    left_s = mean_s * (study.max_trials - progress.done) - (now_s - progress.ended_s)
    return max(0.0, min(left_s, budget_left_s(progress, now_s)))


def budget_left_s(progress: Progress, now_s: float) -> float:
    """Seconds until the budget of time is spent; infinite without one."""
    study = progress.study
    if study is None or study.budget_s is None:
        return math.inf
    return max(0.0, study.budget_s - progress.used_s - (now_s - progress.ended_s))
