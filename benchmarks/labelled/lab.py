"""Where the cases are run: measured and diagnosed as a study does it, their truth checked apart from that."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotuner.diagnosing import examine
from autotuner.executors.process import ProcessExecutor
from autotuner.jobs import Jobs
from autotuner.metrics import median, value_of
from autotuner.monitor.host import MAX_FOREIGN_RATIO, HostProbe, HostReader
from autotuner.monitor.torch import TorchProbe
from autotuner.plugins import Job, WorkerPool
from autotuner.spec.expressions import Limit
from autotuner.spec.model import EquivalenceRules, Objective, Parameter, StudySpec
from autotuner.types import (
    Binding,
    Config,
    Diagnosis,
    Failure,
    FailureKind,
    Measurement,
    MeasurementProtocol,
    Origin,
    Outcome,
    Trial,
)  # fmt: skip
from labelled.cases import Case
from labelled.checks import UnclearError, check
from labelled.opponent import Profile, by_utilisation, generous, strict
from labelled.part import PartSpec
from labelled.profiled import Profiled, profile_of
from labelled.workload import Labelled
from labelled.yardsticks import measure_ceilings

PROTOCOL = MeasurementProtocol(
    block_s=0.04, warmup_min_s=0.1, warmup_max_s=0.6, min_measure_s=0.4, max_measure_s=1.0, precision_ratio=0.04,
    contended_retries=1, time_limit_s=60.0,
)  # fmt: skip
QUICK = replace(PROTOCOL, min_measure_s=0.2, max_measure_s=0.4)
TRACED = replace(
    PROTOCOL, block_s=1e-3, warmup_min_s=0.0, warmup_max_s=0.0, min_blocks=1, min_measure_s=0.0, max_measure_s=0.0
)
STEP_S = 0.04  # of a composed case
ATTEMPTS = 3
PATIENCE_S = 20.0  # for somebody else's work to end
QUIET_LOOK_S, QUIET_LOOKS = 0.15, 2
CONFIG: Config = {"batch_size": 1}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case.

    Attributes:
        truth: As the checks left it.
        answer: The diagnosis; None if the case could not be measured undisturbed, or its truth did not hold.
        others: What others would have said, by name.
        skipped: Why there is no answer.
        check: What the independent check saw.
        measurement: Of the diagnosed configuration.
        profile: What the opponent was given.
        attempts: How often it was measured.
    """

    case: Case
    truth: tuple[Binding, ...]
    answer: Diagnosis | None
    others: Mapping[str, Binding] = field(default_factory=dict)
    skipped: str = ""
    check: Mapping[str, float] = field(default_factory=dict)
    measurement: Measurement | None = None
    profile: Profile | None = None
    attempts: int = 1
    duration_s: float = 0.0

    @property
    def right(self) -> bool:
        """One of the true answers was given."""
        return self.answer is not None and self.answer.binding in self.truth

    @property
    def confidently_wrong(self) -> bool:
        """A probe is said to have confirmed what is not true."""
        return self.answer is not None and self.answer.confirmed and not self.right


class Lab:
    """Runs cases in worker processes."""

    def __init__(self, pool: WorkerPool, folder: Path, device: str, patience_s: float) -> None:
        self._pool, self._folder, self.device, self.patience_s = pool, folder, device, patience_s
        self._units_s: dict[str, float] = {}
        self.ceilings = measure_ceilings(self.part_values, device, self.wait_for_quiet)

    def run(self, case: Case) -> Result:
        """Compose, check, measure, diagnose; measured again when somebody else disturbed it."""
        began_s = time.perf_counter()
        result = Result(case, case.truth, None)
        attempts = 0
        while attempts < ATTEMPTS:
            attempts += 1
            self.wait_for_quiet()
            try:
                parts = self._composed(case)
                truth, seen = check(self, case, parts)
                result = replace(self._attempt(case, parts), truth=truth, check=seen)
            except UnclearError as error:
                result = replace(result, answer=None, skipped=str(error))
            assert result.answer is not None or result.skipped
            if result.answer is not None and (result.answer.binding is not Binding.INVALID or case.hogs):
                break
            self._units_s.clear()
        else:
            if result.answer is not None:
                result = replace(result, answer=None, skipped=result.answer.sentence)
        return replace(result, attempts=attempts, duration_s=time.perf_counter() - began_s)

    def part_values(self, parts: tuple[PartSpec, ...], name: str, config: Config = CONFIG) -> list[float]:
        """What each part tells ("s", "flops", "bytes"), medians of a quick run in a process of its own.

        The parts take turns, so that whoever disturbs one disturbs all: the ratios hold.

        Raises:
            UnclearError: It failed.
        """
        job = Job(Labelled(parts=parts, tells=True), config, QUICK, (), self.device, "check")
        outcome = self._pool.submit(job).result()
        self._pool.close("check")
        if isinstance(outcome, Failure):
            raise UnclearError(f"{outcome.kind}: {outcome.message}")
        return [median(outcome.samples.get(f"part_{number}_{name}", (0.0,))) for number in range(len(parts))]

    def wait_for_quiet(self) -> None:
        """Wait until nobody else uses the cores, at most as long as the patience lasts."""
        reader, quiet, deadline_s = HostReader(), 0, time.monotonic() + self.patience_s
        while quiet < QUIET_LOOKS and time.monotonic() < deadline_s:
            time.sleep(QUIET_LOOK_S)
            quiet = quiet + 1 if reader.read().get("cpu_foreign_ratio", 0.0) < MAX_FOREIGN_RATIO else 0

    def _attempt(self, case: Case, parts: tuple[PartSpec, ...]) -> Result:
        limit_bytes = math.inf
        if case.room_ratio:
            limit_bytes = case.room_ratio * self._peak_bytes(parts, {"batch_size": case.batch[-1]})
        self.wait_for_quiet()
        with hogs(case.hogs):
            measurement, diagnosis = self._diagnosed(case, parts, limit_bytes)
            profile = self._profile(case, parts, measurement, limit_bytes)
        others = {
            "strict": strict(profile),
            "generous": generous(profile),
            "utilisation": by_utilisation(measurement.telemetry.get("cpu_busy_ratio", 0.0)),
        }
        return Result(case, case.truth, diagnosis, others, measurement=measurement, profile=profile)

    def _composed(self, case: Case) -> tuple[PartSpec, ...]:
        """The parts with amounts that give them their shares of a step."""
        if not case.shares:
            return case.parts
        for key, parts in ((part.model_dump_json(), part) for part in case.parts):
            if key not in self._units_s:
                once_s = self.part_values((parts,), "s")[0]
                self._units_s[key] = once_s
        keys = [part.model_dump_json() for part in case.parts]
        bulk = [resized(part, 0.3 * STEP_S / self._units_s[key]) for part, key in zip(case.parts, keys, strict=True)]
        times_s = self.part_values(tuple(bulk), "s")
        units_s = [
            time_s * part.amount / big.amount for time_s, part, big in zip(times_s, case.parts, bulk, strict=True)
        ]
        return tuple(
            resized(part, share * STEP_S / unit_s)
            for part, share, unit_s in zip(case.parts, case.shares, units_s, strict=True)
        )

    def _peak_bytes(self, parts: tuple[PartSpec, ...], config: Config) -> float:
        """The most memory that the largest batch takes, as the trial will see it."""
        job = Job(Labelled(parts=parts), config, QUICK, (), self.device, "check", counts=True)
        outcome = self._pool.submit(job).result()
        self._pool.close("check")
        if isinstance(outcome, Failure):
            raise UnclearError(f"{outcome.kind}: {outcome.message}")
        return value_of("peak_memory_bytes", outcome.samples)

    def _profile(
        self, case: Case, parts: tuple[PartSpec, ...], measurement: Measurement, limit_bytes: float
    ) -> Profile:
        """What the opponent looks at: a trace of the same step, and the same measurement."""
        job = Job(Profiled(parts=parts), {"batch_size": case.batch[-1]}, TRACED, (), self.device, "profile")
        traced = self._pool.submit(job).result()
        self._pool.close("profile")
        if isinstance(traced, Failure):
            raise UnclearError(f"profile: {traced.kind}: {traced.message}")
        return profile_of(traced.samples, measurement.samples, limit_bytes)

    def _diagnosed(self, case: Case, parts: tuple[PartSpec, ...], limit_bytes: float) -> tuple[Measurement, Diagnosis]:
        """As the loop does it: measure each batch size, then examine the last."""
        spec = make_spec(case, parts, limit_bytes, self.device)
        jobs = Jobs(spec, self._folder)
        trials: list[Trial] = []
        if case.next_fails:
            failure = Failure(FailureKind.OUT_OF_MEMORY, "no room")
            trials.append(Trial(0, {"batch_size": 2 * case.batch[-1]}, Origin.SAMPLER, failure, None))
        for size in case.batch:
            config: Config = {"batch_size": size}
            outcome: Outcome = self._pool.submit(jobs.trial(len(trials), config)).result()
            if isinstance(outcome, Failure):
                raise UnclearError(f"{outcome.kind}: {outcome.message}")
            verdict = examine(spec, self._pool, jobs, config, outcome, trials, self.ceilings)
            assert verdict is not None
            trials.append(Trial(len(trials), config, Origin.SAMPLER, outcome, verdict))
        self._pool.close("search")
        return outcome, verdict.diagnosis


def resized(part: PartSpec, times: float) -> PartSpec:
    """The part with its amount multiplied, at least 1."""
    return part.model_copy(update={"amount": max(1, round(part.amount * times))})


def make_spec(case: Case, parts: tuple[PartSpec, ...], limit_bytes: float, device: str) -> StudySpec:
    """The study of a case: nothing in it says the truth."""
    sizes = (*case.batch, 2 * case.batch[-1]) if len(case.batch) > 1 else case.batch
    limits = (Limit.parse(f"peak_memory_bytes <= {limit_bytes:.0f}"),) if math.isfinite(limit_bytes) else ()
    return StudySpec(
        name="case",
        workload=Labelled(parts=parts),
        executor=ProcessExecutor(),
        probes=(HostProbe(), TorchProbe()),
        parameters={"batch_size": Parameter(choices=sizes, default=case.batch[0])},
        objectives=(Objective(maximize="throughput_samples_per_s"),),
        limits=limits,
        equivalence=EquivalenceRules(guard=False),
        protocol=PROTOCOL,
        device="cpu" if device == "cpu" else "cuda",
        cpu_cores=len(os.sched_getaffinity(0)),
    )


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Foreign processes that burn a core each, meanwhile."""
    with ExitStack() as stack:
        for _ in range(count):
            hog = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(hog.kill)
        yield


@contextmanager
def open_lab(folder: Path, device: str = "cpu", patience_s: float = PATIENCE_S) -> Iterator[Lab]:
    """A lab whose workers find this package, with this machine's ceilings."""
    here = str(Path(__file__).parent.parent)
    if here not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    modules = (*Labelled(parts=()).preload(), "labelled.profiled", HostProbe.__module__, TorchProbe.__module__)
    with ProcessExecutor().open(modules) as pool:
        yield Lab(pool, folder, device, patience_s)
