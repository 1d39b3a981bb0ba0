"""Everything that the profile tells of a trace, in one value."""

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.analyze.intervals import Interval, length, union
from autotuner.analyze.trace.device import DeviceTime, busiest, device_of, device_time
from autotuner.analyze.trace.events import (
    CALLS,
    KERNELS,
    ON_DEVICE,
    OPERATORS,
    Event,
    Kind,
    main_track,
    steps_of,
    window_of,
    within,
)
from autotuner.analyze.trace.host import HostTime, host_time
from autotuner.analyze.trace.lanes import Lane, lanes_of
from autotuner.analyze.trace.rows import Nested, Row, event_rows, nest, operator_rows
from autotuner.metrics import median

SHORT_S = 10e-6  # an operator that takes less is mostly the framework's own overhead
_CAST = "aten::_to_copy"


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A few profiled steps. Times are those under the profiler, which slows small operators down.

    Attributes:
        steps: How many were profiled.
        window_s: All of them.
        host: The main thread's time.
        device: The busiest device's; None on a CPU.
        operators: By their own time, over all threads.
        kernels: By name.
        copies: Copies and fills of the device.
        calls: CUDA runtime calls.
        short_operators: Innermost operators shorter than 10 us: how often, and their time.
        short_operators_s: The same.
        innermost_operators: How many innermost operators there were.
        kernel_median_s: Of all kernels; 0 without any.
        casts: Conversions of data types: how often.
        casts_s: Their time: on the device when their kernels are known, else on the host.
        compilations: Frames that torch.compile translated during the steps.
        compilations_s: Time for that.
        lanes: The median step as a picture.
        lanes_s: Its length.
    """

    steps: int
    window_s: float
    host: HostTime
    device: DeviceTime | None
    operators: tuple[Row, ...]
    kernels: tuple[Row, ...]
    copies: tuple[Row, ...]
    calls: tuple[Row, ...]
    short_operators: int
    short_operators_s: float
    innermost_operators: int
    kernel_median_s: float
    casts: int
    casts_s: float
    compilations: int
    compilations_s: float
    lanes: tuple[Lane, ...]
    lanes_s: float


def summarise(events: Sequence[Event]) -> TraceSummary:
    """What the events of some steps say.

    Raises:
        ValueError: There is no event.
    """
    if not events:
        raise ValueError("an empty trace says nothing")
    window = window_of(events)
    during, window_s = within(events, window), max(window[1] - window[0], 1e-9)
    ran = [event for event in during if event.kind in ON_DEVICE]
    device = busiest(ran) if ran else ""
    here = [event for event in ran if device_of(event) == device]
    kernels = [event for event in here if event.kind in KERNELS]
    threads = _by_thread(during)
    leaves_s = [call.event.duration_s for calls in threads for call in _innermost(calls)]
    short_s = [duration_s for duration_s in leaves_s if duration_s < SHORT_S]
    casts, casts_s = _casts(threads, kernels)
    compiled = _compiled(during, main_track(events))
    lanes, lanes_s = lanes_of(events)
    return TraceSummary(
        steps=max(1, len(steps_of(events))),
        window_s=window_s,
        host=host_time(events, window),
        device=device_time(events, window),
        operators=operator_rows((call for calls in threads for call in calls), window_s),
        kernels=event_rows(kernels, window_s),
        copies=event_rows((e for e in here if e.kind is Kind.COPY), window_s),
        calls=event_rows((e for e in during if e.kind in CALLS), window_s),
        short_operators=len(short_s),
        short_operators_s=sum(short_s),
        innermost_operators=len(leaves_s),
        kernel_median_s=median([e.duration_s for e in kernels]) if kernels else 0.0,
        casts=casts,
        casts_s=casts_s,
        compilations=len(compiled),
        compilations_s=length(compiled),
        lanes=lanes,
        lanes_s=lanes_s,
    )


def _by_thread(events: Sequence[Event]) -> list[list[Nested]]:
    """The operators and runtime calls of each thread, nested."""
    threads: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        if event.kind in OPERATORS or event.kind in CALLS:
            threads.setdefault(event.track, []).append(event)
    return [nest(thread) for thread in threads.values()]


def _compiled(events: Sequence[Event], main: tuple[str, str]) -> list[Interval]:
    """When the main thread translated code; what was nested is one."""
    return union(event.interval for event in events if event.kind is Kind.COMPILE and event.track == main)


def _innermost(calls: Sequence[Nested]) -> list[Nested]:
    """Operators that called no other operator."""
    callers = {call.parent for call in calls if call.event.kind in OPERATORS}
    return [call for i, call in enumerate(calls) if call.event.kind in OPERATORS and i not in callers]


def _casts(threads: Sequence[Sequence[Nested]], kernels: Sequence[Event]) -> tuple[int, float]:
    """How many conversions ran, and their time: that of the kernels they launched, or their own where none is known.

    `aten::_to_copy` also moves between devices; a move launches a copy and no kernel, so that it counts for nothing on
    a device. On a CPU there is nothing to move to, and every one of them converts.
    """
    kernel_s = {event.args.get("correlation"): event.duration_s for event in kernels}
    count, total_s = 0, 0.0
    for calls in threads:
        inside = [False] * len(calls)
        for i, call in enumerate(calls):
            outer = call.parent >= 0 and inside[call.parent]
            inside[i] = outer or call.event.name == _CAST
            if not kernels and inside[i] and not outer:
                count, total_s = count + 1, total_s + call.event.duration_s
            elif kernels and inside[i] and (own_s := kernel_s.get(call.event.args.get("correlation"), 0.0)):
                count, total_s = count + 1, total_s + own_s
    return count, total_s
