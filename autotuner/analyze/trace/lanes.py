"""One profiled step as a picture: lanes of bars, few enough to draw."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.analyze.intervals import Interval
from autotuner.analyze.trace.events import ON_DEVICE, Event, Kind, main_track, steps_of, window_of
from autotuner.analyze.trace.rows import nest

_MOST_LANES = 8
_RESOLUTION = 1200  # bars closer than this part of the step are drawn as one

_ALWAYS = frozenset({Kind.SYNC, Kind.INPUT, Kind.COMPILE})  # drawn inside others too


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that lasted; times since the step's beginning.

    Attributes:
        kind: What it was.
        name: Of the longest event in it.
        count: Events that were drawn together.
    """

    start_s: float
    end_s: float
    kind: Kind
    name: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Lane:
    """A thread or a stream."""

    name: str
    bars: tuple[Bar, ...]


def lanes_of(events: Sequence[Event]) -> tuple[tuple[Lane, ...], float]:
    """The median step: its lanes, the main thread first, and how long it took."""
    window = _median_step(events)
    main = main_track(events)
    tracks: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        if event.start_s < window[1] and event.end_s > window[0] and event.kind is not Kind.OTHER:
            tracks[event.track].append(event)
    ordered = sorted(tracks, key=lambda track: (track != main, tracks[track][0].kind in ON_DEVICE, track))
    lanes = [Lane(_title(tracks[track], track, main), _bars(tracks[track], window)) for track in ordered[:_MOST_LANES]]
    return tuple(lane for lane in lanes if lane.bars), window[1] - window[0]


def _median_step(events: Sequence[Event]) -> Interval:
    """From one step's beginning to the next one's: what a step leaves on the device belongs to it."""
    steps = steps_of(events)
    if not steps:
        return window_of(events)
    ends = [*(step.start_s for step in steps[1:]), window_of(events)[1]]
    spans = sorted(((step.start_s, end) for step, end in zip(steps, ends, strict=True)), key=lambda s: s[1] - s[0])
    return spans[len(spans) // 2]


def _title(events: Sequence[Event], track: tuple[str, str], main: tuple[str, str]) -> str:
    if track == main:
        return "main thread"
    return f"GPU stream {track[1]}" if events[0].kind in ON_DEVICE else f"thread {track[1]}"


def _bars(events: Sequence[Event], window: Interval) -> tuple[Bar, ...]:
    """The outermost events, and the waits inside them; neighbours of one kind that nobody could tell apart are one."""
    shown = [c.event for c in nest(events) if c.parent < 0 or c.event.kind in _ALWAYS]
    tick_s = (window[1] - window[0]) / _RESOLUTION
    bars: list[Bar] = []
    longest_s = 0.0
    for event in shown:
        start_s, end_s = max(event.start_s, window[0]) - window[0], min(event.end_s, window[1]) - window[0]
        last = bars[-1] if bars else None
        if (
            last
            and last.kind == event.kind
            and start_s - last.end_s < tick_s
            and last.end_s - last.start_s < 8 * tick_s
        ):
            name = event.name if event.duration_s > longest_s else last.name
            longest_s = max(longest_s, event.duration_s)
            bars[-1] = Bar(last.start_s, max(end_s, last.end_s), last.kind, name, last.count + 1)
        else:
            bars.append(Bar(start_s, end_s, event.kind, event.name))
            longest_s = event.duration_s
    return tuple(bars)
