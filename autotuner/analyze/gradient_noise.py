"""The gradient noise scale: how large a batch may grow before more samples a step stop to help.

McCandlish, Kaplan, Amodei and OpenAI 2018, "An Empirical Model of Large-Batch Training": the simple noise scale
B = tr(Sigma) / |G|^2 (equation 2.9), from the squared norms of gradients at two batch sizes (appendix A.1).
"""

import math
from collections.abc import Sequence

from autotuner.analyze.least_squares import student_975
from autotuner.types import Estimate

_FEWEST_STEPS = 12  # fewer tell too little of how much steps differ
_RESAMPLES = 2000
_CLEAR_SDS = 4.0  # of the gradient above zero: of what is told nearer to it, most would be luck, and far too small


def noise_scale(
    small_batch: int,
    big_batch: int,
    small_sq_norms: Sequence[float],
    big_sq_norms: Sequence[float],
    seed: int = 0,
) -> Estimate | None:
    """The noise scale in samples, with its 95 % interval.

    E|G_B|^2 = |G|^2 + tr(Sigma) / B, so that two batch sizes give unbiased estimates of both terms (equations A.2 and
    A.3). Each alone is noisy and may be negative: they are averaged over steps before they are divided. The interval is
    a percentile bootstrap over runs of neighbouring steps (Künsch 1989), whose gradients are alike.

    Args:
        small_batch: Samples of a micro batch.
        big_batch: Samples of the global batch, > `small_batch`.
        small_sq_norms: |G|^2 of micro batches in order; one or more for every step, the same number for each.
        big_sq_norms: |G|^2 of the global batch, one a step.
        seed: Of the resampling.

    Returns:
        None when it cannot be told: fewer than 12 steps, or a norm that is not finite. Where the noise hides |G|^2,
        which then is less than four standard errors above zero, the scale is only known to be large: `value` and
        `high` are infinite, and `low` takes |G|^2 at the upper end of its interval. More steps help.

    Raises:
        ValueError: The batches are in the wrong order, or the micro batches cannot be divided among the steps.
    """
    steps = len(big_sq_norms)
    if not 0 < small_batch < big_batch or len(small_sq_norms) % max(1, steps) or len(small_sq_norms) < steps:
        raise ValueError(f"batches {small_batch} and {big_batch}, {len(small_sq_norms)} norms for {steps} steps")
    if steps < _FEWEST_STEPS or not all(map(math.isfinite, (*small_sq_norms, *big_sq_norms))):
        return None
    size = len(small_sq_norms) // steps
    small = [math.fsum(small_sq_norms[i : i + size]) / size for i in range(0, steps * size, size)]
    pairs = [*zip(small, big_sq_norms, strict=True)]
    signals = [(big_batch * big - small_batch * small) / (big_batch - small_batch) for small, big in pairs]
    noises = [(small - big) / (1 / small_batch - 1 / big_batch) for small, big in pairs]
    return _ratio(noises, signals, seed)


def _ratio(noises: Sequence[float], signals: Sequence[float], seed: int) -> Estimate:
    """Mean over mean, both >= 0, with its interval; open above when the lower one is not clearly above zero."""
    import numpy as np  # here, because a parent that only prints must not pay for it

    steps = len(signals)
    length = round(steps ** (1 / 3))
    blocks = -(-steps // length)
    starts = np.random.default_rng(seed).integers(0, steps - length + 1, size=(_RESAMPLES, blocks))
    places = (starts[:, :, None] + np.arange(length)).reshape(_RESAMPLES, -1)[:, :steps]
    above, below = (np.asarray(values)[places].mean(axis=1) for values in (noises, signals))
    mean = math.fsum(signals) / steps
    tail = _tail(blocks)
    if not below.min() > 0 or mean < _CLEAR_SDS * below.std():
        largest = float(np.quantile(below, 1 - tail))
        least = math.fsum(noises) / steps / largest if largest > 0 else 0.0
        return Estimate(math.inf, max(0.0, least), math.inf)
    low, high = np.quantile(above / below, (tail, 1 - tail))
    value = math.fsum(noises) / steps / mean
    return Estimate(max(0.0, value), max(0.0, float(low)), max(0.0, float(high)))


def _tail(blocks: int) -> float:
    """The share of resamples beyond each end of a 95 % interval; a plain 2.5 % is too narrow for few blocks.

    Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 5.3: the expanded percentile interval.
    """
    reach = math.sqrt(blocks / (blocks - 1)) * student_975(blocks - 1)
    return math.erfc(reach / math.sqrt(2)) / 2
