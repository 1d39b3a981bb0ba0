"""How much a configuration promises: the improvement that is expected of it, times the chance that it is feasible.

There are two views of the objective, each blind where the other sees. Logarithms know by how much one is better, which
tells neighbours apart, but are led astray by a few that are a hundred times worse, as there are all over a space. Ranks
do not care.

Expected improvement: Jones, Schonlau & Welch, Efficient Global Optimization, 1998. Feasibility as a model of its own:
Gelbart, Snoek & Adams, Bayesian Optimization with Unknown Constraints, 2014.
"""

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from autotuner.adjust import memory
from autotuner.adjust.dimensions import Floats, Rows, Shape
from autotuner.adjust.gaussian import Forecast, GaussianProcess, fit, on_one_thread, prior
from autotuner.adjust.memory import Demand

REFIT_EVERY = 5  # observations: the parameters of the models change slowly, and cost most of a proposal
_NOISE, _NOISE_SPREAD = 0.01, 1.5  # of the objective: what a model cannot explain, and the measurement's own
_LABEL_NOISE, _LABEL_NOISE_SPREAD = 0.02, 0.5
_MOSTLY_FEASIBLE = 0.8  # what is expected of a configuration far from all others, on a scale from -1 to 1
_LABEL_DOUBT = 0.1  # variance of a label: nothing is ever ruled out altogether
_CLEAR_EXCESS, _FAR_BEYOND = 0.2, -3.0  # of a limit: what counts as a failure does; the worst label


@dataclass(frozen=True)
class Seen:
    """What was tried, in order.

    Attributes:
        rows: Indices of values [n, parameters].
        scores: Larger is better; NaN where nothing was measured [n].
        excess: The worst violation of a limit, relative to its bound: kept when <= 0; inf for a failure [n].
        are_logs: The scores are logarithms, so that their differences are ratios.
        demand: What was needed of the memory; None where nothing is known of it, or there is plenty.
    """

    rows: Rows
    scores: Floats
    excess: Floats
    are_logs: bool = True
    demand: Demand | None = None

    @property
    def feasible(self) -> npt.NDArray[np.bool_]:
        """What was measured and kept every limit."""
        return np.isfinite(self.scores) & (self.excess <= 0)

    @property
    def labels(self) -> Floats:
        """1 for clearly feasible, -1 for a failure or 20 % over a limit, down to -3 for what is far beyond."""
        measured = np.isfinite(self.scores) & (self.excess < np.inf)
        excess = np.clip(np.where(measured, self.excess, 0.0), -1e9, 1e9)
        grades = -np.sign(excess) * np.log2(1 + np.abs(excess) / _CLEAR_EXCESS)
        return np.where(measured, np.clip(grades, _FAR_BEYOND, 1), -1.0)


def promise(
    shape: Shape,
    seen: Seen,
    asked: Rows,
    expected: Floats | None = None,
    hoped: Floats | None = None,
    *,
    by_rank: bool = False,
) -> Floats:
    """Log of the expected improvement and of the chance of being feasible, up to a constant [m].

    Args:
        shape: Of the space.
        seen: What was tried.
        asked: What may be proposed [m, parameters].
        expected: Scores that are expected of what was seen, before anything was measured [n].
        hoped: The same, of `asked` [m]; without them nothing is expected.
        by_rank: Look at the ranks of scores, where nothing is expected.
    """
    total = np.zeros(len(asked))
    if seen.feasible.any() and np.isfinite(seen.scores).sum() > 1:
        total += _log_gain(shape, seen, asked, expected, hoped, by_rank)
    if not seen.feasible.all():
        total += _log_chance(shape, seen, asked)
    return total + log_chance_to_fit(shape, seen, asked)


def expected_gain(
    shape: Shape, seen: Seen, asked: Rows, expected: Floats | None = None, hoped: Floats | None = None
) -> Floats:
    """What is gained in the mean by trying each of `asked` [m], in units of the scores; 0 counts where it is worse.

    As `promise`, but a space is taken for as rugged as the model leaves its observations unexplained, be it noise of a
    measurement or peaks that it does not see.
    """
    chance = (0.0 if seen.feasible.all() else _log_chance(shape, seen, asked)) + log_chance_to_fit(shape, seen, asked)
    gain = _log_gain(shape, seen, asked, expected, hoped, by_rank=False, rugged=True)
    return np.asarray(np.exp(gain + chance), dtype=np.float64)


def log_chance_to_fit(shape: Shape, seen: Seen, asked: Rows) -> Floats:
    """Of needing no more memory than there is [m]; 0 where nothing is known."""
    return np.zeros(len(asked)) if seen.demand is None else memory.log_chance_to_fit(shape, seen.demand, asked)


def _log_chance(shape: Shape, seen: Seen, asked: Rows) -> Floats:
    """Of keeping every limit, and not failing."""
    found = _forecast(shape, seen.rows, seen.labels, asked, _Kind.FEASIBLE)
    return log_normal_tail(found.mean / np.sqrt(found.deviation**2 + _LABEL_DOUBT))


def _log_gain(
    shape: Shape,
    seen: Seen,
    asked: Rows,
    expected: Floats | None,
    hoped: Floats | None,
    by_rank: bool,
    rugged: bool = False,
) -> Floats:
    measured = np.isfinite(seen.scores)
    rows, scores, kept = seen.rows[measured], seen.scores[measured], seen.feasible[measured]
    if expected is not None and hoped is not None:
        found = _forecast(shape, rows, scores - expected[measured], asked, _Kind.SCORES)
        ahead = found.mean + hoped - scores[kept].max()
    else:
        kind = _Kind.RANKS if by_rank else _Kind.SCORES
        found = _forecast(shape, rows, scores, asked, kind)
        ahead = found.mean - _viewed(scores, kind)[kept].max()
    deviation = np.hypot(found.deviation, found.unexplained) if rugged else found.deviation
    return log_expected_improvement(ahead / deviation) + np.log(deviation)


def outlook(shape: Shape, seen: Seen, row: Rows, expected: Floats | None = None, hoped: Floats | None = None) -> str:
    """What is expected of one row [1, parameters], in words."""
    measured, words = np.isfinite(seen.scores), []
    if seen.feasible.any() and measured.sum() > 1:
        before, ahead = (
            (expected[measured], float(hoped[0])) if expected is not None and hoped is not None else (0.0, 0.0)
        )
        found = _forecast(shape, seen.rows[measured], seen.scores[measured] - before, row, _Kind.SCORES)
        gap = float(found.mean[0]) + ahead - float(seen.scores[seen.feasible].max())
        ends = [gap + sign * float(found.deviation[0]) for sign in (-1, 1)]
        low, high = (math.exp(min(50.0, end)) for end in ends) if seen.are_logs else ends
        unit = "times as good as the best" if seen.are_logs else "better than the best"
        words.append(f"expected to be {low:.3g} to {high:.3g} {unit}")
    if not seen.feasible.all():
        words.append(f"{math.exp(float(_log_chance(shape, seen, row)[0])):.0%} sure to run and keep the limits")
    return ", ".join(words) or "nothing is known yet"


class _Kind(Enum):
    """What a model is of."""

    SCORES = "scores"
    RANKS = "ranks"
    FEASIBLE = "feasible"


def _forecast(shape: Shape, rows: Rows, values: Floats, asked: Rows, kind: _Kind) -> Forecast:
    """With parameters that were fitted to what was known at the last multiple of `REFIT_EVERY`."""
    known = max(2, len(rows) - len(rows) % REFIT_EVERY)
    viewed = _viewed(values, kind)
    with on_one_thread():
        theta = _fitted(_Known(shape, rows[:known], values[:known], kind))
        narrow, (here, there) = shape.narrowed(rows, asked)
        return GaussianProcess(narrow, here, viewed, theta, *_standard(viewed, kind)).forecast(there)


def _viewed(values: Floats, kind: _Kind) -> Floats:
    return _ranks(values) if kind is _Kind.RANKS else values


def _standard(viewed: Floats, kind: _Kind) -> tuple[float, float]:
    """Centre and scale."""
    return (_MOSTLY_FEASIBLE, 1.0) if kind is _Kind.FEASIBLE else (float(viewed.mean()), float(viewed.std()) or 1.0)


@dataclass(frozen=True, eq=False)
class _Known:
    """What a fit depends on: equal when all of it is."""

    shape: Shape
    rows: Rows
    values: Floats
    kind: _Kind

    @cached_property
    def identity(self) -> tuple[object, ...]:
        return self.shape, self.rows.tobytes(), self.values.tobytes(), self.kind

    def __hash__(self) -> int:
        return hash(self.identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.identity == other.identity


@lru_cache(maxsize=64)
def _fitted(known: _Known) -> Floats:
    """Remembered, but a pure function: a search that is resumed proposes what it would have."""
    noise = (_LABEL_NOISE, _LABEL_NOISE_SPREAD) if known.kind is _Kind.FEASIBLE else (_NOISE, _NOISE_SPREAD)
    viewed = _viewed(known.values, known.kind)
    centre, scale = _standard(viewed, known.kind)
    narrow, (rows,) = known.shape.narrowed(known.rows)
    return fit(narrow, rows, (viewed - centre) / scale, prior(narrow, *noise))


def _ranks(values: Floats) -> Floats:
    """Normal quantiles of the ranks, equals sharing theirs."""
    from scipy.special import ndtri

    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle = last - (counts - 1) / 2
    return np.asarray(ndtri((middle - 0.5) / len(values))[places], dtype=np.float64)


def log_normal_tail(z: Floats) -> Floats:
    """Log of the standard normal distribution function."""
    from scipy.special import log_ndtr

    return np.asarray(log_ndtr(z), dtype=np.float64)


def log_expected_improvement(z: Floats) -> Floats:
    """Log of z Φ(z) + φ(z), exact far into the tail: where all promise little, some still promise more.

    There it is log φ(z) - 2 log |z| (Ament et al., Unexpected Improvements to Expected Improvement, NeurIPS 2023).
    """
    from scipy.special import ndtr

    density = -0.5 * z * z - 0.5 * math.log(2 * math.pi)
    near = np.log(np.maximum(1e-300, z * ndtr(z) + np.exp(density)))
    return np.asarray(np.where(z > -10, near, density - 2 * np.log(np.maximum(1.0, -z))), dtype=np.float64)
