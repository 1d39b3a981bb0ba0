"""A straight line through a few noisy points, with Student's intervals: what three of the models stand on.

Weighted least squares and its covariance as in Draper and Smith 1998, "Applied Regression Analysis", chapters 1 and 9.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.types import Estimate

_FEWEST_POINTS = 3  # two points always lie on a line
_MANY_DEGREES = 1000  # from here on Student's t is the normal distribution


@dataclass(frozen=True, slots=True)
class StraightLine:
    """y = intercept + slope x.

    Attributes:
        intercept: At x = 0.
        slope: Per unit of x.
        covariance: Variance of the intercept, covariance of the two, variance of the slope.
        noise_sd: Standard deviation of one point around the line; relative to the line where `relative`.
        relative: Noise grows with y, as it does for timings.
        degrees: Of freedom: points without parameters.
        misfit_ratio: The largest residual relative to its y.
    """

    intercept: float
    slope: float
    covariance: tuple[float, float, float]
    noise_sd: float
    relative: bool
    degrees: int
    misfit_ratio: float

    def at(self, x: float) -> float:
        """The line's y."""
        return self.intercept + self.slope * x

    def prediction(self, x: float) -> Estimate:
        """Where one more point would lie, with its 95 % prediction interval."""
        fixed, both, per_x = self.covariance
        noise = self.noise_sd * (self.at(x) if self.relative else 1.0)
        variance = fixed + 2 * both * x + per_x * x**2 + noise**2
        return self._interval(self.at(x), variance)

    def intercept_interval(self) -> Estimate:
        """The intercept with its 95 % interval."""
        return self._interval(self.intercept, self.covariance[0])

    def slope_interval(self) -> Estimate:
        """The slope with its 95 % interval."""
        return self._interval(self.slope, self.covariance[2])

    def _interval(self, value: float, variance: float) -> Estimate:
        half_width = student_975(self.degrees) * math.sqrt(max(0.0, variance))
        return Estimate(value, value - half_width, value + half_width)


def fit_straight_line(points: Sequence[tuple[float, float]], *, relative: bool) -> StraightLine | None:
    """Least squares of the residuals, or of the relative residuals.

    Args:
        points: (x, y), finite.
        relative: Weigh by 1 / y², so that the longest time does not decide alone; every y must be > 0.

    Returns:
        None for fewer than three points, or all at one x, or a y <= 0 where it must not be.
    """
    if len(points) < _FEWEST_POINTS or len({x for x, _ in points}) < 2 or (relative and min(y for _, y in points) <= 0):
        return None
    weights = [1 / y**2 if relative else 1.0 for _, y in points]
    total = math.fsum(weights)
    mean_x = math.fsum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = math.fsum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = math.fsum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    slope = math.fsum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / spread
    intercept = mean_y - slope * mean_x
    residuals = [y - intercept - slope * x for x, y in points]
    degrees = len(points) - 2
    noise_variance = math.fsum(w * r**2 for w, r in zip(weights, residuals, strict=True)) / degrees
    covariance = (
        noise_variance * (1 / total + mean_x**2 / spread),
        -noise_variance * mean_x / spread,
        noise_variance / spread,
    )
    misfit = max(abs(r) / abs(y) if y else math.inf for r, (_, y) in zip(residuals, points, strict=True))
    return StraightLine(intercept, slope, covariance, math.sqrt(noise_variance), relative, degrees, misfit)


def student_975(degrees: int) -> float:
    """The 97.5th percentile of Student's t: half of a 95 % interval, in standard errors.

    Bisects the finite sum for the distribution function (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    >>> round(student_975(4), 4)
    2.7764
    """
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom")
    degrees = min(degrees, _MANY_DEGREES)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_probability(middle, degrees) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _central_probability(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle))."""
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for place in range(2 + odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (place - 1) / place
        total += term
    series = math.sin(angle) * total
    return (angle + series) * 2 / math.pi if odd else series
