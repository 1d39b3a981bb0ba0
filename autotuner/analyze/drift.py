"""Whether a level has changed in a series of noisy numbers, by how much, and what the next number will be.

The chart of Hawkins and Deng (2010), "A nonparametric change-point control chart", Journal of Quality Technology 42(2):
after every value the largest Mann-Whitney statistic over all places where the series could be cut in two. It learns
the level while it watches, needs no known mean or spread, looks both ways, and rests on ranks: an outlier counts as one
large value, however large, and the rate of false alarms is the same for whatever distribution the noise has.
Neighbours that are alike (a warm machine, a noisy hour) are met as in a mean of correlated values: the statistic is
divided by sqrt((1 + r) / (1 - r)), r the correlation of neighbours within the two levels, given the benefit of half a
standard error. `benchmarks/drift_detection.py` shows what that comes to: alarms in 1,000 values without a change, and
values until a change is seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autotuner.analyze.change_chart import FEWEST, WINDOW, inflation, mean_ranks, watch
from autotuner.metrics import median
from autotuner.statistics import t_975

PROVEN_TREND = 3.3  # two-sided p = 0.001
_Z_975 = 1.96
_WIDE_SPREADS = 4.0  # medians of all spreads, beyond which a value was disturbed and is set aside
_CONFORMAL = 19  # residuals, of which the largest bounds 95 % of what comes


@dataclass(frozen=True, slots=True)
class Change:
    """A level that became another one.

    Attributes:
        index: Place in the series of the first value of the new level, as far as it can be told.
        proven_at: Place of the value with which it was proven: a look after fewer values sees no change.
        shift: New level minus old one, on the scale of the values: of logarithms, the log of their ratio.
        low: Lower end of its 95 % interval.
        high: Upper end.
        score: The statistic when it was proven, > `change_chart.THRESHOLD`.
        before: The level before.
        after: The level since.
    """

    index: int
    proven_at: int
    shift: float
    low: float
    high: float
    score: float
    before: float
    after: float

    @property
    def direction(self) -> int:
        """1 for up, -1 for down."""
        return 1 if self.shift > 0 else -1


@dataclass(frozen=True, slots=True)
class Drift:
    """What a series tells.

    Attributes:
        changes: In order of time; empty when nothing was proven.
        level: The median of the latest level; NaN of an empty series.
        since: Place in the series where that level begins.
        count: Values that it rests on.
        set_aside: Places of values that were not counted: not finite, or far less certain than the others.
        score: The statistic after the last value; an alarm beyond `change_chart.THRESHOLD`.
    """

    changes: tuple[Change, ...]
    level: float
    since: int
    count: int
    set_aside: tuple[int, ...] = ()
    score: float = 0.0

    @property
    def last(self) -> Change | None:
        """The latest change."""
        return self.changes[-1] if self.changes else None


@dataclass(frozen=True, slots=True)
class Forecast:
    """The value to be expected next, on the scale of the series.

    Attributes:
        value: NaN when nothing is known.
        low: Lower end of the interval that holds the next value with 95 %; -inf for fewer than three values.
        high: Upper end.
        slope: Per value, where a trend is proven; else 0.
        count: Values of the present level that it rests on.
    """

    value: float
    low: float
    high: float
    slope: float
    count: int


def find_drift(values: Sequence[float], spreads: Sequence[float] = ()) -> Drift:
    """Go through a series as it came, value by value, and say where its level changed.

    A series only ever grows: what was proven after n values stays proven, and looking after each of them is what the
    threshold was made for. After a change the chart begins anew with the new level.

    Args:
        values: In order of time; logarithms where ratios count. What is not finite is set aside.
        spreads: Standard error of each value, on the same scale, as many or none; what is four times less certain than
            the median so far is set aside.

    Raises:
        ValueError: Another number of spreads than of values.

    >>> find_drift([1.0, 1.1, 0.9] * 8).changes
    ()
    >>> found = find_drift([1.0, 1.1, 0.9] * 8 + [2.0, 2.1, 1.9] * 3)
    >>> found.changes[0].index, round(found.changes[0].shift, 6)
    (24, 1.0)
    """
    places = _usable(values, spreads)
    series = np.array([values[place] for place in places], dtype=float)
    starts, found, score = watch(series)
    ends = [*starts[2:], len(series)][: len(found)]
    changes = tuple(_change(series, places, *one, end) for one, end in zip(found, ends, strict=True))
    present = series[starts[-1] :]
    kept = set(places)
    return Drift(
        changes=changes,
        level=median(present.tolist()) if len(present) else math.nan,
        since=places[starts[-1]] if places else 0,
        count=len(present),
        set_aside=tuple(place for place in range(len(values)) if place not in kept),
        score=score,
    )


def forecast(values: Sequence[float], spreads: Sequence[float] = ()) -> Forecast:
    """What the next value will be if nothing changes: the present level, or the trend in it where one is proven.

    The trend is Theil and Sen's slope, proven by Mann and Kendall's test at p = 0.001, corrected for neighbours that
    are alike. The interval is conformal from 19 values on: the quantile of absolute residuals that is exceeded by at
    most 5 % of what comes, whatever the noise looks like (Vovk, Gammerman, Shafer 2005); before, Student's.

    Args:
        values: As for `find_drift`.
        spreads: Likewise.
    """
    drift = find_drift(values, spreads)
    aside = set(drift.set_aside)
    present = [value for place, value in enumerate(values) if place >= drift.since and place not in aside][-WINDOW:]
    count = len(present)
    if not count:
        return Forecast(math.nan, -math.inf, math.inf, 0.0, 0)
    slope = _proven_slope(np.array(present))
    start = median([value - slope * place for place, value in enumerate(present)])
    residuals = [value - start - slope * place for place, value in enumerate(present)]
    expected, reach = start + slope * count, _reach(residuals)
    return Forecast(expected, expected - reach, expected + reach, slope, count)


def _usable(values: Sequence[float], spreads: Sequence[float]) -> list[int]:
    if spreads and len(spreads) != len(values):
        raise ValueError(f"{len(values)} values, {len(spreads)} spreads")
    kept: list[int] = []
    known: list[float] = []
    for place, value in enumerate(values):
        spread = spreads[place] if spreads else math.nan
        if math.isfinite(spread):
            known.append(spread)  # only what was known by then: what comes later must not change what was said
        usual = median(known[-WINDOW:]) if known else 0.0
        if math.isfinite(value) and not (usual > 0 and spread > _WIDE_SPREADS * usual):
            kept.append(place)
    return kept


def _change(series: Any, places: Sequence[int], begin: int, cut: int, proven: int, score: float, end: int) -> Change:
    """Hodges and Lehmann's shift and its interval, from the Mann-Whitney statistic, widened for correlation."""
    before, after = series[begin:cut][-WINDOW:], series[cut:end][:WINDOW]
    shifts = np.sort((after[:, None] - before[None, :]).ravel())
    count = len(before) + len(after)
    both = mean_ranks(np.concatenate([before, after]))
    spread = math.sqrt(len(shifts) * (count + 1) / 12) * inflation(both, len(before))
    low = max(0, math.floor(len(shifts) / 2 - _Z_975 * spread))
    return Change(
        index=places[cut],
        proven_at=places[proven],
        shift=float(np.median(shifts)),
        low=float(shifts[low]),
        high=float(shifts[-1 - low]),
        score=score,
        before=float(np.median(before)),
        after=float(np.median(after)),
    )


def _proven_slope(series: Any) -> float:
    count = len(series)
    if count < FEWEST:
        return 0.0
    earlier, later = np.triu_indices(count, 1)
    steps = series[later] - series[earlier]
    slope = float(np.median(steps / (later - earlier)))
    variance = count * (count - 1) * (2 * count + 5) / 18
    rest = series - slope * np.arange(count)
    score = abs(float(np.sign(steps).sum())) / math.sqrt(variance) / inflation(mean_ranks(rest), count // 2)
    return slope if score > PROVEN_TREND else 0.0


def _reach(residuals: Sequence[float]) -> float:
    count = len(residuals)
    if count < 3:
        return math.inf
    if count >= _CONFORMAL:
        return sorted(map(abs, residuals))[min(count, math.ceil(0.95 * (count + 1))) - 1]
    variance = math.fsum(residual**2 for residual in residuals) / (count - 1)
    return t_975(count - 1) * math.sqrt(variance * (1 + 1 / count))
