"""How sure it is that a configuration fits into memory: a model of the measured peaks.

Memory is what a configuration needs anyway, and what grows in proportion to each of the parameters that drive it and to
their products: weights, and activations or cache entries of every item. How much of both hangs on all other parameters,
which a Gaussian process over them says. Whoever wrote the file chose ranges in which memory ends somewhere: that is all
that is believed of a slope before it was measured.

What ran out of memory says only that it needs more than there is. It counts for what that adds to what the measured
ones say of it: the mean and the variance of a normal distribution cut off below (one step of expectation propagation,
Rasmussen & Williams, Gaussian Processes for Machine Learning, section 3.6).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from autotuner.adjust.dimensions import Floats, Rows, Shape
from autotuner.adjust.gaussian import on_one_thread

_LEVEL, _SLOPE = 0.5, 1.0  # of what there is: expected need, and its growth over the whole range of a driver
_LEVEL_SPREAD, _SLOPE_SPREAD = 0.5, 1.0  # that all configurations share, so that no number of alike ones makes it sure
# Of what is fitted, as logarithms: how much other parameters change of the level and of the slope, and how unlike one
# such parameter makes two configurations; and their standard deviations.
_BELIEVED = (math.log(0.2), math.log(1.0), math.log(0.15))
_SPREADS = (0.7, 1.2, 1.0)
_NOISE, _LEAST_NOISE = 0.01, 0.003  # relative, and of what there is
_LOST_NOISE = 0.1  # of what ran out of memory: others may have had a part of it, or it was in pieces
_ITERATIONS = 8
_REFIT_EVERY = 5  # measured trials
_FITTED = 48  # observations that parameters are fitted to: those nearest to the end of the memory
_SILENT = 1e6  # variance of what says nothing


@dataclass(frozen=True, eq=False)
class Demand:
    """What was needed.

    Attributes:
        rows: Of the trials of which something is known [n, parameters].
        ratios: Peak over what there is [n]; inf for what ran out of memory.
        drivers: `{index of a parameter: its values over the largest}`, of those that memory grows with.
    """

    rows: Rows
    ratios: Floats
    drivers: Mapping[int, Floats] = field(default_factory=dict)

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """Which are known and not only censored."""
        return np.isfinite(self.ratios)


def log_chance_to_fit(shape: Shape, known: Demand, asked: Rows) -> Floats:
    """Of `asked` [m, parameters] needing no more than there is [m]."""
    from scipy.special import log_ndtr

    model = _model(shape, known)
    with on_one_thread():
        mean, deviation = model.forecast(_Inputs.of(shape, known.drivers, asked))
    return np.asarray(log_ndtr((1 - mean) / deviation), dtype=np.float64)


@dataclass(frozen=True)
class _Inputs:
    """Rows as the model sees them.

    Attributes:
        drivers: Shares of their largest values [n, drivers].
        places: Where the values of all other parameters lie [n, others]; of names their numbers.
        ordered: Which of those are numbers [others].
    """

    drivers: Floats
    places: Floats
    ordered: tuple[bool, ...]

    @classmethod
    def of(cls, shape: Shape, drivers: Mapping[int, Floats], rows: Rows) -> "_Inputs":
        others = {i: each for i, each in enumerate(shape.dimensions) if each.size > 1 and i not in drivers}
        return cls(
            _columns([values[rows[:, i]] for i, values in drivers.items()], len(rows)),
            _columns([np.array(each.places[0])[rows[:, i]] for i, each in others.items()], len(rows)),
            tuple(each.ordered for each in others.values()),
        )

    def unlike(self, them: "_Inputs") -> Floats:
        """Squared distances by parameter [others, n, m]: 1 between two names, and between the ends of a range."""
        gaps = self.places.T[:, :, None] - them.places.T[:, None, :]
        return np.where(np.array(self.ordered, dtype=np.bool_)[:, None, None], gaps**2, gaps != 0)

    def growth(self, them: "_Inputs") -> Floats:
        """Of every set of drivers the product of theirs in both, summed [n, m]."""
        pairs = 1 + self.drivers[:, None, :] * them.drivers[None, :, :]
        return np.asarray(pairs.prod(axis=2) - 1, dtype=np.float64)

    @property
    def mean(self) -> Floats:
        """What is expected before anything was measured [n]."""
        return np.asarray(_LEVEL + _SLOPE * ((1 + self.drivers).prod(axis=1) - 1), dtype=np.float64)


def _columns(each: Sequence[Floats], count: int) -> Floats:
    return np.stack(each, axis=1) if each else np.zeros((count, 0))


def _kernel(theta: Floats, unlike: Floats, growth: Floats) -> Floats:
    level, slope = np.exp(2 * theta[:2])
    alike = np.exp(-np.tensordot(np.exp(theta[2:]), unlike, axes=1))
    shared = _LEVEL_SPREAD**2 + _SLOPE_SPREAD**2 * growth
    return np.asarray(shared + (level + slope * growth) * alike, dtype=np.float64)


@dataclass(frozen=True)
class _Model:
    """Conditioned on what was seen."""

    inputs: _Inputs
    theta: Floats
    root: npt.NDArray[Any]
    weights: Floats

    @classmethod
    def of(cls, inputs: _Inputs, theta: Floats, ratios: Floats, variances: Floats) -> "_Model":
        kernel = _kernel(theta, inputs.unlike(inputs), inputs.growth(inputs))
        root = np.linalg.cholesky(kernel + np.diag(variances))
        weights = np.linalg.solve(root.T, np.linalg.solve(root, ratios - inputs.mean))
        return cls(inputs, theta, root, np.asarray(weights, dtype=np.float64))

    def forecast(self, asked: _Inputs) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the ratio [m], [m]."""
        from scipy.linalg import solve_triangular

        cross = _kernel(self.theta, asked.unlike(self.inputs), asked.growth(self.inputs))
        level, slope = np.exp(2 * self.theta[:2])
        own = _LEVEL_SPREAD**2 + level + (_SLOPE_SPREAD**2 + slope) * ((1 + asked.drivers**2).prod(axis=1) - 1)
        known = solve_triangular(self.root, cross.T, lower=True, check_finite=False)
        variance = np.maximum(_LEAST_NOISE**2, own - np.einsum("ij,ij->j", known, known))
        return asked.mean + cross @ self.weights, np.sqrt(variance)


@lru_cache(maxsize=8)
def _model(shape: Shape, known: Demand) -> _Model:
    """Remembered, for a proposal asks several times."""
    seen, lost = known.rows[known.measured], known.rows[~known.measured]
    ratios = known.ratios[known.measured]
    variances = (_NOISE * ratios + _LEAST_NOISE) ** 2
    fitted = max(1, len(seen) - len(seen) % _REFIT_EVERY)
    drivers = tuple((i, tuple(values.tolist())) for i, values in known.drivers.items())
    with on_one_thread():
        theta = _fitted(shape, drivers, seen[:fitted].tobytes(), ratios[:fitted].tobytes())
        model = _Model.of(_Inputs.of(shape, known.drivers, seen), theta, ratios, variances)
        if not len(lost):
            return model
        values, doubts = _more_than_there_is(*model.forecast(_Inputs.of(shape, known.drivers, lost)))
        together = _Inputs.of(shape, known.drivers, np.concatenate([seen, lost]))
        return _Model.of(together, theta, np.concatenate([ratios, values]), np.concatenate([variances, doubts]))


@lru_cache(maxsize=64)
def _fitted(shape: Shape, drivers: tuple[tuple[int, tuple[float, ...]], ...], rows: bytes, ratios: bytes) -> Floats:
    """By content: a search that is resumed proposes what it would have."""
    seen = np.frombuffer(ratios)
    table = np.frombuffer(rows, dtype=np.int32).reshape(len(seen), -1)
    inputs = _Inputs.of(shape, {i: np.array(values) for i, values in drivers}, table)
    return _fit(inputs, seen, (_NOISE * seen + _LEAST_NOISE) ** 2)


def _more_than_there_is(mean: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """The observations, and their variances, that say as much as that each is more than 1."""
    from scipy.special import log_ndtr

    behind = (1 - mean) / deviation
    hazard = np.exp(-0.5 * behind**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(-behind))
    kept = np.clip(1 + behind * hazard - hazard**2, 1e-3, 1 - 1e-6)  # of the variance
    variances = np.minimum(_SILENT, deviation**2 * kept / (1 - kept)) + _LOST_NOISE**2
    values = mean + deviation * hazard / (1 - kept)
    return np.asarray(values, dtype=np.float64), np.asarray(variances, dtype=np.float64)


def _fit(inputs: _Inputs, ratios: Floats, variances: Floats) -> Floats:
    """The likeliest parameters [2 + other parameters], with a prior."""
    from scipy.optimize import minimize

    some = np.argsort(np.abs(ratios - 1), kind="stable")[:_FITTED]
    unlike, growth = inputs.unlike(inputs)[:, some][:, :, some], inputs.growth(inputs)[some][:, some]
    left, noise = (ratios - inputs.mean)[some], np.diag(variances[some])
    centre = np.array([*_BELIEVED[:2], *[_BELIEVED[2]] * len(unlike)])
    spread = np.array([*_SPREADS[:2], *[_SPREADS[2]] * len(unlike)])

    def loss(theta: Floats) -> float:
        try:
            root = np.linalg.cholesky(_kernel(theta, unlike, growth) + noise)
        except np.linalg.LinAlgError:
            return 1e10
        scaled = np.linalg.solve(root, left)
        away = (theta - centre) / spread
        return float(0.5 * scaled @ scaled + np.log(np.diag(root)).sum() + 0.5 * away @ away)

    bounds = list(zip(centre - 3 * spread, centre + 3 * spread, strict=True))
    found = minimize(loss, centre, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ITERATIONS})
    return np.asarray(found.x, dtype=np.float64)
