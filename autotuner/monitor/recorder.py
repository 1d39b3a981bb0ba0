"""The recorder: opens a workload, warms it up, measures it in blocks, and answers with a Measurement or a Failure.

Runs in the worker. It holds the project's only broad `except`: whatever a workload throws becomes data.
"""

import logging
import math
import sysconfig
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from autotuner import statistics
from autotuner.errors import (
    AutotuneError,
    InvalidConfigError,
    MachineError,
    UnbelievableError,
    UnsupportedError,
    UsageError,
)
from autotuner.monitor import environment, gpu, reference
from autotuner.monitor import torch as torch_door
from autotuner.monitor.relief import relieved_window
from autotuner.monitor.team import Channel, Team, TeamReader, follow
from autotuner.monitor.window import NotFiniteError, Window, best_window, largest_steps
from autotuner.plugins import Job, OpenWorkload, ProbeReader
from autotuner.types import Failure, FailureKind, Measurement, Metrics, Outcome, config_key

logger = logging.getLogger(__name__)

_HOME = Path(__file__).parents[1]  # of this package: none of the user's files

T = TypeVar("T")


class Recorder:
    """Measures jobs one after the other, keeping the workload open while only live parameters change.

    Args:
        channels: Of rank 0, to the other ranks in order; of another rank, to rank 0.
    """

    def __init__(self, channels: Sequence[Channel] = ()) -> None:
        self._resources = ExitStack()
        self._channels = channels
        self._team: Team | None = None
        self._readers: list[ProbeReader] = []
        self._warm_config = ""
        self._comparisons: dict[str, Mapping[str, float]] = {}
        self._explanations: dict[str, Metrics] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def measure(self, job: Job) -> Outcome:
        """Take one measurement; every exception of the workload's becomes a Failure, its traceback goes to the log."""
        if job.workload.ranks(job.config) > 1 + len(self._channels):
            return Failure(
                FailureKind.UNSUPPORTED, "only the process executor can run a configuration of several ranks"
            )
        return _as_data(job, lambda: self._measure(job))

    def follow(self, job: Job) -> Failure:
        """As another rank than the first, open the workload and do what rank 0 does until it leaves or this fails."""
        left = Failure(FailureKind.CANCELLED, "rank 0 has left")
        return _as_data(job, lambda: self._follow(job)) or left

    def _follow(self, job: Job) -> None:
        readers = self._open_probes(job)
        follow(self._open_workload(job), job.device, self._channels[0], readers)

    def _measure(self, job: Job) -> Measurement:
        started_at = datetime.now(UTC)
        begun_s = time.perf_counter()
        reused = self._team is not None
        key, team = config_key(job.config), self._ready(job)
        setup_s = time.perf_counter() - begun_s
        single = dict(self._compare_outputs(team, job))  # of a training its first steps, which are slow to look at
        outputs_s = time.perf_counter() - begun_s - setup_s
        team.settle_memory()
        warm_s = time.perf_counter()
        if key != self._warm_config and team.sized:
            team.worst_step(job.config)  # what does not fit fails here, and the peak below is a safe one
        self._warm_up(team, job, already_warm=key == self._warm_config)
        self._warm_config = key
        windows_s = time.perf_counter()
        warmup_s = windows_s - warm_s
        window = _window(team, job, self._readers)
        explain_s = time.perf_counter()
        single |= {"setup_s": setup_s, "peak_memory_bytes": float(team.peak_memory_bytes())}
        known = team.characteristics(job.config) if job.writes_reference and job.counts else {}  # of trial 0 alone
        explained = self._explain(team, job)
        team.idle()
        single |= {
            "windows_s": explain_s - windows_s, "outputs_s": outputs_s, "explain_s": time.perf_counter() - explain_s
        }  # fmt: skip
        samples = {**window.samples, **known, **{name: (value,) for name, value in single.items()}}
        return Measurement(
            samples={name: tuple(values) for name, values in samples.items()},
            setup_s=setup_s,
            warmup_s=warmup_s,
            duration_s=window.duration_s,
            telemetry={**window.telemetry, **explained},
            environment=environment.fingerprint(job.device, job.workload.identity()),
            started_at=started_at,
            contended=bool(window.contention),
            reason=window.contention or window.ended_by,
            reused=reused,
        )

    def _ready(self, job: Job) -> Team:
        """Compilation and lazy set-up belong to the opening, not to the warm-up."""
        team = self._team or self._open(job)
        if config_key(job.config) != self._warm_config:
            team.warm_up(job.config)
            torch_door.synchronise(job.device)
        return team

    def _open(self, job: Job) -> Team:
        readers = self._open_probes(job)
        self._team = Team(self._open_workload(job), job.device, self._channels)
        self._readers = [TeamReader(readers, self._team)]
        return self._team

    def _open_probes(self, job: Job) -> list[ProbeReader]:
        return [self._resources.enter_context(probe.open(job.device)) for probe in job.probes]

    def _open_workload(self, job: Job) -> OpenWorkload:
        if job.rank.count > 1 and job.device == "cpu":
            torch_door.share_cores(job.rank.count)
        return self._resources.enter_context(job.workload.open(job.config, job.device))

    def _warm_up(self, team: Team, job: Job, *, already_warm: bool) -> None:
        """Step until the times show no slope; one cycle suffices when only idleness lies between two windows."""
        if team.warms_itself:  # it did when it was made ready
            return
        protocol, cycle = job.protocol, team.cycle_steps(job.config)
        begun_s = time.perf_counter()
        times_s: list[float] = []
        while True:
            step_s = time.perf_counter()
            team.step(job.config)
            torch_door.synchronise(job.device)
            times_s.append(time.perf_counter() - step_s)
            spent_s = time.perf_counter() - begun_s
            if spent_s > protocol.warmup_max_s or (already_warm and len(times_s) >= cycle):
                return
            enough = len(times_s) >= max(cycle, protocol.warmup_min_steps) and spent_s >= protocol.warmup_min_s
            if enough and statistics.is_flat(times_s):
                return

    def _explain(self, team: Team, job: Job) -> Metrics:
        """What a step asks of the machine, counted once for each configuration of an opened workload."""
        if not job.counts:
            return {}
        key = config_key(job.config)
        if key not in self._explanations:
            try:
                self._explanations[key] = torch_door.explain_step(lambda: team.step(job.config), job.device)
            except torch_door.UNCOUNTABLE as error:  # the measurement stands; only the diagnosis knows less
                if self._channels:  # but the other ranks are still within the step
                    raise
                logger.warning("the step cannot be counted: %s", _first_line(error))
                self._explanations[key] = {}
        return self._explanations[key]

    def _compare_outputs(self, team: Team, job: Job) -> Mapping[str, float]:
        """Deviations from the baseline's outputs, once for each configuration of an opened workload."""
        if job.reference_path is None or not (job.writes_reference or job.reference_path.exists()):
            return {}  # unguarded, or the baseline failed: nothing to compare with
        key = config_key(job.config)
        if key not in self._comparisons:
            known: Mapping[str, Any] | None = None if job.writes_reference else reference.load(job.reference_path)
            outputs = team.outputs(job.config, known)
            if not reference.is_finite(outputs):
                raise NotFiniteError("the outputs hold NaN or infinity")
            if known is None:
                reference.save(job.reference_path, outputs)
                known = outputs
            self._comparisons[key] = reference.compare(known, outputs, _coarser_dtype(known, outputs))
            del outputs, known
            torch_door.release_memory(job.device)  # the next window's peak must not hold them
        return self._comparisons[key]


def _coarser_dtype(known: Mapping[str, object], outputs: Mapping[str, object]) -> str:
    """The number format that resolves less; arrays carry its name under "_dtype"."""
    names = [str(source.get("_dtype", "float32")) for source in (known, outputs)]
    return max(names, key=lambda name: reference.ROUNDOFF_RATIO.get(name, math.inf))


def _window(team: Team, job: Job, readers: Sequence[ProbeReader]) -> Window:
    take = relieved_window if job.relieves else largest_steps if job.proves_memory else best_window
    return take(team, job, readers)


def _as_data(job: Job, run: Callable[[], T]) -> T | Failure:
    """What `run` returns, or its exception as a Failure."""
    started_s = time.perf_counter()
    try:
        return run()
    except (KeyboardInterrupt, MachineError):  # the machine gave way, not the configuration: the study must stop
        raise
    except BaseException as error:  # noqa: BLE001 - the project's one: failures are data
        traceback.print_exc()
        _check_gpu(job.device)
        return Failure(classify(error), _first_line(error), _log(job), time.perf_counter() - started_s)


def _check_gpu(device: str) -> None:
    """Raise what the machine is to blame for.

    Raises:
        MachineError: The GPU is lost or must be reset.
    """
    if device != "cpu" and (state := gpu.state(device)).name in ("gpu_lost", "reset_required"):
        raise MachineError(state.sentence, state.mend)


def classify(error: BaseException) -> FailureKind:
    """The kind of a workload's exception."""
    if torch_door.is_out_of_memory(error):
        return FailureKind.OUT_OF_MEMORY
    match error:
        case NotFiniteError():
            return FailureKind.NOT_FINITE
        case UnsupportedError() | NotImplementedError():
            return FailureKind.UNSUPPORTED
        case InvalidConfigError() | UsageError():
            return FailureKind.INVALID_CONFIG
        case UnbelievableError():
            return FailureKind.INVALID
    return FailureKind.CRASHED


def _first_line(error: BaseException) -> str:
    """What a person needs in one line; our own errors speak for themselves, others with their type and place."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, AutotuneError) else f"{type(error).__name__}: {text}{_place(error)}"


def _place(error: BaseException) -> str:
    """Where in the user's own files it was raised, " (train.py:12)"; empty where none of them took part."""
    foreign = [*(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")), _HOME]
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith("<")]
    theirs = [one for one in frames if not any(Path(one.filename).is_relative_to(folder) for folder in foreign)]
    return f" ({Path(theirs[-1].filename).name}:{theirs[-1].lineno})" if theirs else ""


def _log(job: Job) -> str:
    return f"logs/{job.log_path.name}" if job.log_path else ""
