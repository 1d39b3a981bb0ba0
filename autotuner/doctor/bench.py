"""Where ceilings are measured: an executor's pool, and the workload that does one operation at a time."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from autotuner import plugins
from autotuner.doctor.cpu import all_caches_bytes
from autotuner.doctor.operations import Note, Operation, all_reduces
from autotuner.executors.devices import reserved_gpus
from autotuner.monitor import gpu, host
from autotuner.plugins import Executor, Job, Probe, WorkerPool, Workload
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol

LAUNCH = "ceilings"
QUICK = MeasurementProtocol(
    block_s=0.02, warmup_min_s=0.05, warmup_max_s=0.2, min_blocks=16, min_measure_s=0.3, max_measure_s=0.6,
    precision_ratio=float("inf"), time_limit_s=90, contended_retries=0,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """An opened pool, and what runs in it."""

    pool: WorkerPool
    workload: Workload
    probes: tuple[Probe, ...]
    device: str

    def take(self, operation: Operation, protocol: MeasurementProtocol, note: Note) -> Measurement | None:
        """Measure one operation; None when it cannot be, after a note unless that is usual."""
        live = frozenset(self.workload.traits)
        job = Job(
            self.workload, operation.config, protocol, self.probes, self.device, LAUNCH, exclusive=True, live=live
        )
        match self.pool.submit(job).result():
            case Failure() as failure:
                if failure.kind is not FailureKind.UNSUPPORTED or not operation.quick:
                    note(f"{operation.ceiling} is not known: {failure.message}")
                return None
            case Measurement() as measured:
                return measured

    def take_all_reduces(self, note: Note) -> dict[Operation, Measurement]:
        """Measure every size of message, until one fails."""
        found = {}
        for operation in all_reduces():
            if (measured := self.take(operation, QUICK, note)) is None:
                break
            found[operation] = measured
        return found


def better(operation: Operation, one: Measurement, other: Measurement | None) -> Measurement:
    """The undisturbed one; of two disturbed ones the faster, for others on the machine only ever slow it down."""
    if other is None:
        return one
    if one.contended != other.contended:
        return other if one.contended else one
    rate = f"throughput_{operation.work}_per_s"
    return max(one, other, key=lambda measured: max(measured.samples[rate]))


@contextmanager
def bench(pool: WorkerPool | None, device: str, folder: Path | None) -> Iterator[Bench]:
    """A bench in a pool that is given, or in one of its own with a GPU reserved for it; leaves no process."""
    workload, probes = _workload(folder), _probes()
    with ExitStack() as stack:
        if pool is None and device != "cpu":
            stack.enter_context(reserved_gpus())
        pool = pool or stack.enter_context(_executor().open(plugins.modules_of(workload, probes)))
        stack.callback(pool.close, LAUNCH)
        yield Bench(pool, workload, probes, device)


def take_between_gpus(note: Note) -> dict[Operation, Measurement]:
    """All-reduces between two GPUs; apart, because the reservation of one hides the other."""
    if any(gpu.processes(each.uuid) for each in gpu.visible_gpus()):
        note("the all-reduce is not known: a GPU is in use")
        return {}
    workload, probes = _workload(None), _probes()
    with _executor().open(plugins.modules_of(workload, probes)) as pool:
        return Bench(pool, workload, probes, "cuda").take_all_reduces(note)


def _executor() -> Executor:
    return plugins.load_class("executors", "process", Executor).model_validate({"kind": "process"})


def _workload(folder: Path | None) -> Workload:
    options: dict[str, object] = {"cache_bytes": all_caches_bytes()}
    if folder is not None and folder.is_dir():
        options["folder"] = str(folder.resolve())
    if host.cpu_quota() < len(os.sched_getaffinity(0)):  # torch counts the cores, and not what it may use of them
        options["threads"] = host.available_cores()
    return plugins.load_class("workloads", "ceiling", Workload).model_validate({"kind": "ceiling", **options})


def _probes() -> tuple[Probe, ...]:
    return tuple(plugins.load_class("probes", kind, Probe).model_validate({"kind": kind}) for kind in ("host", "gpu"))
