"""What a contest found, in one sentence for a person."""

import math
from collections.abc import Sequence

from autotuner.statistics import LogRatioEstimate, pairs_for_half_width
from autotuner.types import Failure, Pair


def explain_failure(arm: str, failure: Failure) -> str:
    """Who failed, and where to read on."""
    log = f", see {failure.log_path}" if failure.log_path else ""
    return f"the {arm} failed in verification: {failure.kind}: {failure.message}{log}"


def explain_gain(what: str, estimate: LogRatioEstimate, pairs: Sequence[Pair], launches: int) -> str:
    """The gain with its interval, on what it rests, and whether the machine was busy with something else.

    Args:
        what: The metric, or "the gain in" it.
        estimate: Of the mean log ratio, in the direction of improvement.
        pairs: What it rests on.
        launches: Fresh processes of each arm.
    """
    low, gain, high = (format_factor(math.exp(log)) for log in (estimate.low, estimate.mean, estimate.high))
    interval = f" [{low}, {high}]" if math.isfinite(estimate.high) else " (too few pairs for an interval)"
    count = f"{estimate.count} pair{'s' * (estimate.count != 1)}"
    text = f"{what} is {gain}{interval} over {count} in {launches} launch{'es' * (launches != 1)}"
    contended = sum(pair.contended for pair in pairs)
    if 2 * contended > estimate.count:
        text += f"; the machine was busy with something else during {contended} of them"
    return text


def explain_doubt(estimate: LogRatioEstimate, region: float) -> str:
    """How many more pairs would tell, if the gain is what it looks like and the noise stays as it is."""
    distance = abs(abs(estimate.mean) - math.log1p(region))
    wanted = pairs_for_half_width(distance, estimate.pair_sd)
    if wanted is None:
        return "too close to the boundary of what counts as a difference for any number of pairs to tell"
    more = max(1, wanted - estimate.count)
    return f"about {more:,} more pair{'s' if more > 1 else ''} would be needed to tell"


def format_factor(factor: float) -> str:
    """A factor for a person: "1.93x", near 1 with one more digit, "1.012x"."""
    return f"{factor:.3f}x" if abs(factor - 1) < 0.1 else f"{factor:.2f}x"
