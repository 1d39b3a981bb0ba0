"""The guard: does a faster configuration still compute the same?

Workers compare outputs with the baseline's and report deviations as samples; here they are judged. What is allowed
depends on what was changed (the tier), and never asks for more than the baseline shows against itself.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from autotuner.spec.model import EquivalenceRules, StudySpec
from autotuner.types import Config, Equivalence, Measurement, Metrics, Tier, Verdict

DEFAULT_ROUNDING_RATIO = 1e-5  # float32's, the strictest in use, when the worker did not say
SAME_OUTPUTS = "outputs equivalent to the baseline's"

# Deviation -> the worst of several: the smallest agreement, the largest error.
_WORST = {
    "output_identical": min,
    "output_error_ratio": max,
    "output_kl_nats": max,
    "top1_agreement_ratio": min,
    "top5_agreement_ratio": min,
    "loss_error_ratio": max,
    "loss_band_ratio": max,
    "gradient_norm_error_ratio": max,
    "output_tolerance_ratio": max,
}
_MEASURED = frozenset(_WORST) - {"output_tolerance_ratio"}
_SPREAD_FACTOR = 3.0  # deviations within three times those of the baseline against itself are the machine's own
_STRICTNESS = (Tier.EXACT, Tier.ROUNDING, Tier.PRECISION, Tier.FREE)


def worst_deviations(samples: Mapping[str, Sequence[float]]) -> Metrics:
    """The worst of each deviation in a measurement's samples, or in those of several; NaN when any is NaN."""
    return {
        name: math.nan if any(map(math.isnan, samples[name])) else worst(samples[name])
        for name, worst in _WORST.items()
        if samples.get(name)
    }


def tier_of(spec: StudySpec, config: Config) -> Tier:
    """The loosest tier among the parameters in which `config` differs from the baseline; EXACT when in none."""
    changed = [spec.trait(name).tier for name, value in spec.baseline.items() if config[name] != value]
    return max(changed, key=_STRICTNESS.index, default=Tier.EXACT)


def judge_outputs(
    rules: EquivalenceRules, tier: Tier, metrics: Metrics, spread: Metrics, dtype_rounding_ratio: float
) -> Equivalence:
    """Judge a candidate's deviations from the baseline's outputs by the rule of its tier.

    EXACT: bit for bit. ROUNDING: the relative error within what reordering may cost in this number format, and the
    distributions agree. PRECISION: the distributions agree, or where there are none the relative error is allowed.
    FREE: finite, for it computes something else. Of training, ROUNDING bounds the loss at every step, PRECISION the
    loss curve by the band between the baseline's seeds, and both the norms of the gradients. Where chance has a part
    in each step, as with dropout, another cut of the batch draws otherwise: the band is all that can be asked of it.
    Each bound is loosened to three times the baseline's deviation from itself in fresh launches, since a baseline
    that is not deterministic cannot ask it of others.

    Args:
        rules: The study's bounds.
        tier: Of the loosest changed parameter.
        metrics: The candidate's deviations; empty when the workload has no outputs to compare.
        spread: The same of the baseline against its own reference in fresh launches; empty if unknown.
        dtype_rounding_ratio: Relative error that reordering may cause: 1e-5 float32, 1e-2 float16, 5e-2 bfloat16.
    """
    if not rules.guard:
        return Equivalence(True, tier, "the guard is switched off", metrics, judged=False)
    if not _MEASURED & metrics.keys():
        return Equivalence(True, tier, "the workload gives no outputs to compare", metrics, judged=False)
    broken = [name for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        return Equivalence(False, tier, f"{broken[0]} is {metrics[broken[0]]}", metrics)
    if tier is Tier.FREE:
        return Equivalence(True, tier, "it computes something else, as the file asks", metrics, judged=False)
    judged = list(_judge(rules, tier, metrics, spread, dtype_rounding_ratio))
    failed = [text for kept, text in judged if not kept]
    if failed:
        return Equivalence(False, tier, failed[0], metrics)
    return Equivalence(True, tier, judged[0][1] if judged else "nothing to judge by this tier's rule", metrics)


def _judge(
    rules: EquivalenceRules, tier: Tier, metrics: Metrics, spread: Metrics, dtype_rounding_ratio: float
) -> Iterator[tuple[bool, str]]:
    """(kept, sentence) of every rule that applies, the most telling one first."""
    if tier is Tier.EXACT:
        yield _judge_identity(metrics, spread)
        return
    if metrics.keys() & {"loss_error_ratio", "loss_band_ratio"}:
        yield from _judge_training(rules, tier, metrics, spread)
        return
    has_distributions = "output_kl_nats" in metrics
    if tier is Tier.ROUNDING:
        yield from _at_most("output_error_ratio", dtype_rounding_ratio, metrics, spread)
    elif not has_distributions:
        yield from _at_most("output_error_ratio", rules.max_error_ratio, metrics, spread)
    yield from _at_most("output_kl_nats", rules.max_kl_nats, metrics, spread)
    yield from _at_least("top1_agreement_ratio", rules.min_top1_agreement_ratio, metrics, spread)
    yield from _at_least("top5_agreement_ratio", rules.min_top5_agreement_ratio, metrics, spread)


def _judge_training(
    rules: EquivalenceRules, tier: Tier, metrics: Metrics, spread: Metrics
) -> Iterator[tuple[bool, str]]:
    if (tier is Tier.PRECISION or "loss_error_ratio" not in metrics) and "loss_band_ratio" in metrics:
        yield from _at_most("loss_band_ratio", rules.max_loss_band_ratio, metrics, spread)
    else:
        allowed = rules.max_loss_error_ratio if tier is Tier.ROUNDING else rules.max_error_ratio
        yield from _at_most("loss_error_ratio", allowed, metrics, spread)
    yield from _at_most("gradient_norm_error_ratio", rules.max_gradient_norm_error_ratio, metrics, spread)


def _judge_identity(metrics: Metrics, spread: Metrics) -> tuple[bool, str]:
    if metrics.get("output_identical") == 1.0:
        return True, "outputs are bit for bit the baseline's"
    error, own = metrics.get("output_error_ratio", math.inf), spread.get("output_error_ratio", 0.0)
    if own > 0:
        allowed = _SPREAD_FACTOR * own
        how = "within" if error <= allowed else "beyond"
        text = f"output_error_ratio {error:.2g} is {how} {allowed:.2g}, three times the baseline's own {own:.2g}"
        return error <= allowed, text + ": the baseline is not bit for bit repeatable itself"
    return False, f"outputs are not bit for bit the baseline's (output_error_ratio {error:.2g})"


def _at_most(name: str, bound: float, metrics: Metrics, spread: Metrics) -> Iterator[tuple[bool, str]]:
    if name not in metrics:
        return
    own = _SPREAD_FACTOR * spread.get(name, 0.0)
    allowed, whose = max((bound, ""), (own, ", three times the baseline's own spread"))
    sign = "<=" if metrics[name] <= allowed else ">"
    yield metrics[name] <= allowed, f"{name} {metrics[name]:.2g} {sign} {allowed:.2g}{whose}"


def _at_least(name: str, bound: float, metrics: Metrics, spread: Metrics) -> Iterator[tuple[bool, str]]:
    if name not in metrics:
        return
    own = 1 - _SPREAD_FACTOR * (1 - spread.get(name, 1.0))
    allowed, whose = min((bound, ""), (own, ", three times the baseline's own spread"))
    sign = ">=" if metrics[name] >= allowed else "<"
    yield metrics[name] >= allowed, f"{name} {metrics[name]:.4f} {sign} {allowed:.4f}{whose}"


def guard_trial(spec: StudySpec, config: Config, measurement: Measurement, verdict: Verdict) -> Verdict:
    """The search's first look: a trial whose outputs are clearly others breaks a limit, and is not proposed again.

    The baseline's own spread is not known yet; the verification judges again with it.
    """
    metrics = worst_deviations(measurement.samples)
    rounding_ratio = metrics.get("output_tolerance_ratio", DEFAULT_ROUNDING_RATIO)
    if judge_outputs(spec.equivalence, tier_of(spec, config), metrics, {}, rounding_ratio).kept:
        return verdict
    return replace(verdict, violations={**verdict.violations, SAME_OUTPUTS: 1.0})
