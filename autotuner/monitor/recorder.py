"""The recorder: opens a workload, warms it up, measures it in blocks, and answers with a Measurement or a Failure.

Runs in the worker. It holds the project's only broad `except`: whatever a workload throws becomes data.
"""

import logging
import math
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from autotuner import statistics
from autotuner.errors import AutotuneError, InvalidConfigError, MachineError, UnsupportedError, UsageError
from autotuner.monitor import environment, gpu, host, reference
from autotuner.monitor import torch as torch_door
from autotuner.monitor.relief import relieved_window
from autotuner.monitor.window import NotFiniteError, best_window
from autotuner.plugins import Job, OpenWorkload, ProbeReader
from autotuner.types import Failure, FailureKind, Measurement, Metrics, Outcome, config_key

logger = logging.getLogger(__name__)

# What torch raises when code cannot run under a dispatch mode.
_UNCOUNTABLE = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, OSError)


class Recorder:
    """Measures jobs one after the other, keeping the workload open while only live parameters change."""

    def __init__(self) -> None:
        self._resources = ExitStack()
        self._opened: OpenWorkload | None = None
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
        started_s = time.perf_counter()
        try:
            return self._measure(job)
        except (KeyboardInterrupt, MachineError):  # the machine gave way, not the configuration: the study must stop
            raise
        except BaseException as error:  # noqa: BLE001 - the project's one: failures are data
            traceback.print_exc()
            _check_gpu(job.device)
            return Failure(classify(error), _first_line(error), _log(job), time.perf_counter() - started_s)

    def _measure(self, job: Job) -> Measurement:
        started_at = datetime.now(UTC)
        begun_s = time.perf_counter()
        reused = self._opened is not None
        opened = self._opened or self._open(job)
        key = config_key(job.config)
        if key != self._warm_config:
            opened.step(job.config)  # compilation and lazy set-up belong to the opening, not to the warm-up
            torch_door.synchronise(job.device)
        setup_s = time.perf_counter() - begun_s
        torch_door.release_memory(job.device)  # what loading, compiling and earlier configurations left
        torch_door.reset_peak_memory(job.device)
        host.reset_peak_rss()
        warmup_s = self._warm_up(opened, job, already_warm=key == self._warm_config)
        self._warm_config = key
        windows_s = time.perf_counter()
        take = relieved_window if job.relieves else best_window
        window = take(opened, job, self._readers)
        explain_s = time.perf_counter()
        single = {"setup_s": setup_s, "peak_memory_bytes": float(_peak_memory_bytes(job.device))}
        explained = self._explain(opened, job)
        outputs_s = time.perf_counter()
        single |= self._compare_outputs(opened, job)
        ended_s = time.perf_counter()
        single |= {
            "windows_s": explain_s - windows_s, "explain_s": outputs_s - explain_s, "outputs_s": ended_s - outputs_s
        }  # fmt: skip
        samples = {name: tuple(values) for name, values in window.samples.items()}
        return Measurement(
            samples=samples | {name: (value,) for name, value in single.items()},
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

    def _open(self, job: Job) -> OpenWorkload:
        self._readers = [self._resources.enter_context(probe.open(job.device)) for probe in job.probes]
        self._opened = self._resources.enter_context(job.workload.open(job.config, job.device))
        return self._opened

    def _warm_up(self, opened: OpenWorkload, job: Job, *, already_warm: bool) -> float:
        """Step until the times show no slope; one step suffices when only idleness lies between two windows."""
        protocol = job.protocol
        begun_s = time.perf_counter()
        times_s: list[float] = []
        while True:
            step_s = time.perf_counter()
            opened.step(job.config)
            torch_door.synchronise(job.device)
            times_s.append(time.perf_counter() - step_s)
            spent_s = time.perf_counter() - begun_s
            if already_warm or spent_s > protocol.warmup_max_s:
                return spent_s
            enough = len(times_s) >= protocol.warmup_min_steps and spent_s >= protocol.warmup_min_s
            if enough and statistics.is_flat(times_s):
                return spent_s

    def _explain(self, opened: OpenWorkload, job: Job) -> Metrics:
        """What a step asks of the machine, counted once for each configuration of an opened workload."""
        if not job.counts:
            return {}
        key = config_key(job.config)
        if key not in self._explanations:
            try:
                self._explanations[key] = torch_door.explain_step(lambda: opened.step(job.config), job.device)
            except _UNCOUNTABLE as error:  # the measurement stands; only the diagnosis knows less
                logger.warning("the step cannot be counted: %s", _first_line(error))
                self._explanations[key] = {}
        return self._explanations[key]

    def _compare_outputs(self, opened: OpenWorkload, job: Job) -> Mapping[str, float]:
        """Deviations from the baseline's outputs, once for each configuration of an opened workload."""
        if job.reference_path is None or not (job.writes_reference or job.reference_path.exists()):
            return {}  # unguarded, or the baseline failed: nothing to compare with
        key = config_key(job.config)
        if key not in self._comparisons:
            known: Mapping[str, Any] | None = None if job.writes_reference else reference.load(job.reference_path)
            outputs = opened.outputs(job.config, known)
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


def _peak_memory_bytes(device: str) -> int:
    on_device = torch_door.peak_memory_bytes(device)
    return host.peak_rss_bytes() if on_device is None else on_device


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
    return FailureKind.CRASHED


def _first_line(error: BaseException) -> str:
    """What a person needs in one line; our own errors speak for themselves, others with their type."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, AutotuneError) else f"{type(error).__name__}: {text}"


def _log(job: Job) -> str:
    return f"logs/{job.log_path.name}" if job.log_path else ""
