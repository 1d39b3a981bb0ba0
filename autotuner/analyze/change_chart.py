"""The chart behind `drift`: every value looked at with all those before it, many looks at once."""

import math
from typing import Any

import numpy as np

WINDOW = 200  # latest values of a level that are looked at: more would only cost time
THRESHOLD = 3.6  # of the largest statistic; by simulation, under one alarm in 1,000 values
SHORTEST = 3  # values of a new level, so that no single one is ever called a change
FEWEST = 8  # values before anything is said
_BLOCK = 100  # looks that are taken at once
_CAUTION = 0.5  # standard errors that are added to the correlation of neighbours
_MOST_CORRELATION = 0.8


def watch(series: Any) -> tuple[list[int], list[tuple[int, int, int, float]], float]:
    """Where levels begin; (first value looked at, cut, last value, score) of each alarm; the score in the end."""
    starts, found, score, end = [0], [], 0.0, FEWEST
    while end <= len(series):
        block = range(end, min(end + _BLOCK, len(series) + 1))
        begin, cut, end, score = _first_alarm(series, starts[-1], block)
        if score > THRESHOLD:
            starts.append(begin + cut)
            found.append((begin, begin + cut, end - 1, score))
        end += 1
    return starts, found, score


def _first_alarm(series: Any, start: int, ends: range) -> tuple[int, int, int, float]:
    """The first of the looks, each at the values before its end, that gives an alarm; else the last one.

    Returns:
        (first value looked at, cut after it, end, score) of it.
    """
    base = max(start, ends[0] - WINDOW)
    begins = np.maximum(start, np.arange(ends[0], ends[-1] + 1) - WINDOW) - base
    ranks = _all_ranks(series[base : ends[-1]], begins, ends[0] - base)
    scores, cuts = _largest(ranks, begins, ends[0] - base)
    begin, cut, end, score = start, SHORTEST, ends[-1], 0.0
    for look in sorted({*np.flatnonzero(scores > THRESHOLD).tolist(), len(ends) - 1}):  # inflation makes none larger
        begin, cut, end = base + int(begins[look]), int(cuts[look]), ends[look]
        raw = float(scores[look])
        score = raw / inflation(ranks[look, begins[look] : end - base], cut) if raw > 0 else 0.0
        if score > THRESHOLD:
            break
    return begin, cut, end, score


def _all_ranks(series: Any, begins: Any, first: int) -> Any:
    """Of each value of each look at series[begin:end], from the middle rank; 0 for values that are not looked at.

    All looks at once, for which of two values is the larger does not depend on the look.

    Args:
        series: (values,).
        begins: (looks,).
        first: End of the first look; each has its end one value later.

    Returns:
        (looks, values), multiples of a half.
    """
    count, looks = len(series), len(begins)
    rows = np.zeros((count + 1, count))
    above = series[None, :] > series[:, None]
    np.cumsum((above.astype(np.int8) - above.T) * 0.5, axis=0, out=rows[1:])
    ranks = rows[first : first + looks] - rows[begins]
    places = np.arange(count)
    ranks[(places < begins[:, None]) | (places >= first + np.arange(looks)[:, None])] = 0.0
    return ranks


def _largest(ranks: Any, begins: Any, first: int) -> tuple[Any, Any]:
    """The largest statistic of all cuts of each look, not yet inflated, and the number of values before that cut.

    Args:
        ranks: (looks, values), as `_all_ranks` has them.
        begins: (looks,).
        first: End of the first look.

    Returns:
        (looks,) each.
    """
    looks, count = ranks.shape
    sizes = first + np.arange(looks) - begins
    variances = np.einsum("ij,ij->i", ranks, ranks) / np.maximum(sizes, 1)  # with ties less than (n² - 1) / 12
    cuts = np.arange(1, count + 1) - begins[:, None]
    meant = (cuts >= SHORTEST) & (cuts <= (sizes - SHORTEST)[:, None])
    meant &= ((sizes >= FEWEST) & (variances > 0))[:, None]
    spreads = cuts * (sizes[:, None] - cuts) * variances[:, None] / np.maximum(sizes - 1, 1)[:, None]
    scores = np.where(meant, np.abs(np.cumsum(ranks, axis=1)), 0.0) / np.sqrt(np.where(meant, spreads, 1.0))
    best = scores.argmax(axis=1)
    return scores[np.arange(looks), best], cuts[np.arange(looks), best]


def mean_ranks(series: Any) -> Any:
    """From 1 on; the mean rank for equal values."""
    _, places, counts = np.unique(series, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    return (upto - (counts - 1) / 2)[places]


def inflation(series: Any, cut: int) -> float:
    """How much wider a mean of correlated neighbours scatters: sqrt((1 + r) / (1 - r)), r within both levels."""
    count = len(series)
    rest = np.concatenate([series[:cut] - series[:cut].mean(), series[cut:] - series[cut:].mean()])
    total = float(rest @ rest)
    seen = float(rest[1:] @ rest[:-1]) / total if total > 0 else 0.0
    unbiased = seen + (1 + 4 * max(seen, 0.0)) / count  # Kendall 1954: what taking out a mean hides
    correlation = min(max(unbiased + _CAUTION / math.sqrt(count), 0.0), _MOST_CORRELATION)
    return math.sqrt((1 + correlation) / (1 - correlation))
