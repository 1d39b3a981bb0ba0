"""What need not be tried: what was tried already, and what must need more memory than there is."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from autotuner.adjust.space import Floats, Mask, Positions, Row, Rows, Space
from autotuner.types import Failure, FailureKind, Trial


def worth_trying(space: Space, trials: Sequence[Trial], rows: Rows) -> Mask:
    """Which of `rows` [count, parameters] are neither tried nor ruled out by an out-of-memory.

    A configuration that failed for whatever reason is never tried again. One that ran out of memory also rules out
    every configuration that is larger or equal in every parameter that drives memory (`Trait.memory`) and equal in
    all others: monotone, so it is never wrong where the trait is right.
    """
    worth = ~_ruled_out(space, trials, rows)
    for trial in trials:
        worth[_positions(rows, space.encode(trial.config))] = False
    return worth


def _positions(rows: Rows, row: Row) -> Positions:
    """Where `row` stands in `rows`; column by column, because few survive the first."""
    found = np.flatnonzero(rows[:, 0] == row[0])
    for column in range(1, len(row)):
        found = found[rows[found, column] == row[column]]
    return found


def _ruled_out(space: Space, trials: Iterable[Trial], rows: Rows) -> Mask:
    ruled_out = np.zeros(len(rows), dtype=np.bool_)
    exhausted = {space.encode(trial.config) for trial in trials if _out_of_memory(trial)}
    demands = {i: demand for i in range(len(space.names)) if (demand := _demand(space, i)) is not None}
    others = [i for i in range(len(space.names)) if i not in demands]
    for row in exhausted:
        larger = np.all(rows[:, others] == np.array(row, dtype=np.int32)[others], axis=1)
        for i, demand in demands.items():
            larger &= demand[rows[:, i]] >= demand[row[i]]
        ruled_out |= larger
    return ruled_out


def _out_of_memory(trial: Trial) -> bool:
    return isinstance(trial.outcome, Failure) and trial.outcome.kind is FailureKind.OUT_OF_MEMORY


def _demand(space: Space, index: int) -> Floats | None:
    """The values of a parameter as numbers that memory grows with, or None where that cannot be said."""
    name = space.names[index]
    values = space.spec.parameters[name].values
    numeric = [float(value) for value in values if isinstance(value, bool | int | float) and math.isfinite(value)]
    return np.array(numeric) if space.spec.trait(name).memory and len(numeric) == len(values) else None
