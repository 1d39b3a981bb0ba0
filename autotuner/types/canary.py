"""A new configuration beside the old one, under the same load at the same time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autotuner.types.config import Metrics
from autotuner.types.diagnosis import Estimate


class Ruling(StrEnum):
    """What a canary comes to. Only PASS promotes."""

    PASS = "PASS"  # better where it should be, and proven no worse elsewhere
    FAIL = "FAIL"  # proven worse somewhere, or it fails requests
    INCONCLUSIVE = "INCONCLUSIVE"  # neither was proven
    ERROR = "ERROR"  # nothing can be said: data are missing, stale or no numbers


@dataclass(frozen=True, slots=True)
class Window:
    """One interval of time in which both arms were measured, in turn or together.

    Attributes:
        baseline: `{metric: value}` of what serves today.
        candidate: The same of what may take its place.
        baseline_requests: How many it was asked; 0 where nobody counts.
        baseline_failures: How many of them failed.
        gap: Why numbers of it are missing, for people; empty when none are.
    """

    baseline: Metrics
    candidate: Metrics
    baseline_requests: int = 0
    baseline_failures: int = 0
    candidate_requests: int = 0
    candidate_failures: int = 0
    gap: str = ""


@dataclass(frozen=True, slots=True)
class Guard:
    """A metric that must not get worse.

    Attributes:
        metric: Its name in the windows.
        maximize: Whether more of it is better.
        margin_ratio: A loss up to this is none, >= 0.
    """

    metric: str
    maximize: bool
    margin_ratio: float = 0.02


@dataclass(frozen=True, slots=True)
class CanaryRules:
    """When a canary is judged, and how strictly.

    Attributes:
        least_windows: Fewest usable windows for any verdict but on failing requests.
        most_windows: The end, decided or not.
        unusable_ratio: Share of windows without usable data beyond which nothing can be said.
        failure_ratio: Share of failed requests that is always allowed; what the baseline fails is, too.
        confidence: Of each proof, in (0.5, 1), however often one looks.
    """

    least_windows: int = 16
    most_windows: int = 120
    unusable_ratio: float = 0.2
    failure_ratio: float = 0.001
    confidence: float = 0.99


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """A look at a canary.

    Attributes:
        ruling: PASS, FAIL, INCONCLUSIVE or ERROR.
        reason: One sentence with the deciding number.
        settled: More windows would not change it.
        gains: Factor in the direction of improvement by metric, with the interval of the proof.
        windows: How many could be used.
        unusable: How many could not.
    """

    ruling: Ruling
    reason: str
    settled: bool
    gains: Mapping[str, Estimate] = field(default_factory=dict)
    windows: int = 0
    unusable: int = 0
