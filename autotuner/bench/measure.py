"""Measuring: today beside the base, interleaved, by the contest of the verification; or today alone."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotuner.analyze.judge import all_samples
from autotuner.bench.base import Side
from autotuner.events import Listener, StageStarted
from autotuner.jobs import Jobs
from autotuner.metrics import median
from autotuner.observing import ObservedPool
from autotuner.plugins import Job, WorkerPool, modules_of
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Failure, Measurement, Metrics, Outcome
from autotuner.verify.arms import ArmError, Bench, Launch
from autotuner.verify.contest import MIN_LAUNCHES, ContestResult, contest
from autotuner.verify.reported import reported

STAGE = "bench"
WINDOWS = 2  # of each launch, when nothing is compared with
GRACE_SHARE = 0.25  # of the minutes, beyond them, for pairs without which those taken so far decide nothing
_BASE = "-baseline"  # how the contest ends the names of the base's launches


@dataclass(frozen=True, slots=True)
class Alone:
    """Today's configuration, measured in fresh processes one after the other.

    Attributes:
        values: The objective in each of them, in order.
        samples: Raw, of all of them.
        contended: Somebody else used the machine during more than half of the windows.
        failure: Why it ended early.
    """

    values: tuple[float, ...] = ()
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    contended: bool = False
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """Today's configuration against the base's.

    Attributes:
        result: Of the contest; the candidate is today's.
        again: What asking the failed side once more came to, in fresh processes: (today, base); None when none failed.
    """

    result: ContestResult
    again: tuple[Outcome, Outcome] | None = None


@dataclass(slots=True)
class _Both:
    """Two pools as one: each side's processes come from a server that stands where its code lies."""

    now: WorkerPool
    base: WorkerPool
    slots: int = 1

    def submit(self, job: Job) -> "Future[Outcome]":
        return self._of(job.launch).submit(job)

    def close(self, launch: str) -> None:
        self._of(launch).close(launch)

    def _of(self, launch: str) -> WorkerPool:
        return self.base if launch.endswith(_BASE) else self.now


@contextmanager
def workers(side: Side) -> Iterator[WorkerPool]:
    """A side's processes; they stay where its code lies."""
    with ExitStack() as stack:
        with side.entered():
            opened = side.spec.executor.open(modules_of(side.spec.workload, side.spec.probes))
            pool = stack.enter_context(opened)
        yield ObservedPool(pool)


def compare(
    now: Side, base: Side, folder: Path, *, margin: float, deadline: Callable[[], float], minutes: float,
    listener: Listener, seed: int,
) -> Beside:  # fmt: skip
    """Interleaved pairs of both until the answer is clear or the time is up; what fails is asked once more."""

    def make_job(config: Config, launch: str, exclusive: bool) -> Job:
        side = base if launch.endswith(_BASE) else now
        with side.entered():  # its workload looks at its own files
            return Jobs(side.spec, folder).window(config, launch, exclusive)

    with workers(now) as ours, workers(base) as theirs:
        pool = _Both(ours, theirs)
        configs = now.spec.canonical(now.spec.baseline), base.spec.canonical(base.spec.baseline)
        result = contest(
            pool, make_job, *configs, now.spec.objective, stage=STAGE, seed=seed, region=margin,
            max_pairs=now.spec.budget.max_pairs, deadline=deadline, grace_s=GRACE_SHARE * 60 * minutes,
            listener=listener,
        )  # fmt: skip
        if result.failure is None:
            return Beside(result)
        listener(StageStarted(STAGE, f"the {_names(result.failed_arm)} failed; both are run once more, alone"))
        jobs = [make_job(config, f"{STAGE}-again{end}", True) for config, end in zip(configs, ("", _BASE), strict=True)]
        outcomes = []
        for job in jobs:
            outcomes.append(pool.submit(job).result())
            pool.close(job.launch)
        return Beside(result, (outcomes[0], outcomes[1]))


def _names(arm: str) -> str:
    return "base revision" if arm == "baseline" else "working tree"


def measure(now: Side, folder: Path, *, deadline: Callable[[], float]) -> Alone:
    """The fewest launches that a contest needs, two windows each; no more are begun when the time is up."""
    spec = now.spec
    retries = spec.protocol.contended_retries

    def make_job(config: Config, launch: str, exclusive: bool) -> Job:
        job = Jobs(spec, folder).window(config, launch, exclusive)
        return replace(job, protocol=replace(job.protocol, contended_retries=retries))

    values: list[float] = []
    seen: list[Measurement] = []
    with workers(now) as pool:
        place = Bench(pool, make_job, spec.objective, STAGE)
        config = spec.canonical(spec.baseline)
        try:
            while len(values) < MIN_LAUNCHES and (deadline() > 0 or not values):
                windows = list(_launch(place, config, len(values)))
                values.append(median([value for value, _ in windows]))
                seen += [measurement for _, measurement in windows]
        except ArmError as error:
            return Alone(tuple(values), _pooled(seen), _disturbed(seen), error.failure)
    return Alone(tuple(values), _pooled(seen), _disturbed(seen))


def _launch(place: Bench, config: Config, number: int) -> Iterator[tuple[float, Measurement]]:
    """Windows of one fresh process; the first one tells its time to set up."""
    fresh = place.needs_fresh_processes
    with Launch(place, number, {"now": config}, exclusive=fresh) as launch:
        opened = launch.open(["now"])
        for window in range(1 if fresh else WINDOWS):
            found = launch.measure(["now"])
            measured = found.measurements["now"]
            if opened and not window:
                own = {**measured.samples, "setup_s": (opened["now"].setup_s,)}
                measured = replace(measured, samples=own, setup_s=opened["now"].setup_s, reused=False)
            yield found.values["now"], measured


def _pooled(seen: list[Measurement]) -> dict[str, tuple[float, ...]]:
    pooled: dict[str, list[float]] = {}
    for measurement in seen:
        for name, values in all_samples(measurement).items():
            if name != "setup_s" or not measurement.reused:  # a process that stood open has nothing to set up
                pooled.setdefault(name, []).extend(values)
    return {name: tuple(values) for name, values in pooled.items()}


def _disturbed(seen: list[Measurement]) -> bool:
    return 2 * sum(measurement.contended for measurement in seen) > len(seen)


def launch_values(result: ContestResult) -> tuple[float, ...]:
    """Today's objective in each launch of a contest."""
    by_launch: dict[int, list[float]] = {}
    for pair in result.pairs:
        by_launch.setdefault(pair.launch, []).append(pair.candidate)
    return tuple(median(values) for values in by_launch.values())


def metrics_of(spec: StudySpec, samples: Mapping[str, tuple[float, ...]]) -> Metrics:
    """What a table shows of one side."""
    return {name: value for name, value in reported(spec, samples, samples).items() if math.isfinite(value)}


def until(minutes: float) -> Callable[[], float]:
    """Seconds that are left of so many minutes from now."""
    end_s = time.monotonic() + 60 * minutes
    return lambda: end_s - time.monotonic()
