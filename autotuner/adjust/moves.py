"""Which configurations a proposal is chosen from: far ones at first, then all over the space, at times near ones."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from autotuner.adjust.dimensions import Rows, Shape
from autotuner.adjust.promise import Seen

LOCAL_EVERY = 2  # each second proposal is a step from the best
OPENING_TRIALS = 3  # far from each other, the baseline included: a model that begins near it stays there
_PAIRS = 500  # of the rows two steps away
_SPREAD_OVER = 500  # rows among which the farthest is looked for
_SAMPLE = 2000  # rows that a model is asked about, besides the neighbours of the best
_LEADERS = 3  # whose neighbours are always among them

Near = Callable[[npt.NDArray[np.int32]], Rows]


def farthest(shape: Shape, tried: Rows, rows: Rows, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Of some of the rows, the one that is least like anything tried."""
    some = _sample(rows, _SPREAD_OVER, rng)
    found: npt.NDArray[np.int32] = some[int(np.argmax(shape.distances(some, tried).min(axis=1)))]
    return found


def steps(seen: Seen, near: Near) -> Rows:
    """What lies next to the best, at every other trial; nothing at the rest."""
    leaders = _leaders(seen)
    if len(seen.rows) % LOCAL_EVERY or not len(leaders):
        return seen.rows[:0]
    return near(leaders[0])


def anywhere(seen: Seen, rows: Rows, near: Near, rng: np.random.Generator) -> Rows:
    """A sample of the rows, with what lies next to the few best."""
    return np.unique(np.concatenate([_sample(rows, _SAMPLE, rng), *map(near, _leaders(seen))]), axis=0)


def close_to(rows: Rows, row: npt.NDArray[np.int32], rng: np.random.Generator) -> Rows:
    """Those of the rows that differ in one parameter, and some of those that differ in two.

    Changing one alone is often forbidden, or worth nothing.
    """
    changes = (rows != row).sum(axis=1)
    return np.concatenate([rows[changes == 1], _sample(rows[changes == 2], _PAIRS, rng)])


def _leaders(seen: Seen) -> Rows:
    """The best feasible ones, the best first."""
    kept = np.nonzero(seen.feasible)[0]
    found: Rows = seen.rows[kept[np.argsort(-seen.scores[kept], kind="stable")][:_LEADERS]]
    return found


def _sample(rows: Rows, count: int, rng: np.random.Generator) -> Rows:
    return rows if len(rows) <= count else rows[rng.choice(len(rows), count, replace=False)]
