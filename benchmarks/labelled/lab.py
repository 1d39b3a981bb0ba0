"""Where the cases are run: measured and diagnosed as a study does it, their truth checked apart from that."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from autotuner.diagnosing import examine
from autotuner.doctor import ceilings_for
from autotuner.executors.process import ProcessExecutor
from autotuner.jobs import Jobs
from autotuner.metrics import median, value_of
from autotuner.monitor.host import MAX_FOREIGN_RATIO, HostProbe, HostReader
from autotuner.monitor.torch import TorchProbe
from autotuner.plugins import Job, WorkerPool
from autotuner.spec.expressions import Limit
from autotuner.spec.model import EquivalenceRules, Objective, StudySpec
from autotuner.spec.parameters import Parameter
from autotuner.types import (
    Binding,
    Ceilings,
    Config,
    Diagnosis,
    Failure,
    FailureKind,
    Measurement,
    MeasurementProtocol,
    Metrics,
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

PROTOCOL = MeasurementProtocol(
    block_s=0.04, warmup_min_s=0.1, warmup_max_s=0.6, min_measure_s=0.4, max_measure_s=0.8, precision_ratio=0.04,
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
        self.measured_ceilings: list[Ceilings] = []

    def run(self, case: Case) -> Result:
        """Compose, check, measure and diagnose once; without an answer if somebody else disturbed it."""
        began_s, result = time.perf_counter(), Result(case, case.truth, None)
        try:
            assert self.ceilings  # measured before anything else
            self.wait_for_quiet()
            parts = self._composed(case)
            truth, seen = check(self, case, parts)
            result = replace(self._measured(case, parts), truth=truth, check=seen)
        except UnclearError as error:
            result = replace(result, skipped=str(error))
        if result.answer is not None and result.answer.binding is Binding.INVALID and not case.hogs:
            result = replace(result, answer=None, skipped=result.answer.sentence)
        return replace(result, duration_s=time.perf_counter() - began_s)

    def told(self, parts: tuple[PartSpec, ...], config: Config = CONFIG) -> list[Metrics]:
        """What each part tells of itself ("s", "flops", "bytes"), medians of a quick run in a process of its own.

        The parts take turns, so that whoever disturbs one disturbs all: the ratios hold.

        Raises:
            UnclearError: It failed.
        """
        outcome = self._done(Job(Labelled(parts=parts, tells=True), config, QUICK, (), self.device, "check"))
        return [
            {unit: median(outcome.samples.get(f"part_{number}_{unit}", (0.0,))) for unit in ("s", "flops", "bytes")}
            for number in range(len(parts))
        ]

    def relieved_ratio(self, parts: tuple[PartSpec, ...], resource: Binding) -> float:
        """Time of a step under relief, relative to one as it is."""
        job = Job(Labelled(parts=parts), CONFIG, QUICK, (), self.device, "check", relieves=resource.value)
        return self._done(job).telemetry["relieved_time_ratio"]

    def diagnosis(self, parts: tuple[PartSpec, ...]) -> Diagnosis:
        """What is said of these parts, whatever happens on the machine."""
        return self._diagnosed(Case("", "", (), parts), parts, math.inf)[1]

    def _done(self, job: Job) -> Measurement:
        """A job in a process of its own.

        Raises:
            UnclearError: It failed.
        """
        outcome = self._pool.submit(job).result()
        self._pool.close(job.launch)
        if isinstance(outcome, Failure):
            raise UnclearError(f"{job.launch}: {outcome.kind}: {outcome.message}")
        return outcome

    @property
    def ceilings(self) -> Ceilings:
        """This machine's, as a study has them: measured when first asked for, and again if that was disturbed."""
        while not self.measured_ceilings or (
            self.measured_ceilings[-1].contended and len(self.measured_ceilings) < ATTEMPTS
        ):
            self.wait_for_quiet()
            measured = ceilings_for(None, self.device, pool=self._pool)
            assert measured is not None, "the doctor cannot measure this machine"
            self.measured_ceilings.append(measured)
        return self.measured_ceilings[-1]

    def wait_for_quiet(self) -> None:
        """Wait until nobody else uses the cores.

        Raises:
            UnclearError: Somebody did until the patience was at its end.
        """
        reader, quiet, deadline_s = HostReader(), 0, time.monotonic() + self.patience_s
        while quiet < QUIET_LOOKS:
            time.sleep(QUIET_LOOK_S)
            quiet = quiet + 1 if reader.read().get("cpu_foreign_ratio", 0.0) < MAX_FOREIGN_RATIO else 0
            if time.monotonic() > deadline_s:
                raise UnclearError("others used the cores all the time")

    def _measured(self, case: Case, parts: tuple[PartSpec, ...]) -> Result:
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
        once = self.told(case.parts)
        bulk = [resized(part, 0.3 * STEP_S / seen["s"]) for part, seen in zip(case.parts, once, strict=True)]
        units_s = [
            seen["s"] * part.amount / big.amount
            for seen, part, big in zip(self.told(tuple(bulk)), case.parts, bulk, strict=True)
        ]
        return tuple(
            resized(part, share * STEP_S / unit_s)
            for part, share, unit_s in zip(case.parts, case.shares, units_s, strict=True)
        )

    def _peak_bytes(self, parts: tuple[PartSpec, ...], config: Config) -> float:
        """The most memory that the largest batch takes, as the trial will see it."""
        outcome = self._done(Job(Labelled(parts=parts), config, QUICK, (), self.device, "check", counts=True))
        return value_of("peak_memory_bytes", outcome.samples)

    def _profile(
        self, case: Case, parts: tuple[PartSpec, ...], measurement: Measurement, limit_bytes: float
    ) -> Profile:
        """What the opponent looks at: a trace of the same step, and the same measurement."""
        config: Config = {"batch_size": case.batch[-1]}
        traced = self._done(Job(Profiled(parts=parts), config, TRACED, (), self.device, "profile"))
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


def run_cases(lab: Lab, chosen: Iterable[Case], attempts: int, listener: Callable[[Result], None]) -> list[Result]:
    """Every case once; those that somebody disturbed again, after all the others, up to so many times."""
    results: dict[str, Result] = {}
    waiting = list(chosen)
    for attempt in range(1, attempts + 1):
        for case in waiting:
            results[case.name] = replace(lab.run(case), attempts=attempt)
            listener(results[case.name])
        waiting = [case for case in waiting if results[case.name].answer is None]
    return list(results.values())


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
