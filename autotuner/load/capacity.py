"""The highest rate at which a server keeps its service level, found by episodes at ever better chosen rates."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from autotuner.load.plan import Episode
from autotuner.load.results import ServiceLevel, attainment_ratio, duration_s, failures, is_kept, is_saturated

RESOLUTION_RATIO = 0.05  # between the highest rate that was kept and the lowest that was not
MAX_EPISODES = 12
MAX_FALLS = 4  # below the first guess, ever larger ones: by 1.5, 3.4, 11 and 58
_STEP = 1.5  # while only one side is known


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found.

    Attributes:
        rate_per_s: The highest rate that was kept; 0 when none was.
        episode: The one that kept it; None when none did.
        episodes: How many it took.
        reason: Why there is none.
    """

    rate_per_s: float
    episode: Episode | None
    episodes: int
    reason: str = ""


def highest_rate(
    measure: Callable[[float], Episode],
    alone: Callable[[], Episode],
    level: ServiceLevel,
    guess_per_s: float,
    max_error_ratio: float = 0.01,
) -> Capacity:
    """Bisect on a log scale until both sides are within 5 %.

    A rate is kept when the share of good requests is proven (see `is_kept`), hardly any fail, and they do not pile up:
    a queue that grows for as long as one looks would break any level a little later.

    Args:
        measure: Runs an episode at a rate.
        alone: Runs one in which requests have the server to themselves: what breaks the level then, no rate can keep.
        level: What must be kept.
        guess_per_s: Where to begin, > 0.
        max_error_ratio: Of the requests may fail: a server that sheds what is too much keeps the level of the rest.
    """
    kept_per_s, broken_per_s = 0.0, math.inf
    rate, best, count = guess_per_s, None, 0
    while count < MAX_EPISODES and broken_per_s > (1 + RESOLUTION_RATIO) * kept_per_s:
        episode = measure(rate)
        count += 1
        few_failed = failures(episode.replies).total() <= max_error_ratio * len(episode.replies)
        if few_failed and is_kept(episode, level) and not is_saturated(episode.replies):
            kept_per_s, best = rate, episode
        else:
            broken_per_s = rate
        if not best:
            if count == 1 and attainment_ratio(alone(), level) < level.share:
                return Capacity(0.0, None, 2, "a request that has the server to itself breaks it")
            if count > MAX_FALLS:
                return Capacity(0.0, None, count + 1, f"tried down to {rate:.2g} requests/s")
            rate /= _STEP**count
        elif math.isinf(broken_per_s):
            rate *= _STEP
        else:
            rate = math.sqrt(kept_per_s * broken_per_s)
    return Capacity(kept_per_s, best, count)


def throughput_per_s(episode: Episode) -> float:
    """Answers in a second, without failures."""
    answered = sum(not reply.answer.failure for reply in episode.replies)
    return answered / max(duration_s(episode), 1e-9)
