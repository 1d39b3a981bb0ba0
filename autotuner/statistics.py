"""Small statistics for noisy timings: pure functions, each with its source.

Only `half_width_ratio` needs numpy, and imports it when called; nothing here needs scipy.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from operator import mul
from typing import Any

from autotuner.metrics import median

_FLAT_WINDOW = 10
_PLATEAU_WINDOW = 8
_PLATEAU_CHANGE_RATIO = 0.05
_RESAMPLES = 400
_SPIKE_MADS = 4.0
_UNBOUNDED_LOG = 50.0  # an interval of a factor e^50 says nothing, and its ends would overflow
# Student's t, 97.5th percentile, for 1 to 10 degrees of freedom; beyond, the last one is a little too wide.
_T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
# Student's t, 95th percentile (two-sided p = 0.1), for 1 to 8 degrees of freedom: all that ten values can have.
_T_95 = (6.3138, 2.9200, 2.3534, 2.1318, 2.0150, 1.9432, 1.8946, 1.8595)


def half_width_ratio(
    samples: Sequence[float], weights: Sequence[float] = (), seed: int = 0, share: float | None = 0.5
) -> float:
    """Half the width of the 95 % interval of a quantile, or of the mean, relative to it.

    Moving-block bootstrap (Künsch 1989): resampling runs of neighbours keeps the autocorrelation that makes intervals
    of single timings far too narrow. Blocks of n^(1/3) samples, 400 resamples, percentile interval.

    Args:
        samples: In order of time.
        weights: Of the samples, as many, for their weighted mean; empty for the quantile.
        seed: Of the resampling; the same samples and seed give the same answer.
        share: Of the quantile: 0.5 for the median; None for the mean.

    Returns:
        A ratio >= 0; inf for fewer than 5 samples, or when the centre is zero or anything is not finite.
    """
    count = len(samples)
    if count < 5:
        return math.inf
    import numpy as np  # here, because a parent that only prints must not pay for it

    values, shares = np.asarray(samples, dtype=float), np.asarray(weights, dtype=float)

    def centre_of(drawn: Any, drawn_shares: Any) -> Any:
        if weights:
            return np.average(drawn, axis=-1, weights=drawn_shares)
        if share is None:
            return drawn.mean(axis=-1)
        return np.median(drawn, axis=-1) if share == 0.5 else np.quantile(drawn, share, axis=-1, method="inverted_cdf")

    centre = float(centre_of(values, shares))
    if centre == 0 or not np.isfinite(values).all():
        return math.inf
    length = round(count ** (1 / 3))
    starts = np.random.default_rng(seed).integers(0, count - length + 1, size=(_RESAMPLES, -(-count // length)))
    places = (starts[:, :, None] + np.arange(length)).reshape(_RESAMPLES, -1)[:, :count]
    low, high = np.quantile(centre_of(values[places], shares[places] if weights else None), (0.025, 0.975))
    return float(high - low) / 2 / abs(centre)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a few values with Student's 95 % interval; their number must have been fixed before looking.

    Returns:
        Mean, lower and upper end; the ends are infinite for a single value.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, -math.inf, math.inf
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half_width = t_975(count - 1) * math.sqrt(variance / count)
    return mean, mean - half_width, mean + half_width


def t_975(freedom: int) -> float:
    """Student's t, 97.5th percentile; beyond 10 degrees of freedom that of 10, a little too wide.

    Args:
        freedom: Degrees of freedom, >= 1.
    """
    return _T_975[min(freedom, len(_T_975)) - 1]


def is_flat(values: Sequence[float]) -> bool:
    """Whether the last ten values show no trend: the slope of least squares is not significant at p = 0.1.

    Args:
        values: In order of time, evenly spaced. With fewer than 3 nothing is known and the answer is False.
    """
    recent = values[-_FLAT_WINDOW:]
    count = len(recent)
    if count < 3 or not all(map(math.isfinite, recent)):
        return False
    middle, mean = (count - 1) / 2, math.fsum(recent) / count
    spread = math.fsum((place - middle) ** 2 for place in range(count))
    slope = math.fsum((place - middle) * (value - mean) for place, value in enumerate(recent)) / spread
    residual = math.fsum((value - mean - slope * (place - middle)) ** 2 for place, value in enumerate(recent))
    standard_error = math.sqrt(residual / (count - 2) / spread)
    rounding = 1e-12 * abs(mean)  # equal values leave a slope of a few units in the last place
    return abs(slope) <= max(_T_95[count - 3] * standard_error, rounding)


def has_plateaued(half_widths: Sequence[float]) -> bool:
    """Whether the noise estimate itself no longer changes, so that more samples will not help.

    The second stop criterion of NVIDIA's nvbench (`stdrel`): the last estimates vary by less than 5 % of their mean.
    Here they are half-widths, which shrink as 1/sqrt(n) while samples are independent; looking at the later half of
    them (at least 8) tells that healthy shrinking from a true plateau, however many there are.

    Args:
        half_widths: One estimate after each further sample, in order.
    """
    recent = half_widths[-max(_PLATEAU_WINDOW, len(half_widths) // 2) :]
    if len(recent) < _PLATEAU_WINDOW or not all(map(math.isfinite, recent)):
        return False
    mean = math.fsum(recent) / len(recent)
    variance = math.fsum((width - mean) ** 2 for width in recent) / len(recent)
    return math.sqrt(variance) <= _PLATEAU_CHANGE_RATIO * mean


def required_requests(violations: int, share: float, confidence: float) -> int:
    """Fewest requests after which so few violations prove a percentile.

    The early-stopping rule of MLPerf LoadGen with d = 0: the smallest n for which at most `violations` of n requests
    above the bound would be seen with probability <= 1 - confidence if only `share` of all requests kept it.

    Args:
        violations: Requests that exceeded the bound, >= 0.
        share: The percentile, 0.95 for p95; in (0, 1).
        confidence: In (0, 1), MLPerf takes 0.99.

    >>> required_requests(0, 0.99, 0.99)
    459
    """
    if violations < 0 or not 0 < share < 1 or not 0 < confidence < 1:
        raise ValueError(f"violations {violations}, share {share}, confidence {confidence}")
    low = high = violations + 1
    while binomial_tail(violations, high, 1 - share) > 1 - confidence:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if binomial_tail(violations, middle, 1 - share) > 1 - confidence:
            low = middle + 1
        else:
            high = middle
    return low


def binomial_tail(most: int, count: int, rate: float) -> float:
    """P(X <= most) for X ~ Binomial(count, rate): its largest term, and from there down to 0 and up to `most`."""
    odds = rate / (1 - rate)
    top = min(most, int((count + 1) * rate))  # starting at a small term could underflow and lose all others
    log_choices = math.lgamma(count + 1) - math.lgamma(top + 1) - math.lgamma(count - top + 1)
    largest = math.exp(min(0.0, log_choices + top * math.log(rate) + (count - top) * math.log1p(-rate)))
    downwards = accumulate((hits / (count - hits + 1) / odds for hits in range(top, 0, -1)), mul, initial=largest)
    upwards = accumulate(((count - hits + 1) / hits * odds for hits in range(top + 1, most + 1)), mul, initial=largest)
    negligible = 1e-16 * largest
    return sum(sum(takewhile(lambda term: term > negligible, terms)) for terms in (downwards, upwards)) - largest


@dataclass(frozen=True, slots=True)
class LogRatioEstimate:
    """The mean of the pairs' log ratios with an interval that stays valid however often one looks.

    Attributes:
        mean: Of ln(candidate / baseline) in the direction of improvement; 0 while there are no pairs.
        low: Lower end of the 1 - alpha confidence sequence; -inf while too few pairs are known.
        high: Upper end; inf likewise.
        pair_sd: Standard deviation of the log ratio of one pair; inf when unknown (fewer than two pairs).
        count: Number of pairs.
    """

    mean: float
    low: float
    high: float
    pair_sd: float
    count: int


def estimate_log_ratio(log_ratios: Sequence[float], launches: Sequence[int], alpha: float = 0.05) -> LogRatioEstimate:
    """Estimate the mean log ratio; stopping as soon as the interval pleases does not break its coverage.

    The interval inverts the scale-invariant t e-process with a standard normal prior on the standardised effect
    (Pérez-Ortiz, Lardy, de Heide, Grünwald 2024, "E-statistics, group invariance and anytime-valid testing"; Wang and
    Ramdas 2024, "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance").
    Two things that timings do and Gaussians do not are met first; that coverage survives is shown by simulation in
    `benchmarks/false_positives.py`. Spikes: values further than 4 median absolute deviations from the median are
    pulled in to there (winsorised). Launches: pairs from the same processes share a launch effect, so the number of
    pairs is divided by Kish's design effect.

    Args:
        log_ratios: One per pair, finite.
        launches: The launch of each pair.
        alpha: One minus the confidence, in (0, 1).
    """
    if len(log_ratios) != len(launches) or not 0 < alpha < 1 or not all(map(math.isfinite, log_ratios)):
        raise ValueError(f"{len(log_ratios)} finite log ratios, {len(launches)} launches, alpha {alpha}")
    count = len(log_ratios)
    if count < 2:
        return LogRatioEstimate(math.fsum(log_ratios), -math.inf, math.inf, math.inf, count)
    tamed = _winsorise(log_ratios)
    mean = math.fsum(tamed) / count
    variance, effective_count = _variance_components(tamed, launches)
    bound = _t_bound(effective_count, alpha)
    half_width = bound * math.sqrt(variance / effective_count) if bound < math.inf else math.inf
    if half_width > _UNBOUNDED_LOG:
        half_width = math.inf
    return LogRatioEstimate(mean, mean - half_width, mean + half_width, math.sqrt(variance), count)


def _winsorise(values: Sequence[float]) -> list[float]:
    """Pull spikes in; ties in more than half of the values leave no scale to judge by, and nothing is pulled."""
    centre = median(values)
    reach = _SPIKE_MADS * median([abs(value - centre) for value in values])
    if reach == 0:
        return list(values)
    return [min(max(value, centre - reach), centre + reach) for value in values]


def _variance_components(values: Sequence[float], launches: Sequence[int]) -> tuple[float, float]:
    """Variance of one value, and the number of independent values that are worth as much as these.

    One-way analysis of variance with unequal groups (Searle, Casella, McCulloch 1992), Kish's design effect
    1 + (m - 1) rho with m the average launch that a value finds itself in.
    """
    values = [value - values[0] for value in values]  # equal values then differ by exactly 0, not by rounding
    groups = defaultdict(list)
    for launch, value in zip(launches, values, strict=True):
        groups[launch].append(value)
    count, mean = len(values), math.fsum(values) / len(values)
    total = math.fsum((value - mean) ** 2 for value in values)
    size = sum(len(group) ** 2 for group in groups.values()) / count
    if len(groups) < 2 or len(groups) == count:
        return total / (count - 1), count
    means = {launch: math.fsum(group) / len(group) for launch, group in groups.items()}
    within = math.fsum((value - means[launch]) ** 2 for launch, value in zip(launches, values, strict=True))
    within_variance = within / (count - len(groups))
    between_mean_square = (total - within) / (len(groups) - 1)
    launch_variance = max(0.0, (between_mean_square - within_variance) * (len(groups) - 1) / (count - size))
    variance = max(total / (count - 1), within_variance + launch_variance)
    correlation = launch_variance / variance if variance > 0 else 0.0
    return variance, count / (1 + (size - 1) * correlation)


def _t_bound(count: float, alpha: float) -> float:
    """The largest |t| that the mixture e-process does not reject; inf while it can reject nothing.

    Solves (1 + n)^(-1/2) [(1 + u) / (1 + u / (1 + n))]^(n/2) = 1 / alpha for u = t^2 / (n - 1).
    """
    scale = 1 + count
    reach = (math.sqrt(scale) / alpha) ** (2 / count)
    if count <= 1 or reach >= scale:
        return math.inf
    return math.sqrt((count - 1) * scale * (reach - 1) / (scale - reach))


def pairs_for_half_width(half_width: float, pair_sd: float, alpha: float = 0.05, most: int = 10_000) -> int | None:
    """Fewest independent pairs whose interval is no wider than this on each side; None if `most` do not suffice."""
    if not (half_width > 0 and math.isfinite(pair_sd)):
        return None
    places = range(2, most + 1)
    place = bisect_left(places, -half_width, key=lambda count: -_t_bound(count, alpha) * pair_sd / math.sqrt(count))
    return places[place] if place < len(places) else None
