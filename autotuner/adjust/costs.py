"""What a trial is likely to take: a run, and a reload where something changes that a running workload cannot take."""

from collections.abc import Sequence

import numpy as np

from autotuner.adjust.dimensions import Floats, Rows
from autotuner.adjust.space import Space
from autotuner.metrics import median
from autotuner.spec.model import StudySpec
from autotuner.types import Measurement, Trial


def costs_s(spec: StudySpec, space: Space, trials: Sequence[Trial], rows: Rows) -> Floats:
    """Of each row [count]: a typical run, and where something must be loaded anew what that took of the most alike.

    Of equals the latest, for what was compiled once lies in a cache.
    """
    measured = [trial.outcome for trial in trials if isinstance(trial.outcome, Measurement)]
    took_s = [each.warmup_s + each.duration_s for each in measured]
    loaded = [(trial, seconds) for trial in reversed(trials) if (seconds := _setup_s(trial)) > 0]
    setup_s = np.zeros(len(rows))
    if loaded:
        known = space.matrix(space.encode(trial.config) for trial, _ in loaded)
        alike = space.shape.distances(rows, known).argmin(axis=1)
        setup_s = np.array([seconds for _, seconds in loaded])[alike]
    again = reloads(spec, space, trials, rows) > 0
    return np.asarray(1e-3 + (median(took_s) if took_s else 0.0) + setup_s * again, dtype=np.float64)


def reloads(spec: StudySpec, space: Space, trials: Sequence[Trial], rows: Rows) -> Floats:
    """How many parameters that need a reload differ from the previous trial's, of each row [count]."""
    previous = np.array(space.encode(trials[-1].config), dtype=np.int32)
    costly = needs_reload(spec)
    return np.asarray((rows[:, costly] != previous[costly]).sum(axis=1), dtype=np.float64)


def needs_reload(spec: StudySpec) -> list[bool]:
    """Of each parameter, in the file's order, whether a running workload cannot take another value of it."""
    return [not spec.trait(name).live for name in spec.parameters]


def _setup_s(trial: Trial) -> float:
    """What loading it took; 0 where an opened workload was used again."""
    return trial.outcome.setup_s if isinstance(trial.outcome, Measurement) and not trial.outcome.reused else 0.0
