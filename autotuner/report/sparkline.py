"""Small plots of one line, where looking beats reading."""

import math
from collections.abc import Sequence
from itertools import pairwise

LEVELS = "▁▂▃▄▅▆▇█"
FAILED = "×"


def sparkline(heights: Sequence[float | None], width: int) -> str:
    """One character a value, in order; where there are more than `width`, one for the highest of several neighbours.

    Args:
        heights: In [0, 1]; None for what failed.
        width: Most characters.

    >>> sparkline([0.1, 0.5, None, 1.0], 60)
    '▁▄×█'
    """
    count = min(width, len(heights))
    bounds = [place * len(heights) // count for place in range(count + 1)] if count else [0]
    return "".join(_level(heights[begin:end]) for begin, end in pairwise(bounds))


def _level(neighbours: Sequence[float | None]) -> str:
    known = [height for height in neighbours if height is not None]
    if not known:
        return FAILED
    return LEVELS[min(len(LEVELS) - 1, max(0, math.ceil(max(known) * len(LEVELS)) - 1))]


def shares_of_best(values: Sequence[float | None], maximize: bool) -> list[float | None]:
    """Each value as a share of the best, in [0, 1]: how high it stands in a plot. None stays None.

    >>> shares_of_best([2.0, None, 4.0], maximize=False)
    [1.0, None, 0.5]
    """
    known = [value for value in values if value is not None and value > 0]
    if not known:
        return [None if value is None else 0.0 for value in values]
    best = max(known) if maximize else min(known)
    return [None if v is None else 0.0 if v <= 0 else v / best if maximize else best / v for v in values]
