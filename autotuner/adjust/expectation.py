"""What the models of the analysis expect of configurations that nobody has measured: the search model's prior mean.

Two models, calibrated on what was measured: the input queue where steps wait for data, else the roofline of a batch. A
model may be wrong, so that its weight is what the measurements leave it: all of it while there is only one, none of it
once they contradict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TypeGuard

import numpy as np

from autotuner.adjust.dimensions import Floats, Rows
from autotuner.adjust.scores import best_trial, scores
from autotuner.adjust.space import Space
from autotuner.analyze.queueing import InputQueue, fluid_wait_s
from autotuner.analyze.steps import batch_parameter
from autotuner.spec.model import StudySpec
from autotuner.types import Measurement, Trial

WORKERS = ("num_workers", "workers", "dataloader_num_workers")  # what they are called
_STARVED_RATIO = 0.05  # of the steps' time spent waiting: with less nothing can be said of the loader
_TRUST = 1.0  # observations that the model counts for


@dataclass(frozen=True, slots=True)
class _Loader:
    """A loader as it was measured.

    Attributes:
        name: The parameter that says how many workers it has.
        queue: The loader and its steps.
        least_s: A step takes no less, however many there are: its CPU time, loading included, on all cores.
    """

    name: str
    queue: InputQueue
    least_s: float

    def log_rate(self, workers: int) -> float:
        """Of steps, with so many workers."""
        queue = replace(self.queue, workers=workers)
        return -math.log(max(self.least_s, queue.step_s + fluid_wait_s(queue)))


@dataclass(frozen=True, slots=True)
class _Batch:
    """A step as it was measured, and what of it is bound to grow with its batch.

    Attributes:
        name: The parameter that says how much a step does.
        size: What it did.
        computing_ratio: Arithmetic at the measured peak of this machine, as a share of the step, in [0, 1].
    """

    name: str
    size: float
    computing_ratio: float

    def log_rate(self, size: float) -> float:
        """Of items, relative to what was measured: arithmetic grows with the batch, all else is paid once a step.

        That is the roofline's promise (Williams, Waterman & Patterson, 2009), not to be surpassed; how much of it is
        kept is for the measurements to say.
        """
        times = size / self.size
        return math.log(times) - math.log(1 - self.computing_ratio + self.computing_ratio * times)


def expected_scores(spec: StudySpec, space: Space, trials: Sequence[Trial], rows: Rows) -> Floats:
    """Log of the rate that the input queue or the roofline allows, by row; 0 where neither has anything to say.

    Only what a rate of work gains is forecast, of one process: several share the cores in ways that they do not know.
    """
    model = _loader(spec, trials) or _batch(spec, trials)
    if model is None:
        return np.zeros(len(rows))
    values = spec.parameters[model.name].values
    by_value = np.array([model.log_rate(value) if _is_count(value) else math.nan for value in values])
    if np.isnan(by_value).any():
        return np.zeros(len(rows))
    return np.asarray(by_value[rows[:, space.names.index(model.name)]], dtype=np.float64)


def believed_scores(
    spec: StudySpec, space: Space, trials: Sequence[Trial], tried: Rows, asked: Rows
) -> tuple[Floats, ...]:
    """What is expected of what was `tried`, trial by trial, and of what is `asked`, as far as measurements bear it out.

    Empty where nothing is expected, or nothing of it is left.
    """
    found = [expected_scores(spec, space, trials, rows) for rows in (tried, asked)]
    believed = weight(spec, trials, found[0]) if any(each.any() for each in found) else 0.0
    return tuple(believed * each for each in found) if believed else ()


def weight(spec: StudySpec, trials: Sequence[Trial], expected: Floats) -> float:
    """How much of an expectation [n, one a trial] to believe, in [0, 1]: the slope of what was measured, with a ridge.

    Whether a limit was broken is another matter than how fast it was; what failed says nothing of either.
    """
    known = [(e, seen) for e, seen in zip(expected, scores(spec, trials), strict=True) if seen is not None]
    if not known:
        return 1.0
    pairs = np.array(known)
    moves, answers = (pairs - pairs.mean(axis=0)).T
    spread = float(moves @ moves)
    pull = _TRUST * max(spread / len(known), 1e-6)
    return min(1.0, max(0.0, (float(moves @ answers) + pull) / (spread + pull)))


def _loader(spec: StudySpec, trials: Sequence[Trial]) -> _Loader | None:
    """From the best trial whose steps waited for data, else from the baseline."""
    name = next((name for name in WORKERS if name in spec.parameters), None)
    if name is None or not spec.objective.metric.startswith("throughput_"):
        return None
    tried = (best_trial(spec, trials), *trials[:1])
    return next((found for trial in tried if trial and (found := _calibrated(spec, name, trial))), None)


def _batch(spec: StudySpec, trials: Sequence[Trial]) -> _Batch | None:
    """From the baseline: of the best trial's batch little is left to be gained, and its forecast says little."""
    name = batch_parameter(spec)
    if name is None or not trials or not spec.objective.metric.startswith("throughput_"):
        return None
    first = trials[0]
    evidence, size = first.verdict.diagnosis.evidence if first.verdict else {}, first.config[name]
    if not _is_count(size) or size == 0 or spec.workload.ranks(first.config) > 1:
        return None
    if not {"compute_floor_s", "step_s"} <= evidence.keys():
        return None
    return _Batch(name, size, min(1.0, evidence["compute_floor_s"] / evidence["step_s"]))


def _calibrated(spec: StudySpec, name: str, trial: Trial) -> _Loader | None:
    """Without workers, what a step waits is a batch's preparation; with some that are waited for, they set the pace."""
    outcome, workers = trial.outcome, trial.config[name]
    if not isinstance(outcome, Measurement) or not _is_count(workers) or spec.workload.ranks(trial.config) > 1:
        return None
    waits_s, steps_s = outcome.samples.get("input_wait_s", ()), outcome.samples.get("latency_s", ())
    if not waits_s or not steps_s:
        return None
    wait_s, period_s = fmean(waits_s), fmean(steps_s)
    if not _STARVED_RATIO * period_s <= wait_s < period_s:
        return None
    step_s, cpu_s = period_s - wait_s, outcome.telemetry.get("cpu_busy_ratio", 0.0) * spec.cpu_cores * period_s
    prepare_s = wait_s if workers == 0 else workers * period_s
    computes_s = min(max(0.0, cpu_s - step_s), prepare_s)  # the steps compute on one core at least
    left = max(1e-3, spec.cpu_cores - step_s / period_s)
    queue = InputQueue(workers, prepare_s, step_s, cpu_ratio=computes_s / prepare_s, cores=left)
    return _Loader(name, queue, cpu_s / spec.cpu_cores)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0
