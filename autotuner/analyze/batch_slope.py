"""How a step's time grows with its batch, t(b) = a + c b: what every step pays, and what every item adds.

The share a / (a + c b) is what a larger batch would save; it is free, because the trials were measured anyway. The line
cannot tell launching kernels from reading the weights once a step: both are paid per step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.analyze.least_squares import StraightLine, fit_straight_line, student_975
from autotuner.types import Estimate

_FEWEST_SIZES = 3  # two points always lie on a line


@dataclass(frozen=True, slots=True)
class Line:
    """t(b) = fixed_s + per_item_s b.

    Attributes:
        fixed_s: Seconds that every step takes, >= 0.
        per_item_s: Seconds that every item adds, >= 0.
        misfit_ratio: The largest residual relative to its time.
        covariance: Variance of `fixed_s`, covariance of the two, variance of `per_item_s`.
        degrees: Of freedom behind the covariance.
    """

    fixed_s: float
    per_item_s: float
    misfit_ratio: float
    covariance: tuple[float, float, float] = (0.0, 0.0, 0.0)
    degrees: int = 1

    def time_s(self, batch: float) -> float:
        """Seconds of a step with so many items."""
        return self.fixed_s + self.per_item_s * batch

    def overhead_share(self, batch: float) -> Estimate:
        """The share of a step that does not depend on its batch, a / (a + c b), with its 95 % interval in [0, 1].

        Fieller's interval (1954): the shares s for which a - s (a + c b) is not significantly different from 0. It
        stays right where both parts are uncertain, and says [0, 1] where the times say nothing.
        """
        fixed, both, per_item = self.covariance
        quantile = student_975(self.degrees) ** 2
        time_s = self.time_s(batch)
        square = time_s**2 - quantile * (fixed + 2 * both * batch + per_item * batch**2)
        cross = self.fixed_s * time_s - quantile * (fixed + both * batch)
        constant = self.fixed_s**2 - quantile * fixed
        share = self.fixed_s / time_s
        if square <= 0:
            return Estimate(share, 0.0, 1.0)
        reach = math.sqrt(max(0.0, cross**2 - square * constant))
        low, high = (cross - reach) / square, (cross + reach) / square
        return Estimate(share, min(share, max(0.0, low)), max(share, min(1.0, high)))


def fit_line(times_s: Mapping[float, float]) -> Line | None:
    """Least squares of the relative residuals, {batch: time of a step}; None if no rising line can be said.

    Weighting by 1 / t² keeps the longest step from deciding alone: timing noise is relative. A part that is negative by
    no more than its 95 % interval is zero: the time then is constant, or proportional to the batch.
    """
    if len(times_s) < _FEWEST_SIZES:
        return None
    line = fit_straight_line(list(times_s.items()), relative=True)
    if line is None or line.intercept_interval().high < 0 or line.slope_interval().high < 0:
        return None
    if line.slope >= 0 and line.intercept > 0:
        return Line(line.intercept, line.slope, line.misfit_ratio, line.covariance, line.degrees)
    return _one_part(times_s, line)


def _one_part(times_s: Mapping[float, float], line: StraightLine) -> Line:
    """T = a, or t = c b, whichever of the two was not negative; the other's uncertainty stays."""
    constant = line.slope < 0
    weights = [(1.0 if constant else b) / t for b, t in times_s.items()]  # t = x / w: sum (x w - 1)² is least
    part = math.fsum(weights) / math.fsum(w**2 for w in weights)
    misfit = max(abs(part * w - 1) for w in weights)
    return Line(part if constant else 0.0, 0.0 if constant else part, misfit, line.covariance, line.degrees)
