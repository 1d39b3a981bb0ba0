"""The highest rate at which a server keeps its service level, found by episodes at ever better chosen rates."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from autotuner.load.plan import Episode
from autotuner.load.results import ServiceLevel, attainment_ratio, duration_s, is_saturated

RESOLUTION_RATIO = 0.05  # between the highest rate that was kept and the lowest that was not
MAX_EPISODES = 12
_STEP = 1.5  # while only one side is known


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found.

    Attributes:
        rate_per_s: The highest rate that was kept; 0 when none was.
        episode: The one that kept it; None when none did.
        episodes: How many it took.
    """

    rate_per_s: float
    episode: Episode | None
    episodes: int


def highest_rate(measure: Callable[[float], Episode], level: ServiceLevel, guess_per_s: float) -> Capacity:
    """Bisect on a log scale until both sides are within 5 %.

    A rate is kept when the share of good requests is reached and requests do not pile up: a queue that grows for as
    long as one looks would break any level a little later.

    Args:
        measure: Runs an episode at a rate.
        level: What must be kept.
        guess_per_s: Where to begin, > 0.
    """
    kept_per_s, broken_per_s = 0.0, math.inf
    rate, best, count = guess_per_s, None, 0
    while count < MAX_EPISODES and broken_per_s > (1 + RESOLUTION_RATIO) * kept_per_s:
        episode = measure(rate)
        count += 1
        if attainment_ratio(episode, level) >= level.share and not is_saturated(episode.replies):
            kept_per_s, best = rate, episode
        else:
            broken_per_s = rate
        if not best:
            rate /= _STEP**count  # far off: ever larger steps
        elif math.isinf(broken_per_s):
            rate *= _STEP
        else:
            rate = math.sqrt(kept_per_s * broken_per_s)
    return Capacity(kept_per_s, best, count)


def throughput_per_s(episode: Episode) -> float:
    """Answers in a second, without failures."""
    answered = sum(not reply.answer.failure for reply in episode.replies)
    return answered / max(duration_s(episode), 1e-9)
