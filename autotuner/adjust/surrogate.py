"""A small Gaussian process over value indices: what the measured configurations say of their neighbours.

The kernel is mostly additive (a value that helped alone is expected to help in company) and partly joint (what was
seen of a configuration tells most of those like it), with fixed scales: at 10 to 100 observations there is nothing to
fit them on. Rasmussen & Williams, Gaussian Processes for Machine Learning, algorithm 2.1; the additive kernel is
Duvenaud et al., Additive Gaussian Processes, NeurIPS 2011.
"""

import math
from dataclasses import dataclass

import numpy as np

from autotuner.adjust.space import Floats, Rows, Space

_NOISE_RATIO = 0.02  # variance of what a configuration does beyond the model, and of the measurement
_ADDITIVE_SHARE = 0.8  # of the variance
_REACH = 0.5  # of a parameter's range: the distance over which ordered values resemble each other


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of configurations, one entry each, in units of the observations."""

    mean: Floats
    deviation: Floats


def forecast(space: Space, observed: Rows, values: Floats, asked: Rows) -> Forecast:
    """Expect the values of `asked` [m, parameters] from `observed` [n, parameters] and their `values` [n]."""
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    own = _kernel(space, observed, observed) + _NOISE_RATIO * np.eye(len(observed))
    cross = _kernel(space, asked, observed)
    weights = np.linalg.solve(own, np.column_stack([(values - centre) / scale, cross.T]))
    variance = np.maximum(0.0, 1.0 - np.einsum("ij,ji->i", cross, weights[:, 1:]))
    return Forecast(centre + scale * (cross @ weights[:, 0]), scale * np.sqrt(variance))


def _kernel(space: Space, a: Rows, b: Rows) -> Floats:
    """Resemblance [len(a), len(b)], 1 for equal rows."""
    free = [i for i, size in enumerate(space.sizes) if size > 1]
    total, joint = np.zeros((len(a), len(b))), np.ones((len(a), len(b)))
    for i in free:
        alike = _resemblance(space.sizes[i], space.ordered[i])[a[:, i][:, None], b[:, i][None, :]]
        total += alike
        joint *= alike
    additive = total / max(1, len(free))
    return np.asarray(_ADDITIVE_SHARE * additive + (1 - _ADDITIVE_SHARE) * joint, dtype=np.float64)


def _resemblance(size: int, ordered: bool) -> Floats:
    """Resemblance of the values of one parameter [size, size]: Matérn 3/2 over the index, or equality."""
    if not ordered:
        return np.eye(size)
    index = np.arange(size)
    steps = math.sqrt(3) * np.abs(index[:, None] - index[None, :]) / (_REACH * max(1, size - 1))
    return np.asarray((1 + steps) * np.exp(-steps), dtype=np.float64)
