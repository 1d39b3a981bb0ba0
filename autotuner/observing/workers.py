"""A worker's times as spans.

Workers send nothing themselves. They are forked, timed and killed: an exporter's threads would run beside the timed
region, and its queue would die with the process. A measurement carries the times of its phases, and the parent records
them when it has arrived, between two jobs.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from autotuner import telemetry
from autotuner.monitor.gpu import Gpu, visible_gpu
from autotuner.observing.gpu import record_gpu
from autotuner.plugins import Job, WorkerPool
from autotuner.telemetry import Attributes
from autotuner.types import Failure, Measurement, Outcome


@dataclass
class ObservedPool:
    """A worker pool whose jobs leave spans under their trace parent, and what their probes saw of the GPU."""

    pool: WorkerPool
    find_gpu: Callable[[str], Gpu | None] = visible_gpu
    slots: int = field(init=False)
    _gpus: dict[str, Gpu | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.slots = self.pool.slots

    def submit(self, job: Job) -> "Future[Outcome]":
        """Start a job; what it did is recorded when it has ended, before the next one begins."""
        submitted_s, future = time.time(), self.pool.submit(job)
        if telemetry.enabled():
            future.add_done_callback(lambda done: self._record(job, submitted_s, done))
        return future

    def close(self, launch: str) -> None:
        """End the processes of a launch."""
        self.pool.close(launch)

    def _record(self, job: Job, submitted_s: float, done: "Future[Outcome]") -> None:
        if done.cancelled() or (error := done.exception()):
            reason = "cancelled" if done.cancelled() else type(error).__name__
            telemetry.record_span("monitor", submitted_s, time.time(), _about(job), job.trace_parent, reason)
            return
        record_outcome(job, done.result(), submitted_s, time.time())
        if isinstance(outcome := done.result(), Measurement):
            record_gpu(outcome, lambda: self._gpu(job.device))

    def _gpu(self, device: str) -> Gpu | None:
        if device not in self._gpus:
            self._gpus[device] = self.find_gpu(device)
        return self._gpus[device]


def _about(job: Job) -> Attributes:
    return {"autotune.launch": job.launch, "autotune.relieves": job.relieves or None}


def record_outcome(job: Job, outcome: Outcome, submitted_s: float, ended_s: float) -> None:
    """The span of a job, with the worker's phases under it; of a failure only how long it took is known."""
    about = {**_about(job), "autotune.outcome": outcome_label(outcome)}
    if isinstance(outcome, Failure):
        telemetry.record_span("monitor", submitted_s, ended_s, about, job.trace_parent, str(outcome.kind))
        return
    about |= {"autotune.reused": outcome.reused, "autotune.reason": outcome.reason}
    monitor = telemetry.record_span("monitor", submitted_s, ended_s, about, job.trace_parent)
    for name, start_s, end_s, attributes in _phases(outcome):
        telemetry.record_span(name, start_s, end_s, attributes, monitor)


def _phases(measured: Measurement) -> Iterator[tuple[str, float, float, Attributes]]:
    """Name, start and end of what the worker did, one after the other from `started_at` on; nothing that took no time.

    `measure` holds every window: a disturbed one is taken again, and the last counts.
    """
    once = {name: values[0] for name, values in measured.samples.items() if len(values) == 1}
    windows: Attributes = {
        "autotune.blocks": len(measured.samples.get("block_step_s", ())),
        "autotune.window.duration": measured.duration_s,
    }
    phases: tuple[tuple[str, float, Attributes], ...] = (
        ("open", measured.setup_s, {}),
        ("warm_up", measured.warmup_s, {}),
        ("measure", once.get("windows_s", measured.duration_s), windows),
        ("explain", once.get("explain_s", 0.0), {}),
        ("outputs", once.get("outputs_s", 0.0), {}),
    )
    start_s = measured.started_at.timestamp()
    for name, duration_s, attributes in phases:
        if duration_s > 0:
            yield name, start_s, start_s + duration_s, attributes
        start_s += duration_s


def outcome_label(outcome: Outcome) -> str:
    """Few words for metrics: "measured", "contended", or the kind of failure."""
    if isinstance(outcome, Failure):
        return str(outcome.kind)
    return "contended" if outcome.contended else "measured"
