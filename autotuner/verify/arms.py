"""Arms side by side: each in its own fresh process, one measuring while the others stand idle.

The common ground of the contest, the race and the contributions. What fails ends a launch as an `ArmError`, which
never leaves this room: its callers turn it back into a value.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random
from types import TracebackType
from typing import Self, TypeAlias

from autotuner.analyze.judge import all_samples
from autotuner.plugins import Job, WorkerPool
from autotuner.spec.model import Goal
from autotuner.types import Config, Failure, FailureKind, Measurement

MakeJob: TypeAlias = Callable[[Config, str, bool], Job]


class ArmError(Exception):
    """An arm could not be measured.

    Attributes:
        arm: Its name.
        failure: What the worker said.
    """

    def __init__(self, arm: str, failure: Failure) -> None:
        super().__init__(f"{arm}: {failure.kind}: {failure.message}")
        self.arm = arm
        self.failure = failure


@dataclass(slots=True)
class Pace:
    """Whether the deadline leaves time for one more, judged by the longest so far on the deadline's own clock."""

    deadline: Callable[[], float]
    longest_s: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Remember how long the body took."""
        before_s = self.deadline()
        yield
        if math.isfinite(before_s):
            self.longest_s = max(self.longest_s, before_s - self.deadline())


@dataclass(frozen=True, slots=True)
class Round:
    """Every arm measured once, one right after the other.

    Attributes:
        launch: Number of the launch, from 0.
        values: The objective's value by arm.
        measurements: What they were read from.
    """

    launch: int
    values: Mapping[str, float]
    measurements: Mapping[str, Measurement]

    @property
    def contended(self) -> bool:
        """Somebody else used the machine during one of the windows."""
        return any(measurement.contended for measurement in self.measurements.values())


def stage_name(stage: str) -> str:
    """What a reader knows it by: without the number of the attempt.

    >>> stage_name("contest0")
    'contest'
    """
    return stage.rstrip("0123456789")


@dataclass(frozen=True, slots=True)
class Bench:
    """What measuring needs, whatever is compared.

    Attributes:
        pool: Where jobs run.
        make_job: (config, launch, exclusive) -> a job whose protocol is that of one window.
        objective: What is compared.
        stage: Prefix of the launches' names.
    """

    pool: WorkerPool
    make_job: MakeJob
    objective: Goal
    stage: str

    @property
    def needs_fresh_processes(self) -> bool:
        """The time to open a workload can only be measured by opening it: no process serves two windows."""
        return "setup_s" in self.objective.metrics


@dataclass(frozen=True, slots=True)
class Launch:
    """Fresh processes for some configurations; leaving the `with` ends them.

    Attributes:
        bench: Where.
        number: From 0.
        configs: Configuration by arm.
        exclusive: The arms do not fit side by side: each window opens its own process and closes it.
    """

    bench: Bench
    number: int
    configs: Mapping[str, Config]
    exclusive: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):  # an interrupted study kills everything at once instead
            for arm in self.configs:
                self.bench.pool.close(self._name(arm))

    def open(self, order: Sequence[str]) -> Mapping[str, Measurement]:
        """Load every arm and take one step, so that no window pays for it; nothing when exclusive.

        Raises:
            ArmError: An arm cannot be opened.
        """
        if self.exclusive:
            return {}
        return {arm: self._run(arm, _opening(self._job(arm))) for arm in order}

    def measure(self, order: Sequence[str]) -> Round:
        """One window for each arm.

        Raises:
            ArmError: An arm failed, or the objective has no positive, finite value.
        """
        measurements = {}
        for arm in order:
            measurements[arm] = self._run(arm, self._job(arm))
            if self.exclusive:
                self.bench.pool.close(self._name(arm))
        return Round(self.number, {arm: self._value(arm, seen) for arm, seen in measurements.items()}, measurements)

    def _name(self, arm: str) -> str:
        return f"{self.bench.stage}-{self.number}-{arm}"

    def _job(self, arm: str) -> Job:
        return self.bench.make_job(self.configs[arm], self._name(arm), self.exclusive)

    def _run(self, arm: str, job: Job) -> Measurement:
        outcome = self.bench.pool.submit(job).result()
        if isinstance(outcome, Failure):
            raise ArmError(arm, outcome)
        return outcome

    def _value(self, arm: str, measurement: Measurement) -> float:
        goal = self.bench.objective
        value = goal.value(all_samples(measurement))
        if not (math.isfinite(value) and value > 0):
            text = f"{goal.metric} is {value}, which no ratio can be taken of"
            raise ArmError(arm, Failure(FailureKind.NOT_FINITE, text))
        return value


def _opening(job: Job) -> Job:
    """The shortest measurement: what counts is that the workload is loaded, compiled and warm afterwards."""
    protocol = replace(
        job.protocol, block_s=1e-3, min_blocks=1, min_measure_s=0.0, max_measure_s=0.0, contended_retries=0
    )
    return replace(job, protocol=protocol)


def balanced_orders(arms: Sequence[str], rng: Random) -> Iterator[tuple[str, ...]]:
    """Random orders in which each second one mirrors the first: ABBA or BAAB for two arms.

    The mirror cancels a linear drift within two rounds; the chance keeps any rhythm of the machine from siding with
    one arm.
    """
    while True:
        order = rng.sample(arms, len(arms))
        yield tuple(order)
        yield tuple(reversed(order))


def spent_s(measurements: Mapping[str, Measurement]) -> float:
    """Time that the measurements took, in seconds."""
    return sum(seen.setup_s + seen.warmup_s + seen.duration_s for seen in measurements.values())
