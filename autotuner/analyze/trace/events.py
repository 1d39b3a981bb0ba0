"""The events of a Chrome trace as values, and what they are: operators, calls, kernels, copies, communication."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from autotuner.analyze.intervals import Interval
from autotuner.errors import UsageError

STEPS = "autotune#steps"  # the annotation around all profiled steps and the wait for the device after them
STEP = "autotune#step"  # around each of them

# Names of collectives' kernels: NCCL's and RCCL's, and the one-shot all-reduces of serving engines.
_COLLECTIVES = ("nccl", "rccl", "cross_device_reduce", "allreduce_fusion", "multimem_all", "one_shot_all")
_SYNCHRONISING = frozenset(
    f"{vendor}{call}"
    for vendor in ("cuda", "hip", "cu")
    for call in ("StreamSynchronize", "DeviceSynchronize", "EventSynchronize", "CtxSynchronize", "Memcpy")
) | {"hipMemcpyWithStream"}
_GRAPH_LAUNCHES = ("cudagraphlaunch", "cugraphlaunch", "hipgraphlaunch")
_NO_EVENTS = frozenset({"Trace", "gpu_user_annotation"})  # the latter repeats the host's marks on the device
_INPUT = "enumerate(DataLoader)#"
_COMPILING = frozenset({"_compile.compile_inner (dynamo_timed)", "entire_frame_compile"})


class Kind(StrEnum):
    """What an event is. The first six are the host's."""

    INPUT = "input"  # waiting for the next batch of a DataLoader
    OPERATOR = "operator"
    COMPILE = "compile"  # torch.compile translates a frame
    CALL = "call"  # of the CUDA runtime or driver
    SYNC = "sync"  # such a call, in which the host waits for the device
    GRAPH = "graph"  # such a call, which launches a CUDA graph: what it starts need not appear in the trace
    COMPUTE = "compute"  # a kernel
    COMMUNICATION = "communication"  # a collective's kernel
    COPY = "copy"  # a copy or a fill on the device
    OTHER = "other"


ON_DEVICE = frozenset({Kind.COMPUTE, Kind.COMMUNICATION, Kind.COPY})
KERNELS = frozenset({Kind.COMPUTE, Kind.COMMUNICATION})
CALLS = frozenset({Kind.CALL, Kind.SYNC, Kind.GRAPH})
OPERATORS = frozenset({Kind.OPERATOR, Kind.COMPILE})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that lasted.

    Attributes:
        name: As the profiler calls it.
        kind: What it is.
        process: Of the host; the number of the device for what ran there.
        thread: Of the host; the stream for what ran on a device.
        start_s: Since the first event of the trace.
        end_s: The same.
        args: Further facts: correlation, stream, bytes, grid …
    """

    name: str
    kind: Kind
    process: str
    thread: str
    start_s: float
    end_s: float
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """How long it lasted."""
        return self.end_s - self.start_s

    @property
    def interval(self) -> Interval:
        """From when to when."""
        return self.start_s, self.end_s

    @property
    def track(self) -> tuple[str, str]:
        """Where it happened."""
        return self.process, self.thread


def parse(trace: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[Event]:
    """The events of a Chrome trace that have a duration, by start, longer ones first.

    Args:
        trace: The decoded JSON: an object with `traceEvents`, or the list itself. Times are microseconds.

    Raises:
        UsageError: It is no Chrome trace.
    """
    rows = trace.get("traceEvents") if isinstance(trace, Mapping) else trace
    if not isinstance(rows, Sequence):
        raise UsageError("no Chrome trace: it has no traceEvents")
    lasting = [row for row in rows if row.get("ph") == "X" and "dur" in row and row.get("cat") not in _NO_EVENTS]
    base_us = min((float(row["ts"]) for row in lasting), default=0.0)  # first: a double holds ns only near zero
    found = [_event(row, base_us) for row in lasting]
    return sorted(found, key=lambda event: (event.start_s, -event.end_s))


def _event(row: Mapping[str, Any], base_us: float) -> Event:
    start_us = float(row["ts"]) - base_us
    return Event(
        name=str(row.get("name", "")),
        kind=_kind(str(row.get("cat", "")).lower(), str(row.get("name", ""))),
        process=str(row.get("pid", "")),
        thread=str(row.get("tid", "")),
        start_s=start_us / 1e6,
        end_s=(start_us + float(row["dur"])) / 1e6,
        args=row.get("args") or {},
    )


@cache
def _kind(category: str, name: str) -> Kind:
    """By Kineto's category and name; names repeat, so that each is looked at once."""
    match category:
        case "cpu_op":
            return Kind.COMPILE if name in _COMPILING else Kind.OPERATOR
        case "user_annotation":
            return Kind.INPUT if name.startswith(_INPUT) else Kind.OTHER
        case "kernel":
            return Kind.COMMUNICATION if any(word in name.lower() for word in _COLLECTIVES) else Kind.COMPUTE
        case "gpu_memcpy" | "gpu_memset" | "memcpy" | "memset":
            return Kind.COPY
        case "cuda_runtime" | "cuda_driver" | "runtime":
            if name.partition("_v")[0] in _SYNCHRONISING:
                return Kind.SYNC
            return Kind.GRAPH if name.lower().startswith(_GRAPH_LAUNCHES) else Kind.CALL
    return Kind.OTHER


def steps_of(events: Sequence[Event]) -> list[Event]:
    """The profiled steps in order; empty when nobody marked them."""
    return [event for event in events if event.name == STEP]


def window_of(events: Sequence[Event]) -> Interval:
    """From when to when the steps ran: the annotation around them all, else all that there is."""
    whole = next((event for event in events if event.name == STEPS), None)
    if whole is not None:
        return whole.interval
    marked = steps_of(events) or list(events)
    return min((e.start_s for e in marked), default=0.0), max((e.end_s for e in marked), default=0.0)


def main_track(events: Sequence[Event]) -> tuple[str, str]:
    """The thread that ran the steps, or the one with most operators."""
    marked = steps_of(events)
    if marked:
        return marked[0].track
    counts = Counter(event.track for event in events if event.kind in OPERATORS)
    return counts.most_common(1)[0][0] if counts else ("", "")


def within(events: Iterable[Event], window: Interval) -> list[Event]:
    """The events that begin inside the window."""
    return [event for event in events if window[0] <= event.start_s < window[1]]
