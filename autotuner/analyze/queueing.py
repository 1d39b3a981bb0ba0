"""The input queue: loader workers prepare batches, steps consume them, and a bounded prefetch buffer lies between.

Workers deliver lambda = min(n / tau, cores / CPU seconds of a batch) (utilisation law: Denning and Buzen 1978), steps
take mu = 1 / s, and rho = lambda / mu. Formulas of open queues (M/M/c; Kingman 1961, Allen and Cunneen 1978) do not
hold here: their buffer is endless, so that rho >= 1 has no answer, while here the full buffer blocks the workers, which
is the good case. What holds is the loader's own recursion over finish times (Lindley 1952; for networks that block
Baccelli, Cohen, Olsder and Quadrat 1992, "Synchronization and Linearity"), fed with seeded gamma variates.
"""

import math
import random
from dataclasses import dataclass, replace
from functools import lru_cache

_BATCHES = 4000  # the standard error of the mean wait is then about 2 % of a step at cv² = 1
_MOST_WORKERS = 128
_LEAST_CV2, _MOST_CV2 = 1e-6, 100.0  # steadier is constant; wilder could not be seen in so many batches


@dataclass(frozen=True, slots=True)
class InputQueue:
    """A loader and the steps that it feeds, as torch's `DataLoader` with batches in order.

    Attributes:
        workers: Processes that prepare batches, >= 0; with 0 the step's own process does.
        prepare_s: Mean seconds that one worker, undisturbed, needs for a batch and for sending it, > 0.
        step_s: Mean seconds of a step that never waits, > 0.
        prefetch_factor: Batches that each worker may be ahead, >= 1.
        prepare_cv2: Squared coefficient of variation (variance / mean²) of the time of a batch: slow batches.
        step_cv2: That of the time of a step.
        cpu_ratio: Share of `prepare_s` that a worker computes, rather than sleeps or waits for a disk.
        cores: CPU cores that the workers can have; infinite when they never compute.
        handover_s: Seconds that the step's process itself pays for taking a batch over.
    """

    workers: int
    prepare_s: float
    step_s: float
    prefetch_factor: int = 2
    prepare_cv2: float = 0.0
    step_cv2: float = 0.0
    cpu_ratio: float = 1.0
    cores: float = math.inf
    handover_s: float = 0.0

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: One is broken.
        """
        counts = self.workers >= 0 and self.prefetch_factor >= 1 and self.cores > 0 and 0 <= self.cpu_ratio <= 1
        times = self.prepare_s > 0 and self.step_s > 0 and self.handover_s >= 0
        if not (counts and times and self.prepare_cv2 >= 0 and self.step_cv2 >= 0):
            raise ValueError(f"not an input queue: {self}")

    @property
    def arrival_rate_per_s(self) -> float:
        """Lambda: batches a second that the workers can deliver, whether or not the steps take them."""
        if self.workers == 0:
            return 1 / (self.prepare_s + self.step_s)
        return min(self.workers / self.prepare_s, self._cores_rate_per_s)

    @property
    def service_rate_per_s(self) -> float:
        """Mu: steps a second that never wait for data."""
        return 1 / (self.step_s + (self.handover_s if self.workers else 0.0))

    @property
    def utilisation_ratio(self) -> float:
        """Rho = lambda / mu: below 1 the steps wait, above 1 the workers do."""
        return self.arrival_rate_per_s / self.service_rate_per_s

    @property
    def blocks(self) -> bool:
        """Whether the buffer fills and stops the workers, so that steps find a batch ready."""
        return self.utilisation_ratio >= 1

    @property
    def _cores_rate_per_s(self) -> float:
        cpu_s = self.prepare_s * self.cpu_ratio
        return self.cores / cpu_s if cpu_s > 0 else math.inf


def fluid_wait_s(queue: InputQueue) -> float:
    """The least that a step waits for data: what is left when nothing varies (asymptotic bounds, Denning and Buzen)."""
    if queue.workers == 0:
        return queue.prepare_s
    return queue.handover_s + max(0.0, 1 / queue.arrival_rate_per_s - 1 / queue.service_rate_per_s)


def expected_wait_s(queue: InputQueue, seed: int = 0) -> float:
    """Mean seconds that a step waits for its batch in the long run.

    Batch i goes to worker i mod n as soon as batch i - n f was taken; batches are handed out in order, so that a slow
    one holds up finished ones behind it. More workers than the cores can feed count as so many as they can: a core that
    one leaves, another takes. The same seed draws the same batches for every queue.
    """
    if queue.workers == 0 or max(queue.prepare_cv2, queue.step_cv2) < _LEAST_CV2:
        return fluid_wait_s(queue)
    ahead = queue.workers * queue.prefetch_factor
    warmup = ahead + 100
    prepares, steps = _variates(queue.prepare_cv2, seed), _variates(queue.step_cv2, seed + 1)
    servers = _fed_workers(queue)
    prepare_s = servers / queue.arrival_rate_per_s  # longer than alone where the last one has part of a core
    finished_s, taken_s = [0.0] * servers, [0.0] * ahead  # of the last batches, by worker and by place
    asked_s = waited_s = 0.0
    for i in range(warmup + _BATCHES):
        worker, place = i % servers, i % ahead
        finished_s[worker] = max(finished_s[worker], taken_s[place]) + prepare_s * prepares[i % _BATCHES]
        taken_s[place] = max(asked_s, finished_s[worker]) + queue.handover_s
        if i >= warmup:
            waited_s += taken_s[place] - asked_s
        asked_s = taken_s[place] + queue.step_s * steps[i % _BATCHES]
    return waited_s / _BATCHES


@lru_cache(maxsize=16)
def _variates(cv2: float, seed: int) -> tuple[float, ...]:
    """Gamma variates, scaled so that their mean is exactly 1: little noise is then left in the answer."""
    if cv2 < _LEAST_CV2:
        return (1.0,) * _BATCHES
    cv2, draw = min(cv2, _MOST_CV2), random.Random(seed)
    values = [draw.gammavariate(1 / cv2, cv2) for _ in range(_BATCHES)]
    mean = math.fsum(values) / _BATCHES
    return tuple(value / mean for value in values)


def wait_ratio(queue: InputQueue, seed: int = 0) -> float:
    """Expected share of a step that is spent waiting for its batch, in [0, 1)."""
    wait_s = expected_wait_s(queue, seed)
    return wait_s / (wait_s + queue.step_s)


def most_useful_workers(queue: InputQueue) -> int:
    """Beyond so many, workers only take the cores from each other; at most 128 where they need none."""
    return _fed_workers(replace(queue, workers=_MOST_WORKERS))


def _fed_workers(queue: InputQueue) -> int:
    """Workers that the cores can keep at work, the last one perhaps in part."""
    limit = queue.cores / queue.cpu_ratio if queue.cpu_ratio > 0 else math.inf
    return queue.workers if limit >= queue.workers else math.ceil(limit)


def enough_workers(queue: InputQueue, tolerance_ratio: float = 0.05) -> int | None:
    """Fewest workers, 0 included, with which waiting is at most this share of a step.

    Returns:
        None when no number suffices: the cores, or the handover, are what binds.
    """
    most_s = tolerance_ratio / (1 - tolerance_ratio) * queue.step_s
    queues = [replace(queue, workers=n) for n in range(most_useful_workers(queue) + 1)]
    hopeful = (trial for trial in queues if fluid_wait_s(trial) <= most_s)  # the bound is cheap to compute
    return next((trial.workers for trial in hopeful if expected_wait_s(trial) <= most_s), None)


def explain_queue(queue: InputQueue, tolerance_ratio: float = 0.05) -> str:
    """The queue in one sentence: whether it blocks or runs empty, what that costs, and how many workers are enough.

    >>> explain_queue(InputQueue(workers=2, prepare_s=0.1, step_s=0.025)).partition("; ")[2]
    '4 workers are enough for at most 5%.'
    """
    ratio, enough = wait_ratio(queue), enough_workers(queue, tolerance_ratio)
    if queue.workers == 0:
        state = f"Without workers each step first prepares its own batch and waits {ratio:.0%} of its time"
    else:
        arrivals, services = queue.arrival_rate_per_s, queue.service_rate_per_s
        rates = f"{arrivals:.3g} batches arrive a second for {services:.3g} steps"
        kind = "the buffer fills and stops the workers," if queue.blocks else "the buffer runs empty"
        state = f"{rates} (utilisation {queue.utilisation_ratio:.2f}): {kind} and a step waits {ratio:.0%} of its time"
    return f"{state}{_blame_slow_batches(queue, ratio)}; {_advise(queue, enough, tolerance_ratio)}."


def _blame_slow_batches(queue: InputQueue, ratio: float) -> str:
    steady_s = fluid_wait_s(queue)
    steady = steady_s / (steady_s + queue.step_s)
    return f" ({steady:.0%} if no batch were slower than the mean)" if ratio > steady + 0.01 else ""


def _advise(queue: InputQueue, enough: int | None, tolerance_ratio: float) -> str:
    if enough is not None:
        return f"{enough} worker{'s are' if enough != 1 else ' is'} enough for at most {tolerance_ratio:.0%}"
    best = replace(queue, workers=most_useful_workers(queue))
    limited = math.isfinite(queue.cores) and queue.cpu_ratio > 0 and not best.blocks
    limit = f"{queue.cores:g} cores leave" if limited else "taking batches over leaves"
    return f"no number of workers is enough: {limit} {wait_ratio(best):.0%}, so make a batch cheaper"
