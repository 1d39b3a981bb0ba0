"""When requests are due: the same seed gives the same times, whatever is measured."""

import math
import random
from typing import Literal, TypeAlias

Arrivals: TypeAlias = Literal["poisson", "constant"]


def due_times_s(arrivals: Arrivals, rate_per_s: float, count: int, seed: int) -> list[float]:
    """Times of `count` requests, the first at 0.

    Args:
        arrivals: "poisson": gaps are drawn from the exponential distribution, as of users who know nothing of each
            other; "constant": all gaps are alike.
        rate_per_s: Mean requests in a second, > 0.
        count: How many.
        seed: Of the gaps. Gaps scale with the rate: the same seed gives the same pattern at every rate.
    """
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise ValueError(f"rate_per_s {rate_per_s}")
    if arrivals == "constant":
        return [number / rate_per_s for number in range(count)]
    draw = random.Random(f"arrivals/{seed}")
    times_s, now_s = [], 0.0
    for _ in range(count):
        times_s.append(now_s)
        now_s += draw.expovariate(rate_per_s)
    return times_s
