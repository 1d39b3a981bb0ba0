"""Limits in verification: a percentile is only claimed with enough requests behind it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotuner.metrics import metric, value_of
from autotuner.spec.expressions import Limit
from autotuner.statistics import required_requests

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class LimitJudgement:
    """Whether a limit holds.

    Attributes:
        excess: Relative to the bound; kept when <= 0.
        claimable: False when a percentile rests on too few requests, and its plain quantile was judged instead.
        reason: Empty, or what a reader must know, "n too small to claim p95: 36 of 59".
    """

    excess: float
    claimable: bool = True
    reason: str = ""


def percentile_is_claimable(samples: Sequence[float], share: float) -> bool:
    """Whether so many requests could prove a percentile at all, if none of them exceeded the bound."""
    return len(samples) >= required_requests(0, share, CONFIDENCE)


def doubt_percentile(name: str, *arms: Mapping[str, Sequence[float]]) -> str:
    """That an objective's percentile rests on too few requests to be called one; empty when it does not."""
    row = metric(name)
    if row.reduction not in ("p95", "p99"):
        return ""
    share, fewest = int(row.reduction[1:]) / 100, min((arm.get(row.samples, ()) for arm in arms), key=len)
    if percentile_is_claimable(fewest, share):
        return ""
    return f"{name} rests on {len(fewest)} requests an arm, and {required_requests(0, share, CONFIDENCE)} are needed"


def percentile_bound(samples: Sequence[float], share: float) -> float | None:
    """The value that the percentile does not exceed with 95 % confidence; None when there are too few requests.

    The order statistic that MLPerf's early-stopping rule picks: a bound above it holds, since few enough requests
    exceeded it for their number. Pool raw latencies over windows first; a mean of percentiles proves nothing.

    Args:
        samples: Raw values.
        share: The percentile, 0.95 for p95.
    """
    if not percentile_is_claimable(samples, share):
        return None
    counts = range(len(samples))
    spared = bisect_right(counts, len(samples), key=lambda hits: required_requests(hits, share, CONFIDENCE)) - 1
    return sorted(samples, reverse=True)[spared]


def judge_limit(
    limit: Limit, samples: Mapping[str, Sequence[float]], baseline_samples: Mapping[str, Sequence[float]]
) -> LimitJudgement:
    """Judge one limit on the pooled raw samples of a verification.

    Args:
        limit: What must not be passed.
        samples: The candidate's, by sample name.
        baseline_samples: The baseline's, for a limit in terms of its value.
    """
    row = metric(limit.metric)
    value, baseline_value = value_of(row.name, samples), value_of(row.name, baseline_samples)
    if limit.op != "<=" or not row.reduction.startswith("p"):
        return LimitJudgement(limit.excess(value, baseline_value))
    share = int(row.reduction[1:]) / 100
    raw = samples.get(row.samples, ())
    bound = percentile_bound(raw, share)
    if bound is None:
        needed = required_requests(0, share, CONFIDENCE)
        reason = f"n too small to claim {row.reduction}: {len(raw)} of {needed}"
        return LimitJudgement(limit.excess(value, baseline_value), claimable=False, reason=reason)
    excess = limit.excess(bound, baseline_value)
    reason = f"{row.reduction} is not proven at {CONFIDENCE:.0%} by {len(raw)} requests" if excess > 0 else ""
    return LimitJudgement(excess, reason=reason)
