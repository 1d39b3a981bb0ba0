"""The proof of a recommendation as plain values, for every bundle and for programs."""

import dataclasses
import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from autotuner.metrics import format_quantity
from autotuner.types import Recommendation, config_key

FORMAT = "autotune/1"


def as_document(recommendation: Recommendation, forced: tuple[str, ...] = ()) -> dict[str, Any]:
    """The recommendation in plain JSON values; what is not finite is null.

    `gain_ratio` is in the direction of improvement, 1.25 is a quarter better; all quantities are in SI base units.

    Args:
        recommendation: With its proof.
        forced: Why only force has let it through.
    """
    proof = recommendation.verification
    document = {
        "format": FORMAT,
        "code_version": version("autotune-loop"),
        "study": recommendation.study,
        "forced": list(forced),
        "config": dict(recommendation.config),
        "baseline": dict(recommendation.baseline),
        "decision": proof.decision.value,
        "reason": proof.reason,
        "warning": proof.warning,
        "metric": proof.metric,
        "gain_ratio": proof.gain_ratio,
        "gain_interval": list(proof.gain_interval),
        "pairs": [dataclasses.asdict(pair) for pair in proof.pairs],
        "noise_floor_ratio": proof.noise_floor_ratio,
        "equivalence": None if proof.equivalence is None else dataclasses.asdict(proof.equivalence),
        "metrics": dict(proof.metrics),
        "baseline_metrics": dict(proof.baseline_metrics),
        "violations": dict(proof.violations),
        "worst_case": dict(proof.worst_case),
        "contributions": [dataclasses.asdict(contribution) for contribution in proof.contributions],
        "environment": dict(recommendation.environment),
        "record": {
            "study": recommendation.study,
            "trials": [t.number for t in recommendation.trials if _is_winner(t.config, recommendation)],
        },
    }
    plain = _plain(document)
    assert isinstance(plain, dict)
    return plain


def sentences(recommendation: Recommendation, forced: tuple[str, ...]) -> list[str]:
    """The proof for people, a line each: the verdict, the number with its interval, the outputs."""
    proof = recommendation.verification
    low, high = (format_quantity(bound, "x") for bound in proof.gain_interval)
    lines = [f"FORCED: {reason}" for reason in forced]
    lines.append(f"{proof.decision}: {proof.reason}")
    lines.append(f"{proof.metric}: factor {proof.gain_ratio:.4g} (95 %: {low} to {high}, {len(proof.pairs)} pairs)")
    if proof.warning:
        lines.append(f"warning: {proof.warning}")
    if proof.equivalence is not None:
        lines.append(f"outputs: {proof.equivalence.reason}")
    return lines


def _is_winner(config: Mapping[str, Any], recommendation: Recommendation) -> bool:
    return config_key(config) == config_key(recommendation.config)


def _plain(value: Any) -> Any:
    """`value` as JSON gives it back: no tuples, no NaN or infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
