"""What need not be tried: what was tried already, and what must need more memory than there is."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from autotuner.adjust.dimensions import Floats, Rows
from autotuner.adjust.memory import Demand
from autotuner.adjust.space import Mask, Positions, Row, Space
from autotuner.analyze.memory_model import fit_memory
from autotuner.metrics import value_of
from autotuner.types import Measurement, Trial

_CLEARLY_OVER = 1.02  # of a limit: allocators round, and a little too much may fit the next time
_MISFIT_RATIO = 0.05  # of a point from its line: memory that grows otherwise is not foretold
_OTHERS_TOO = 3.0  # times as much memory may be needed for parameters that it is not known to grow with
_REACH = 4.0  # times the largest that was measured: a line may bend beyond, as where a cache is full


def worth_trying(space: Space, trials: Sequence[Trial], rows: Rows) -> Mask:
    """Which of `rows` [count, parameters] are neither tried nor ruled out by what is known of memory.

    A configuration that failed for whatever reason is never tried again. One that does not fit also rules out every
    configuration that is larger or equal in every parameter that drives memory (`Trait.memory`) and equal in all
    others: monotone, so it is never wrong where the trait is right. What does not fit ran out of memory, or was
    measured clearly over a limit, or lies clearly over it by a line through what was measured.
    """
    worth = np.ones(len(rows), dtype=np.bool_)
    demands = {i: demand for i in range(len(space.names)) if (demand := _demand(space, i)) is not None}
    for row in _smallest({*_too_large(space, trials), *_foretold(space, demands, trials)}, demands):
        worth[_larger(rows, row, demands)] = False
    tried = space.matrix(space.encode(trial.config) for trial in trials)
    worth[np.isin(_codes(space, rows), _codes(space, tried))] = False
    return worth


def _codes(space: Space, rows: Rows) -> npt.NDArray[Any]:
    """A number for each row, another for each other one; as Python counts where 64 bits are too few."""
    kind = np.int64 if space.raw_size < 2**62 else object
    weights = [math.prod(space.sizes[i + 1 :]) for i in range(len(space.sizes))]
    found: npt.NDArray[Any] = rows.astype(kind) @ np.array(weights, dtype=kind)
    return found


def _larger(rows: Rows, row: Row, demands: Mapping[int, Floats]) -> Positions:
    """Where `rows` demand at least as much as `row` and are equal in all else; column by column: few survive each."""
    found = np.arange(len(rows), dtype=np.intp)
    for column in sorted(range(len(row)), key=demands.__contains__):
        seen = rows[:, column] if len(found) == len(rows) else rows[found, column]
        demand = demands.get(column)
        found = found[seen == row[column] if demand is None else demand[seen] >= demand[row[column]]]
        if not len(found):
            break
    return found


def _smallest(rows: Iterable[Row], demands: Mapping[int, Floats]) -> list[Row]:
    """Those that are not ruled out by another one of them: the fewer, the sooner done."""
    found: list[Row] = []
    for row in sorted(rows, key=lambda row: sum(demand[row[i]] for i, demand in demands.items())):
        if not any(len(_larger(np.array([row]), smaller, demands)) for smaller in found):
            found.append(row)
    return found


def _too_large(space: Space, trials: Iterable[Trial]) -> Iterator[Row]:
    """What ran out of memory, and what was measured clearly over a limit."""
    limit_bytes = space.spec.memory_limit_bytes
    for trial in trials:
        if trial.ran_out_of_memory or _peak_bytes(trial) > _CLEARLY_OVER * limit_bytes:
            yield space.encode(trial.config)


def _foretold(space: Space, demands: Mapping[int, Floats], trials: Sequence[Trial]) -> Iterator[Row]:
    """What does not fit by a line through trials that differ in one parameter only.

    Three points are the fewest: two always lie on a line, which then says nothing of how wrong it is. With fewer,
    only what was measured rules something out.
    """
    bound_bytes = min(space.spec.memory_limit_bytes, _device_bytes(space, trials))
    if not demands or not math.isfinite(bound_bytes):
        return
    lines: dict[tuple[int, Row], dict[float, float]] = defaultdict(dict)
    for trial in trials:
        if (peak_bytes := _peak_bytes(trial)) > 0:
            row = space.encode(trial.config)
            for i, demand in demands.items():
                lines[i, (*row[:i], 0, *row[i + 1 :])][float(demand[row[i]])] = peak_bytes
    for (i, row), points in lines.items():
        position = _first_over(tuple(points.items()), tuple(demands[i].tolist()), bound_bytes)
        if position is not None:
            yield (*row[:i], position, *row[i + 1 :])


@lru_cache(maxsize=1024)
def _first_over(points: tuple[tuple[float, float], ...], values: tuple[float, ...], bound_bytes: float) -> int | None:
    """Where the smallest value stands whose prediction interval lies clearly over a bound.

    Cached, for a proposal asks several times, and a new trial changes few lines.

    Args:
        points: (value of the parameter, peak bytes).
        values: Of the parameter, in the file's order.
        bound_bytes: What must not be passed.
    """
    found = fit_memory(dict(points))
    if found is None or found.line.misfit_ratio > _MISFIT_RATIO:
        return None
    largest = max(value for value, _ in points)
    untried = sorted(set(values) - dict(points).keys())
    over = (
        value
        for value in untried
        if largest < value <= _REACH * largest and found.bytes_at(value).low > _CLEARLY_OVER * bound_bytes
    )
    first = next(over, None)
    return None if first is None else values.index(first)


def memory_demand(space: Space, trials: Sequence[Trial]) -> Demand | None:
    """What trials needed of the memory that there is; None where that is unknown, or nothing comes near its end."""
    bound_bytes = min(space.spec.memory_limit_bytes, _device_bytes(space, trials))
    if not math.isfinite(bound_bytes):
        return None
    peaks = [math.inf if trial.ran_out_of_memory else _peak_bytes(trial) or math.nan for trial in trials]
    ratios = np.array(peaks, dtype=np.float64) / bound_bytes
    told, demands = ~np.isnan(ratios), {i: _demand(space, i) for i in range(len(space.names))}
    drivers = {i: values / values.max() for i, values in demands.items() if values is not None and values.max() > 0}
    growth = math.prod(1 / values[values > 0].min() for values in drivers.values())
    measured = np.isfinite(ratios)
    scarce = np.isinf(ratios).any() or ratios.max(where=measured, initial=0.0) * growth * _OTHERS_TOO >= 1
    if not measured.any() or not scarce:
        return None
    rows = space.matrix(space.encode(trial.config) for trial in trials)
    return Demand(rows[told], ratios[told], drivers)


def _device_bytes(space: Space, trials: Iterable[Trial]) -> float:
    """All memory of the device that computes, as far as the measurements know it; a slice of a GPU does not say."""
    name = "memory_bytes" if space.spec.device == "cpu" else "gpu_memory_bytes"
    seen = [trial.outcome.environment.get(name) for trial in trials if isinstance(trial.outcome, Measurement)]
    return min((float(size) for size in seen if size), default=math.inf)


def _peak_bytes(trial: Trial) -> float:
    """What a trial was seen to need; NaN if it was not seen."""
    return value_of("peak_memory_bytes", trial.outcome.samples) if isinstance(trial.outcome, Measurement) else math.nan


def _demand(space: Space, index: int) -> Floats | None:
    """The values of a parameter as numbers that memory grows with, or None where that cannot be said."""
    name = space.names[index]
    values = space.spec.parameters[name].values
    numeric = [float(value) for value in values if isinstance(value, bool | int | float) and math.isfinite(value)]
    return np.array(numeric) if space.spec.trait(name).memory and len(numeric) == len(values) else None
