"""Configurations against each other: fresh processes, interleaved rounds in random order, everything kept."""

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from training_cases.tools import replay

RESAMPLES = 4000
Replays = dict[str, list[dict[str, Any]]]


def race(
    case: str, arms: Mapping[str, Mapping[str, Any]], rounds: int, seconds: float, tell: Callable[[str], None]
) -> Replays:
    """Replay every arm once a round; all arms of a round see the data in the same order. One that fails drops out."""
    found: Replays = {name: [] for name in arms}
    order = random.Random(case)
    for number in range(rounds):
        for name in order.sample(list(arms), len(arms)):
            if failure(found[name]) is None:
                found[name].append(replay(case, arms[name], seconds, seed=1000 + number))
                tell(f"  round {number + 1}, {name}: {speed(found[name][-1])}")
    return found


def speed(answer: Mapping[str, Any]) -> str:
    """An answer in words."""
    return f"{answer['samples_per_s']:.0f} samples/s" if "samples_per_s" in answer else f"FAILED: {answer['failed']}"


def failure(answers: Sequence[Mapping[str, Any]]) -> str | None:
    """Why an arm cannot be run; None when it can."""
    return next((answer["failed"] for answer in answers if "failed" in answer), None)


def rates(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Samples per second of each round."""
    return [answer["samples_per_s"] for answer in answers if "samples_per_s" in answer]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median of the rounds' ratios, with a 95 % percentile-bootstrap interval (Efron 1979).

    >>> ratio([2.0, 4.0], [1.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    draws = random.Random(0)
    medians = sorted(median(draws.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return median(ratios), medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]
