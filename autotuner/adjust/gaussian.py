"""A Gaussian process over rows of value indices: what is expected of a configuration, and how sure that is.

The kernel is a sum of one term a trait (a value that helped alone is expected to help in company) and of one over all
traits together (what was seen of a configuration tells most of those like it), each Matérn 5/2. How far each trait
reaches, the two shares and the noise are fitted: the maximum of the posterior, with priors that at ten observations say
nearly everything and at a hundred hardly anything.

Rasmussen & Williams, Gaussian Processes for Machine Learning, algorithm 2.1 and section 5.4.1; Duvenaud et al.,
Additive Gaussian Processes, NeurIPS 2011; reaches that grow with the root of the number of traits: Hvarfner et al.,
Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML 2024.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autotuner.adjust.dimensions import Floats, Rows, Shape

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_REACH, _REACH_SPREAD = 1 / 3, 1.0  # times the root of the number of traits; standard deviation of its log
_JOINT, _ADDITIVE, _SHARE_SPREAD = 0.7, 0.3, 0.7  # variances of the two terms, of standardised observations
_JITTER = 1e-6
_ITERATIONS = 15
_BORROWED = Lock()
_BOUND = 3.0  # standard deviations of the prior: further than that nobody looks


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of configurations, one entry each, in units of the observations.

    Attributes:
        mean: Of the configuration's true value.
        deviation: Of that value about the mean.
        unexplained: Deviation of the observations from the model: noise, or what it cannot see.
    """

    mean: Floats
    deviation: Floats
    unexplained: float


@dataclass(frozen=True)
class Prior:
    """Of the logarithms of what is fitted: each trait's reach, both variances and the noise [traits + 3]."""

    centre: Floats
    spread: Floats


def prior(shape: Shape, noise: float, noise_spread: float) -> Prior:
    """For a space; `noise` is a variance relative to the observations'."""
    count = shape.trait_count
    reaches = [math.log(_REACH * math.sqrt(max(1, count)))] * count
    centre = np.array([*reaches, math.log(_JOINT), math.log(_ADDITIVE), math.log(noise)])
    return Prior(centre, np.array([_REACH_SPREAD] * count + [_SHARE_SPREAD] * 2 + [noise_spread]))


def fit(shape: Shape, rows: Rows, values: Floats, believed: Prior) -> Floats:
    """The likeliest parameters [traits + 3] of standardised `values` [n] at `rows` [n, parameters]."""
    from scipy.optimize import minimize

    low, high = (believed.centre + sign * _BOUND * believed.spread for sign in (-1, 1))
    found = minimize(
        _loss, believed.centre, args=(shape, shape.indicators(rows), values, believed), jac=True, method="L-BFGS-B",
        bounds=list(zip(low, high, strict=True)), options={"maxiter": _ITERATIONS},
    )  # fmt: skip
    return np.asarray(found.x, dtype=np.float64)


def _loss(theta: Floats, shape: Shape, known: Floats, values: Floats, believed: Prior) -> tuple[float, Floats]:
    """Minus the log posterior, and its gradient.

    All that depends on two values of one parameter is a table over its values: `known` [n, values], the observations as
    indicators, turns tables into what is between observations and sums over these back into tables.
    """
    count = len(shape.traits)
    joint_variance, additive_variance, noise = np.exp(theta[count:])
    scaled = [(i, table * math.exp(-2 * reach)) for (i, table), reach in zip(shape.traits, theta, strict=False)]
    each = [_matern(table) for _, table in scaled]
    joint, slope = _matern(known @ shape.on_blocks(scaled) @ known.T)
    additive = known @ shape.on_blocks((i, alike / count) for (i, _), (alike, _) in zip(scaled, each, strict=True))
    additive = additive @ known.T
    own = joint_variance * joint + additive_variance * additive
    own[np.diag_indices(len(values))] += noise + _JITTER
    try:
        inverse = np.linalg.inv(np.linalg.cholesky(own))
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    precision = inverse.T @ inverse
    weights = precision @ values
    away = (theta - believed.centre) / believed.spread
    loss = 0.5 * values @ weights - np.log(np.diag(inverse)).sum() + 0.5 * away @ away
    pull = 0.5 * (precision - np.outer(weights, weights))
    jointly = known.T @ (joint_variance * pull * slope) @ known
    apart = known.T @ (additive_variance / count * pull) @ known
    reaches = [
        (table * (shape.block(jointly, i) + steep * shape.block(apart, i))).sum()
        for (i, table), (_, steep) in zip(scaled, each, strict=True)
    ]
    shares = [(pull * joint).sum() * joint_variance, (pull * additive).sum() * additive_variance]
    return float(loss), np.array([*reaches, *shares, np.trace(pull) * noise]) + away / believed.spread


def _matern(squares: Floats) -> tuple[Floats, Floats]:
    """Matérn 5/2 at squared distances, and -2 times its derivative by their logarithm over the squares."""
    root = np.sqrt(5 * np.maximum(squares, 0.0) + 1e-12)
    decay = np.exp(-root)
    return (1 + root + root * root / 3) * decay, 5 / 3 * (1 + root) * decay


@lru_cache(maxsize=1)
def _libraries() -> "ThreadpoolController":
    """The linear algebra of numpy and of scipy, once both are loaded."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def on_one_thread() -> Iterator[None]:
    """For products of a few hundred rows: more threads wait for each other longer than they compute.

    The number is the process's, so two who borrow it at once would leave it at one.
    """
    with _BORROWED, _libraries().limit(limits=1):
        yield


class GaussianProcess:
    """Conditioned on observations; asks are answered in one matrix product."""

    def __init__(self, shape: Shape, rows: Rows, values: Floats, theta: Floats, centre: float, scale: float) -> None:
        """Condition on `values` [n] at `rows` [n, parameters], which are `centre` and `scale` away from standard."""
        from scipy.linalg import cho_solve

        self._shape, self._centre, self._scale = shape, centre, scale
        count = len(shape.traits)
        self._joint, self._additive, noise = np.exp(theta[count:]).astype(np.float32)
        scaled = [(i, table * math.exp(-2 * reach)) for (i, table), reach in zip(shape.traits, theta, strict=False)]
        known = shape.indicators(rows).astype(np.float32)
        self._apart = shape.on_blocks(scaled).astype(np.float32) @ known.T
        self._alike = (
            shape.on_blocks((i, _matern(table)[0] / count) for i, table in scaled).astype(np.float32) @ known.T
        )
        own = self._kernel(known).astype(np.float64)
        own[np.diag_indices(len(rows))] += noise + _JITTER
        self._unexplained = scale * math.sqrt(noise)
        self._root = np.linalg.cholesky(own)
        self._weights = cho_solve((self._root, True), (values - centre) / scale)

    def forecast(self, rows: Rows) -> Forecast:
        """What is expected of `rows` [m, parameters]."""
        from scipy.linalg import solve_triangular

        cross = self._kernel(self._shape.indicators(rows).astype(np.float32))
        known = solve_triangular(self._root, cross.T, lower=True, check_finite=False)
        variance = np.maximum(1e-9, self._joint + self._additive - np.einsum("ij,ij->j", known, known))
        mean = self._centre + self._scale * (cross @ self._weights)
        return Forecast(
            np.asarray(mean, dtype=np.float64), np.asarray(self._scale * np.sqrt(variance)), self._unexplained
        )

    def _kernel(self, indicators: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        root = np.sqrt(5 * np.maximum(indicators @ self._apart, 0) + np.float32(1e-12))
        joint = (1 + root + root * root / 3) * np.exp(-root)
        found: npt.NDArray[np.float32] = self._joint * joint + self._additive * (indicators @ self._alike)
        return found
