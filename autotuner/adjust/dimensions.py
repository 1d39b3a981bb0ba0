"""How unlike two values of a parameter are: what a model may know of them before anything was measured.

A row holds, for every parameter, the index of its value. Every trait of a parameter is a table over those indices, so
that a million comparisons are a few matrix products.
"""

import math
from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True)
class Dimension:
    """A parameter.

    Attributes:
        values: What it can be.
        ordered: They are numbers in order; else names, of which each is as far from all others.
    """

    values: tuple[object, ...]
    ordered: bool

    @property
    def size(self) -> int:
        """How many values it has."""
        return len(self.values)

    @cached_property
    def traits(self) -> tuple[Floats, ...]:
        """Squared distances [size, size] in [0, 1], one table a trait; none for a parameter with one value.

        Of names: the same or not. Of numbers: how far they are, on a log scale where they span a wide range; and where
        whole numbers are not just powers of two, how often each can be halved: hardware has a liking for round ones.
        """
        if self.size < 2:
            return ()
        if not self.ordered:
            return (1.0 - np.eye(self.size),)
        numbers = np.array(self.values, dtype=np.float64)
        wide = numbers.min() > 0 and numbers.max() / numbers.min() >= _WIDE_RATIO
        place = np.log2(numbers) if wide else numbers
        halvings = _halvings(numbers)
        telling = np.ptp(halvings) > 0 and abs(np.corrcoef(halvings, np.log2(numbers))[0, 1]) < _SAME_CORRELATION
        return (_apart(place), _apart(halvings)) if telling else (_apart(place),)


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


def _halvings(numbers: Floats) -> Floats:
    """How often each number is even when halved; 0 for all where one is not whole and positive."""
    if len(numbers) < 3 or numbers.min() <= 0 or (numbers != np.round(numbers)).any():
        return np.zeros(len(numbers))
    lowest = [int(number) & -int(number) for number in numbers]
    return np.array([min(_MOST_HALVINGS, math.log2(power)) for power in lowest])


def _apart(places: Sequence[float] | Floats) -> Floats:
    scaled = (np.asarray(places) - np.min(places)) / np.ptp(places)
    return np.asarray((scaled[:, None] - scaled[None, :]) ** 2, dtype=np.float64)
