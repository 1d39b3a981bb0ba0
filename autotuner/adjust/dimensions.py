"""How unlike two values of a parameter are: what a model may know of them before anything was measured.

A row holds, for every parameter, the index of its value. Every trait of a parameter is a table over those indices, so
that a million comparisons are a few matrix products.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.int32]

_WIDE_RATIO = 4.0  # of the largest value to the smallest: from here on ratios say more than differences
_MOST_HALVINGS = 6
_SAME_CORRELATION = 0.95  # beyond, the second trait would say what the first does
_SHORT = 64  # values of which a table is always whole; of longer ranges only those that occur


@dataclass(frozen=True)
class Dimension:
    """A parameter.

    Attributes:
        ordered: Its values are numbers in order; else names, of which each is as far from all others.
        places: Where each value lies in [0, 1], by trait; of names their numbers. None for one value alone.
    """

    ordered: bool
    places: tuple[tuple[float, ...], ...]

    @property
    def size(self) -> int:
        """How many values it has."""
        return len(self.places[0])

    @cached_property
    def traits(self) -> tuple[Floats, ...]:
        """Squared distances [size, size] in [0, 1], one table a trait; none for a parameter with one value."""
        if self.size < 2:
            return ()
        each = (np.array(places)[:, None] - np.array(places)[None, :] for places in self.places)
        return tuple(np.asarray(gaps**2 if self.ordered else gaps != 0, dtype=np.float64) for gaps in each)

    def among(self, indices: npt.NDArray[np.int32]) -> "Dimension":
        """With these values only, each where it lies among all."""
        return Dimension(self.ordered, tuple(tuple(places[i] for i in indices) for places in self.places))


def numbers(values: Iterable[float]) -> Dimension:
    """Of numbers in order, all different and finite.

    A trait is where each lies, on a log scale where they span a wide range; another, where whole numbers are not just
    powers of two, how often each can be halved: hardware has a liking for round ones.
    """
    found = np.array(list(values), dtype=np.float64)
    if len(found) < 2:
        return names(len(found))
    wide = found.min() > 0 and found.max() / found.min() >= _WIDE_RATIO
    halvings = _halvings(found)
    telling = np.ptp(halvings) > 0 and abs(np.corrcoef(halvings, np.log2(found))[0, 1]) < _SAME_CORRELATION
    place = _scaled(np.log2(found) if wide else found)
    return Dimension(True, (place, _scaled(halvings)) if telling else (place,))


def names(count: int) -> Dimension:
    """Of so many names."""
    return Dimension(False, (tuple(map(float, range(count))),))


def _halvings(found: Floats) -> Floats:
    """How often each number is even when halved; 0 for all where one is not whole and positive."""
    if len(found) < 3 or found.min() <= 0 or found.max() > 2**53 or (found != np.round(found)).any():
        return np.zeros(len(found))
    lowest = [int(number) & -int(number) for number in found]
    return np.array([min(_MOST_HALVINGS, math.log2(power)) for power in lowest])


def _scaled(places: Floats) -> tuple[float, ...]:
    return tuple(map(float, (places - places.min()) / np.ptp(places)))


@dataclass(frozen=True)
class Shape:
    """All parameters of a space, in the order of a row."""

    dimensions: tuple[Dimension, ...]

    @cached_property
    def offsets(self) -> npt.NDArray[np.intp]:
        """Where the values of each begin in a row's indicator."""
        return np.concatenate([[0], np.cumsum([each.size for each in self.dimensions])])

    @cached_property
    def traits(self) -> tuple[tuple[int, Floats], ...]:
        """Every trait with the index of its parameter."""
        return tuple((i, table) for i, each in enumerate(self.dimensions) for table in each.traits)

    @cached_property
    def trait_count(self) -> int:
        """Without making the tables, which may be large."""
        return sum(len(each.places) for each in self.dimensions if each.size > 1)

    def narrowed(self, *groups: Rows) -> tuple["Shape", list[Rows]]:
        """With only those values of long ranges that occur in the rows, and the rows over these.

        A range keeps its second value even where a single one occurs, so that it keeps its traits.
        """
        dimensions, found = list(self.dimensions), [rows.copy() for rows in groups]
        for i, each in enumerate(self.dimensions):
            if each.size > _SHORT:
                used = np.unique(np.concatenate([[0, 1], *(rows[:, i] for rows in groups)])).astype(np.int32)
                dimensions[i] = each.among(used)
                for rows in found:
                    rows[:, i] = np.searchsorted(used, rows[:, i])
        return Shape(tuple(dimensions)), found

    def indicators(self, rows: Rows) -> Floats:
        """Rows as zeros and ones, one column a value [count, values]."""
        found = np.zeros((len(rows), int(self.offsets[-1])))
        places = rows + self.offsets[:-1]
        np.put_along_axis(found, places.astype(np.intp), 1.0, axis=1)
        return found

    def on_blocks(self, tables: Iterable[tuple[int, Floats]]) -> Floats:
        """Sum of tables, each over the values of its parameter [values, values]; 0 between parameters."""
        whole = np.zeros((int(self.offsets[-1]),) * 2)
        for i, table in tables:
            block = self.block(whole, i)
            block += table
        return whole

    def block(self, whole: Floats, index: int) -> Floats:
        """The part of one parameter [size, size]: a view."""
        own = slice(self.offsets[index], self.offsets[index + 1])
        return whole[own, own]

    def distances(self, rows: Rows, others: Rows) -> Floats:
        """Sum over parameters of the share of its range between them, or 1 for two names [len(rows), len(others)]."""
        total = np.zeros((len(rows), len(others)))
        for i, each in enumerate(self.dimensions):
            gaps = np.abs(rows[:, i][:, None] - others[:, i][None, :])
            total += gaps / max(1, each.size - 1) if each.ordered else gaps > 0
        return total
