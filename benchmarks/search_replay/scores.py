"""How good searches were, each held against exact random search without replacement."""

import math
import random
from collections.abc import Callable, Sequence

from search_replay.arms import Run
from search_replay.landscape import Landscape

RESAMPLES = 2000


def evaluations_to(run: Run, target: float) -> int | None:
    """Evaluations up to the first at or below the target; None if it was missed."""
    return next((n for n, mean in enumerate(run.means, 1) if mean is not None and mean <= target), None)


def expected_evaluations(runs: Sequence[Run], target: float) -> float:
    """ERT: all evaluations of all runs over the number of runs that reached the target; inf when none did."""
    reached = [evaluations_to(run, target) for run in runs]
    spent = sum(len(run.means) if count is None else count for run, count in zip(runs, reached, strict=True))
    hits = sum(count is not None for count in reached)
    return spent / hits if hits else math.inf


def random_evaluations_to(landscape: Landscape, target: float) -> float:
    """Of random search without replacement: (N + 1) / (K + 1) for K of N that are good enough."""
    good = sum(mean <= target for mean in landscape.means.values())
    return (len(landscape.repeats) + 1) / (good + 1)


def best_after(run: Run, count: int, optimum: float) -> float:
    """Best mean of the first evaluations over the optimum; inf while all failed."""
    found = [mean for mean in run.means[:count] if mean is not None]
    return min(found) / optimum if found else math.inf


def random_best_after(landscape: Landscape, count: int) -> float:
    """Of random search: exp of the expected log of best over optimum, exactly, given that not all failed.

    The best of n drawn from N is the j-th best with probability C(N - j, n - 1) / C(N, n).
    """
    ordered, size = sorted(landscape.means.values()), len(landscape.repeats)
    count = min(count, size)
    log_all = _log_choose(size, count)
    total = weight = 0.0
    for place, mean in enumerate(ordered, 1):
        if size - place < count - 1:
            break
        chance = math.exp(_log_choose(size - place, count - 1) - log_all)
        total, weight = total + chance * math.log(mean / ordered[0]), weight + chance
    return math.exp(total / weight)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def geometric_mean(values: Sequence[float]) -> float:
    """Inf where one is."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if all(map(math.isfinite, values)) else math.inf


def interval(runs: Sequence[Run], value: Callable[[Sequence[Run]], float], seed: int = 0) -> tuple[float, float]:
    """Of a value of the runs: 95 %, percentile bootstrap over seeds (Efron 1979)."""
    draws = random.Random(seed)
    found = sorted(value(draws.choices(runs, k=len(runs))) for _ in range(RESAMPLES))
    return found[int(0.025 * RESAMPLES)], found[int(0.975 * RESAMPLES)]
