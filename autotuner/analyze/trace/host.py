"""The time of the host: waiting for input, waiting for the device, compiling, in operators, and Python between them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autotuner.analyze.intervals import Interval, intersect, length, subtract, union
from autotuner.analyze.trace.events import CALLS, OPERATORS, Event, Kind, main_track, within

_WORK = OPERATORS | CALLS


@dataclass(frozen=True, slots=True)
class HostTime:
    """Where the time of the thread that ran the steps went. The six times add up to the window.

    Attributes:
        window_s: All profiled steps.
        input_s: In `next()` of a DataLoader.
        device_wait_s: In a call that waits for the device.
        compile_s: torch.compile translated a frame.
        operators_s: In operators, and in calls that launch work.
        other_threads_s: In none, while another thread (autograd's) was in one.
        python_s: In none of these: Python, or what the profiler does not see.
        threads: Share of the window that each thread spent in operators, the main one first.
    """

    window_s: float
    input_s: float
    device_wait_s: float
    compile_s: float
    operators_s: float
    other_threads_s: float
    python_s: float
    threads: Mapping[str, float] = field(default_factory=dict)


def host_time(events: Sequence[Event], window: Interval) -> HostTime:
    """The main thread's time by what it did; of two at once the more special one counts."""
    main = main_track(events)
    during = within(events, window)
    ours = [event for event in during if event.track == main]
    left = [window]
    spent_s: list[float] = []
    for kinds in ({Kind.INPUT}, {Kind.SYNC}, {Kind.COMPILE}, _WORK):
        covered = union(event.interval for event in ours if event.kind in kinds)
        spent_s.append(length(intersect(covered, left)))
        left = subtract(left, covered)
    elsewhere = union(e.interval for e in during if e.track != main and e.kind in _WORK and e.process == main[0])
    other_s = length(intersect(elsewhere, left))
    return HostTime(
        window_s=window[1] - window[0],
        input_s=spent_s[0],
        device_wait_s=spent_s[1],
        compile_s=spent_s[2],
        operators_s=spent_s[3],
        other_threads_s=other_s,
        python_s=length(left) - other_s,
        threads=_threads(during, window, main),
    )


def _threads(events: Sequence[Event], window: Interval, main: tuple[str, str]) -> dict[str, float]:
    covered: dict[tuple[str, str], list[Interval]] = defaultdict(list)
    for event in events:
        if event.kind in _WORK:
            covered[event.track].append(event.interval)
    shares = {
        track: length(intersect(union(intervals), [window])) / (window[1] - window[0])
        for track, intervals in covered.items()
        if track[0] == main[0]
    }
    ordered = sorted(shares, key=lambda track: (track != main, -shares[track]))
    return {"main" if track == main else f"thread {track[1]}": shares[track] for track in ordered}
