"""How good trials were, as numbers that the strategies can compare."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from autotuner.adjust.promise import Seen
from autotuner.adjust.pruning import memory_demand
from autotuner.adjust.space import Space
from autotuner.spec.model import StudySpec
from autotuner.types import Trial


def best_trial(spec: StudySpec, trials: Iterable[Trial]) -> Trial | None:
    """The feasible trial with the best first objective, the earliest of equals; None if there is none."""
    sign = spec.objective.sign
    feasible = [(sign * value, -t.number, t) for t in trials if (value := _objective(spec, t)) is not None and _kept(t)]
    return max(feasible, key=lambda entry: entry[:2])[2] if feasible else None


def scores(spec: StudySpec, trials: Sequence[Trial]) -> list[float | None]:
    """The first objective of every trial, larger is better; None where nothing finite was measured.

    On a log scale when all are positive, because ratios are what matters: from 10 to 20 is worth as much as from 100
    to 200.
    """
    values = [_objective(spec, trial) for trial in trials]
    positive = _all_positive(values)
    sign = spec.objective.sign
    return [None if value is None else sign * (math.log(value) if positive else value) for value in values]


def _all_positive(values: Iterable[float | None]) -> bool:
    return all(value > 0 for value in values if value is not None)


def evidence(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> Seen:
    """The record as the models see it."""
    known = [math.nan if score is None else score for score in scores(spec, trials)]
    return Seen(
        rows=space.matrix(space.encode(trial.config) for trial in trials),
        scores=np.array(known, dtype=np.float64),
        excess=np.array([_excess(trial) for trial in trials], dtype=np.float64),
        are_logs=_all_positive(_objective(spec, trial) for trial in trials),
        demand=memory_demand(space, trials),
    )


def _excess(trial: Trial) -> float:
    """Of the limit that is broken worst, or kept by least; inf for a failure, and for what cannot be told."""
    each = [math.inf] if trial.verdict is None else [*trial.verdict.violations.values()]
    return max((math.inf if math.isnan(excess) else excess for excess in each), default=-math.inf)


def _objective(spec: StudySpec, trial: Trial) -> float | None:
    value = math.nan if trial.verdict is None else trial.verdict.objectives.get(spec.objective.metric, math.nan)
    return value if math.isfinite(value) else None


def _kept(trial: Trial) -> bool:
    return trial.verdict is not None and trial.verdict.feasible
