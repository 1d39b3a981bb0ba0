"""How sure it is that a configuration fits into memory: a model of the measured peaks.

Memory grows with some parameters by a power between 0 and 1 of their value, and with the rest as a Gaussian process
finds. What ran out of memory says only that it needs more than there is: it counts with what the model expects of it,
or with a tenth more than there is where that is less.

Censored observations: Hutter, Hoos & Leyton-Brown, Bayesian Optimization With Censored Response Data, 2013.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from autotuner.adjust.dimensions import Floats, Rows, Shape
from autotuner.adjust.gaussian import Forecast, GaussianProcess, fit, on_one_thread, prior

_POWER, _POWER_SPREAD = 0.6, 0.25  # of a value that memory grows with; standard deviation
_OTHERS = 0.5  # standard deviation of the log of memory by all other parameters
_NOISE, _NOISE_SPREAD = 0.003, 1.0  # relative to the square of that
_CENSORED = math.log(1.1)
_PASSES = 2


@dataclass(frozen=True)
class Demand:
    """What was needed.

    Attributes:
        rows: Of the trials of which something is known [n, parameters].
        logs: Log of the peak over what there is [n]; inf for what ran out of memory.
        drivers: `{index of a parameter: logs of its values}`, of those that memory grows with.
    """

    rows: Rows
    logs: Floats
    drivers: Mapping[int, Floats] = field(default_factory=dict)

    @property
    def measured(self) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Which are known and not only censored."""
        return np.isfinite(self.logs)


def forecast_demand(shape: Shape, known: Demand, asked: Rows) -> Forecast:
    """Of the log of what `asked` [m, parameters] need over what there is."""
    features, wanted = _features(known.drivers, known.rows), _features(known.drivers, asked)
    logs = np.where(known.measured, known.logs, _CENSORED)
    narrow, (here, there) = shape.narrowed(known.rows, asked)
    believed = prior(narrow, _NOISE, _NOISE_SPREAD)
    with on_one_thread():
        for _ in range(_PASSES):
            powers, level = _line(features, logs)
            left = logs - level - features @ powers
            theta = fit(narrow, here, left / _OTHERS, believed)
            process = GaussianProcess(narrow, here, left, theta, 0.0, _OTHERS)
            expected = process.forecast(here).mean + level + features @ powers
            logs = np.where(known.measured, known.logs, np.maximum(_CENSORED, expected))
        found = process.forecast(there)
    return Forecast(found.mean + level + wanted @ powers, found.deviation, found.unexplained)


def _features(drivers: Mapping[int, Floats], rows: Rows) -> Floats:
    """Logs of the values that memory grows with [n, drivers]."""
    if not drivers:
        return np.zeros((len(rows), 0))
    return np.stack([logs[rows[:, i]] for i, logs in drivers.items()], axis=1)


def _line(features: Floats, logs: Floats) -> tuple[Floats, float]:
    """Powers and level by ridge regression towards what is believed of powers."""
    centre = features.mean(axis=0)
    away = features - centre
    toward = logs - logs.mean() - away @ np.full(features.shape[1], _POWER)
    ridge = (_OTHERS / _POWER_SPREAD) ** 2 * np.eye(features.shape[1])
    powers = _POWER + np.linalg.solve(away.T @ away + ridge, away.T @ toward)
    return powers, float(logs.mean() - centre @ powers)
