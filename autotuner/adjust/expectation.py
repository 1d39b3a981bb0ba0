"""What the models of the analysis expect of configurations that nobody has measured: the surrogate's prior mean.

One model so far: the input queue, calibrated on what was measured. It may be wrong, so that its weight is what the
measurements leave it: all of it while there is only one, none of it once they contradict.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from autotuner.adjust.scores import best_trial
from autotuner.adjust.space import Floats, Rows, Space
from autotuner.analyze.queueing import InputQueue, fluid_wait_s
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Measurement, Trial

WORKERS = "num_workers"  # as torch's DataLoader calls them, and every workload that comes with us
_STARVED_RATIO = 0.05  # of the steps' time spent waiting: with less nothing can be said of the loader
_TRUST = 1.0  # observations that the model counts for


def expected_scores(spec: StudySpec, space: Space, trials: Sequence[Trial], rows: Rows) -> Floats:
    """Log of the rate that the input queue allows, by row, up to a constant; 0 everywhere where it has nothing to say.

    Only what a rate of work gains is forecast: a latency under load is another matter.
    """
    queue = _queue(spec, trials) if WORKERS in space.names and spec.objective.metric.startswith("throughput_") else None
    if queue is None:
        return np.zeros(len(rows))
    column, known = space.names.index(WORKERS), spec.parameters[WORKERS].values
    by_value = np.array([_log_rate(queue, value) for value in known])
    return np.asarray(by_value[rows[:, column]], dtype=np.float64)


def weight(expected: Floats, seen: Floats) -> float:
    """How much of an expectation to believe, in [0, 1]: the slope of what was seen, drawn towards 1 (ridge)."""
    moves, answers = expected - expected.mean(), seen - seen.mean()
    spread = float(moves @ moves)
    pull = _TRUST * max(spread / max(1, len(moves)), 1e-6)
    return min(1.0, max(0.0, (float(moves @ answers) + pull) / (spread + pull)))


def _log_rate(queue: InputQueue, workers: object) -> float:
    asked = int(workers) if isinstance(workers, int | float) else 0
    changed = InputQueue(asked, queue.prepare_s, queue.step_s, cpu_ratio=queue.cpu_ratio, cores=queue.cores)
    return -math.log(changed.step_s + fluid_wait_s(changed))


def _queue(spec: StudySpec, trials: Sequence[Trial]) -> InputQueue | None:
    """Calibrated on the best trial whose steps waited for data, else on the baseline."""
    best = best_trial(spec, trials)
    for trial in (best, *trials[:1]):
        if trial is not None and (queue := _calibrated(spec, trial.config, trial)) is not None:
            return queue
    return None


def _calibrated(spec: StudySpec, config: Config, trial: Trial) -> InputQueue | None:
    """From one trial: without workers, what a step waits is a batch's preparation; with some, they set the pace."""
    outcome = trial.outcome
    if not isinstance(outcome, Measurement):
        return None
    waits_s, steps_s = outcome.samples.get("input_wait_s", ()), outcome.samples.get("latency_s", ())
    if not waits_s or not steps_s:
        return None
    wait_s, period_s = fmean(waits_s), fmean(steps_s)
    if wait_s < _STARVED_RATIO * period_s or period_s <= wait_s:
        return None
    step_s, workers = period_s - wait_s, int(config[WORKERS] or 0)
    prepare_s = wait_s if workers == 0 else workers * period_s
    cpu_s = outcome.telemetry.get("cpu_busy_ratio", 0.0) * spec.cpu_cores * period_s  # of a batch, step included
    computes_s = min(max(0.0, cpu_s - step_s), prepare_s)
    left = max(1e-3, spec.cpu_cores - step_s / period_s)  # what the steps do not use
    return InputQueue(workers, prepare_s, step_s, cpu_ratio=computes_s / prepare_s, cores=left)
