"""Tables: what ran how often and for how long."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autotuner.analyze.trace.events import OPERATORS, Event
from autotuner.metrics import median

_OCCUPANCY = "est. achieved occupancy %"


@dataclass(frozen=True, slots=True)
class Row:
    """Everything of one name.

    Attributes:
        name: Of an operator, kernel or call.
        count: How often, in all profiled steps.
        total_s: In all of them; of an operator only itself, without the operators that it called.
        median_s: Of one.
        share_ratio: Of the profiled time; several streams or threads can add up to more than 1.
        bytes: Moved, for copies; 0 when not known.
        occupancy_ratio: Mean of what the profiler estimates from the launch; NaN when not known.
    """

    name: str
    count: int
    total_s: float
    median_s: float
    share_ratio: float
    bytes: float = 0.0
    occupancy_ratio: float = math.nan

    @property
    def mean_s(self) -> float:
        """Of one."""
        return self.total_s / self.count


@dataclass(frozen=True, slots=True)
class Nested:
    """An event among those around it on its thread.

    Attributes:
        event: Itself.
        parent: Index of the event around it in the same list; -1 at the top.
        self_s: Its time without the events directly inside.
    """

    event: Event
    parent: int
    self_s: float


def nest(events: Sequence[Event]) -> list[Nested]:
    """Who called whom, for the events of one thread in order of start, longer ones first."""
    parents: list[int] = []
    inside_s = [0.0] * len(events)
    open_calls: list[int] = []
    for index, event in enumerate(events):
        while open_calls and events[open_calls[-1]].end_s <= event.start_s:
            open_calls.pop()
        parent = open_calls[-1] if open_calls else -1
        parents.append(parent)
        if parent >= 0:  # clocks round: an inner event may seem to end after the outer one
            inside_s[parent] += min(event.end_s, events[parent].end_s) - event.start_s
        open_calls.append(index)
    return [
        Nested(event, parent, max(0.0, event.duration_s - inner_s))
        for event, parent, inner_s in zip(events, parents, inside_s, strict=True)
    ]


def operator_rows(nested: Iterable[Nested], window_s: float) -> tuple[Row, ...]:
    """Operators by their own time, most expensive first."""
    times: dict[str, list[float]] = defaultdict(list)
    for call in nested:
        if call.event.kind in OPERATORS:
            times[call.event.name].append(call.self_s)
    return _sorted(Row(name, len(t), sum(t), median(t), sum(t) / window_s) for name, t in times.items())


def event_rows(events: Iterable[Event], window_s: float) -> tuple[Row, ...]:
    """Kernels, copies or calls by name, most expensive first."""
    groups: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        groups[event.name].append(event)
    return _sorted(_row(name, group, window_s) for name, group in groups.items())


def _row(name: str, group: Sequence[Event], window_s: float) -> Row:
    times = [event.duration_s for event in group]
    estimates = [
        float(e.args["est. achieved occupancy %"]) / 100 for e in group if "est. achieved occupancy %" in e.args
    ]
    return Row(
        name=name,
        count=len(group),
        total_s=sum(times),
        median_s=median(times),
        share_ratio=sum(times) / window_s,
        bytes=sum(float(event.args.get("bytes", 0)) for event in group),
        occupancy_ratio=sum(estimates) / len(estimates) if estimates else math.nan,
    )


def _sorted(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(sorted(rows, key=lambda row: (-row.total_s, row.name)))
