"""Arithmetic of time intervals: what several activities cover together, alone, and not at all."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """What any of them covers, as disjoint intervals in order; empty ones vanish.

    >>> union([(2.0, 4.0), (0.0, 1.0), (3.0, 5.0)])
    [(0.0, 1.0), (2.0, 5.0)]
    """
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def intersect(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """What both cover; each must be disjoint and in order, as `union` returns.

    >>> intersect([(0.0, 3.0)], [(1.0, 2.0), (2.5, 4.0)])
    [(1.0, 2.0), (2.5, 3.0)]
    """
    found: list[Interval] = []
    i = j = 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            found.append((start, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return found


def subtract(one: Sequence[Interval], other: Sequence[Interval]) -> list[Interval]:
    """What the first covers and the second does not; both disjoint and in order.

    >>> subtract([(0.0, 4.0)], [(1.0, 2.0)])
    [(0.0, 1.0), (2.0, 4.0)]
    """
    found: list[Interval] = []
    j = 0
    for start, end in one:
        while j < len(other) and other[j][1] <= start:
            j += 1
        k = j
        while k < len(other) and other[k][0] < end:
            if other[k][0] > start:
                found.append((start, other[k][0]))
            start = other[k][1]
            k += 1
        if start < end:
            found.append((start, end))
    return found


def length(intervals: Iterable[Interval]) -> float:
    """How long they are together; meant for disjoint ones."""
    return sum(end - start for start, end in intervals)
