"""The time of a device: computing, copying, communicating, idle, and why it was idle.

Temporal and idle breakdown as HolisticTraceAnalysis does it (facebookresearch, `breakdown_analysis.py`), written anew:
a gap is the host's fault when the kernel after it was launched only once the kernel before it had ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import merge

from autotuner.analyze.intervals import Interval, intersect, length, subtract, union
from autotuner.analyze.trace.events import CALLS, ON_DEVICE, Event, Kind, within
from autotuner.metrics import median

# Kernels of one stream follow each other 1 to 2 us apart however early they were launched. HolisticTraceAnalysis takes
# 30 ns, which leaves nearly all of these to "other".
KERNEL_GAP_S = 2e-6


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """Where the time of one device went. The four times add up to the window.

    Attributes:
        device: Its number.
        window_s: All profiled steps, the wait for the device at their end included.
        compute_s: Some kernel computed.
        communication_s: Exposed: a collective ran while nothing computed.
        copy_s: Exposed: a copy or fill ran while nothing computed or communicated.
        idle_s: Nothing ran.
        idle_host_s: Of that: the next kernel was launched only after the previous had ended.
        idle_kernel_s: Of that: the usual small gap between two kernels that were both launched in time.
        idle_other_s: The rest: waiting for another stream or device, or launches under way.
        idle_after_sync_s: Of `idle_host_s`: the host came out of a call that waits for the device.
        all_communication_s: Collectives, hidden ones included.
        overlap_ratio: Share of the collectives' time that computation hid; 0 without any.
        graphs: CUDA graphs were launched. Their kernels may be missing, so that idle times mean nothing.
        queue_mean: Kernels launched and not yet started, over time.
        queue_max: The most at once.
        launch_delay_s: Median time from a launch to the kernel's start.
    """

    device: str
    window_s: float
    compute_s: float
    communication_s: float
    copy_s: float
    idle_s: float
    idle_host_s: float
    idle_kernel_s: float
    idle_other_s: float
    idle_after_sync_s: float
    all_communication_s: float
    overlap_ratio: float
    graphs: bool
    queue_mean: float
    queue_max: int
    launch_delay_s: float


def device_time(events: Sequence[Event], window: Interval) -> DeviceTime | None:
    """The time of the busiest device; None when nothing ran on one."""
    ran = within((event for event in events if event.kind in ON_DEVICE), window)
    if not ran:
        return None
    device = busiest(ran)
    here = [event for event in ran if device_of(event) == device]
    compute = union(e.interval for e in here if e.kind is Kind.COMPUTE)
    communication = union(e.interval for e in here if e.kind is Kind.COMMUNICATION)
    copies = union(e.interval for e in here if e.kind is Kind.COPY)
    busy = union([*compute, *communication, *copies])
    gaps = subtract([window], busy)
    launches = {_correlation(e): e for e in events if e.kind in CALLS and _correlation(e) is not None}
    idle = _idle(gaps, here, launches, events)
    delays = [e.start_s - launch.start_s for e in here if (launch := launches.get(_correlation(e)))]
    queue_mean, queue_max = _queue(here, launches, window)
    hidden_s = length(intersect(communication, compute))
    return DeviceTime(
        device=device,
        window_s=window[1] - window[0],
        compute_s=length(intersect(compute, [window])),
        communication_s=length(intersect(subtract(communication, compute), [window])),
        copy_s=length(intersect(subtract(copies, union([*compute, *communication])), [window])),
        idle_s=length(gaps),
        idle_host_s=idle["host"],
        idle_kernel_s=idle["kernel"],
        idle_other_s=idle["other"],
        idle_after_sync_s=idle["sync"],
        all_communication_s=length(communication),
        overlap_ratio=hidden_s / length(communication) if communication else 0.0,
        graphs=any(event.kind is Kind.GRAPH for event in within(events, window)),
        queue_mean=queue_mean,
        queue_max=queue_max,
        launch_delay_s=median(delays) if delays else 0.0,
    )


def device_of(event: Event) -> str:
    """The device that an event ran on."""
    return str(event.args.get("device", event.process))


def busiest(ran: Sequence[Event]) -> str:
    """The device that worked longest."""
    devices = sorted({device_of(event) for event in ran})
    return max(devices, key=lambda device: sum(e.duration_s for e in ran if device_of(e) == device))


def _correlation(event: Event) -> int | None:
    found = event.args.get("correlation")
    return int(found) if found else None


def _idle(
    gaps: Sequence[Interval], ran: Sequence[Event], launches: Mapping[int | None, Event], events: Sequence[Event]
) -> dict[str, float]:
    """Seconds of the gaps by cause; "sync" is a part of "host"."""
    next_by_start = {event.start_s: event for event in reversed(ran)}  # of several at once, the first in order
    syncs = [event.end_s for event in events if event.kind is Kind.SYNC]
    found = {"host": 0.0, "kernel": 0.0, "other": 0.0, "sync": 0.0}
    position = 0
    for start, end in gaps:
        after = next_by_start.get(end)
        launch = launches.get(_correlation(after)) if after else None
        if after is None or (launch is not None and launch.start_s > start):  # at the end, nobody launched anything
            cause = "host"
        else:
            cause = "kernel" if end - start <= KERNEL_GAP_S else "other"
        found[cause] += end - start
        while position < len(syncs) and syncs[position] < start:
            position += 1
        if cause == "host" and after is not None and position < len(syncs) and syncs[position] <= end:
            found["sync"] += end - start
    return found


def _queue(ran: Sequence[Event], launches: Mapping[int | None, Event], window: Interval) -> tuple[float, int]:
    """Mean over time and maximum of the work that was launched and had not begun."""
    pairs = [(launch.start_s, e.start_s) for e in ran if (launch := launches.get(_correlation(e)))]
    changes = merge(sorted((start, 1) for start, _ in pairs), sorted((end, -1) for _, end in pairs))
    waiting, most, area_s = 0, 0, 0.0
    for _, change in changes:
        waiting += change
        most = max(most, waiting)
    for start, end in pairs:
        area_s += max(0.0, min(end, window[1]) - max(start, window[0]))
    return area_s / (window[1] - window[0]), most
