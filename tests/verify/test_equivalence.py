"""The guard: every tier with deviations on both sides of its bound."""

import math
from datetime import UTC, datetime

import pytest
from simulated_machine import Simulated

from autotuner.executors.inline import InlineExecutor
from autotuner.spec.model import EquivalenceRules, Objective, StudySpec
from autotuner.spec.parameters import Parameter
from autotuner.types import Diagnosis, Measurement, Tier, Verdict
from autotuner.verify.equivalence import SAME_OUTPUTS, guard_trial, judge_outputs, tier_of, worst_deviations

RULES = EquivalenceRules()
SPEC = StudySpec(
    name="guard",
    workload=Simulated(kind="simulated"),
    executor=InlineExecutor(),
    parameters={
        "workers": Parameter(choices=(0, 1), default=0, tier=Tier.EXACT),
        "batch": Parameter(choices=(1, 2), default=1, tier=Tier.ROUNDING),
        "dtype": Parameter(choices=("float32", "bfloat16"), default="float32", tier=Tier.PRECISION),
    },
    objectives=(Objective(maximize="throughput_tokens_per_s"),),
)
GOOD = {"output_kl_nats": 1e-4, "top1_agreement_ratio": 0.995, "top5_agreement_ratio": 0.99}


def judge(tier, metrics, spread=None, rules=RULES, rounding_ratio=1e-5):
    return judge_outputs(rules, tier, metrics, spread or {}, rounding_ratio)


class TestTier:
    @pytest.mark.parametrize(
        ("changes", "tier"),
        [
            ({}, Tier.EXACT),
            ({"workers": 1}, Tier.EXACT),
            ({"workers": 1, "batch": 2}, Tier.ROUNDING),
            ({"batch": 2, "dtype": "bfloat16"}, Tier.PRECISION),
        ],
    )
    def test_is_the_loosest_of_what_changed(self, changes, tier):
        assert tier_of(SPEC, {**SPEC.baseline, **changes}) is tier


class TestWorst:
    def test_is_the_largest_error_and_the_smallest_agreement(self):
        samples = {"output_kl_nats": (1.0, 3.0, 2.0), "top1_agreement_ratio": (0.9, 0.8), "latency_s": (1.0,)}
        assert worst_deviations(samples) == {"output_kl_nats": 3.0, "top1_agreement_ratio": 0.8}

    @pytest.mark.parametrize("values", [(math.nan, 1.0), (1.0, math.nan), (0.0, math.nan, 1.0)])
    def test_nan_is_never_lost(self, values):
        assert math.isnan(worst_deviations({"output_error_ratio": values})["output_error_ratio"])

    def test_nothing_of_nothing(self):
        assert worst_deviations({"output_error_ratio": ()}) == {}


class TestExact:
    def test_bit_for_bit(self):
        assert judge(Tier.EXACT, {"output_identical": 1.0, "output_error_ratio": 0.0}).kept
        broken = judge(Tier.EXACT, {"output_identical": 0.0, "output_error_ratio": 1e-9})
        assert not broken.kept
        assert "not bit for bit" in broken.reason

    def test_a_baseline_that_does_not_repeat_itself_cannot_ask_for_it(self):
        metrics = {"output_identical": 0.0, "output_error_ratio": 2.5e-7}
        kept = judge(Tier.EXACT, metrics, {"output_error_ratio": 1e-7})
        assert kept.kept
        assert "not bit for bit repeatable itself" in kept.reason
        assert not judge(Tier.EXACT, metrics, {"output_error_ratio": 8e-8}).kept

    def test_identical_but_unmeasured_error(self):
        assert not judge(Tier.EXACT, {"output_identical": 0.0}, {"output_error_ratio": 1.0}).kept


class TestRounding:
    def test_error_within_the_formats_rounding(self):
        assert judge(Tier.ROUNDING, {"output_error_ratio": 9e-6, **GOOD}).kept
        assert not judge(Tier.ROUNDING, {"output_error_ratio": 1.1e-5, **GOOD}).kept
        assert judge(Tier.ROUNDING, {"output_error_ratio": 9e-3}, rounding_ratio=1e-2).kept

    def test_spread_of_the_baseline_widens_it(self):
        metrics = {"output_error_ratio": 2.9e-5}
        assert judge(Tier.ROUNDING, metrics, {"output_error_ratio": 1e-5}).kept
        assert not judge(Tier.ROUNDING, metrics, {"output_error_ratio": 9e-6}).kept

    def test_the_distributions_must_agree_too(self):
        verdict = judge(Tier.ROUNDING, {"output_error_ratio": 1e-6, **GOOD, "top1_agreement_ratio": 0.98})
        assert not verdict.kept
        assert verdict.reason == "top1_agreement_ratio 0.9800 < 0.9900"


class TestPrecision:
    def test_logits_are_judged_as_distributions(self):
        assert judge(Tier.PRECISION, {"output_error_ratio": 0.5, **GOOD}).kept

    @pytest.mark.parametrize(
        "bad", [{"output_kl_nats": 2e-3}, {"top1_agreement_ratio": 0.98}, {"top5_agreement_ratio": 0.97}]
    )
    def test_each_distribution_rule_counts(self, bad):
        verdict = judge(Tier.PRECISION, {**GOOD, **bad})
        assert not verdict.kept
        assert next(iter(bad)) in verdict.reason

    def test_spread_widens_each(self):
        bad = {"output_kl_nats": 2e-3, "top1_agreement_ratio": 0.98, "top5_agreement_ratio": 0.95}
        spread = {"output_kl_nats": 1e-3, "top1_agreement_ratio": 0.99, "top5_agreement_ratio": 0.98}
        assert judge(Tier.PRECISION, bad, spread).kept

    def test_vectors_are_judged_by_their_error(self):
        assert judge(Tier.PRECISION, {"output_error_ratio": 0.04}).kept
        assert not judge(Tier.PRECISION, {"output_error_ratio": 0.06}).kept


class TestWhatIsNotJudged:
    def test_guard_off(self):
        off = EquivalenceRules(guard=False)
        verdict = judge(Tier.EXACT, {"output_identical": 0.0, "output_error_ratio": math.nan}, rules=off)
        assert verdict.kept
        assert "switched off" in verdict.reason

    @pytest.mark.parametrize("metrics", [{}, {"output_tolerance_ratio": 1e-5}, {"latency_p95_s": 1.0}])
    def test_no_outputs(self, metrics):
        verdict = judge(Tier.EXACT, metrics)
        assert verdict.kept
        assert verdict.reason == "the workload gives no outputs to compare"

    @pytest.mark.parametrize("tier", list(Tier))
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("name", ["output_error_ratio", "output_kl_nats", "top5_agreement_ratio"])
    def test_nan_and_infinity_are_never_kept(self, tier, value, name):
        assert not judge(tier, {"output_identical": 1.0, **GOOD, name: value}).kept

    @pytest.mark.parametrize("name", ["output_error_ratio", "top1_agreement_ratio"])
    def test_a_broken_spread_does_not_open_the_door(self, name):
        bad = {"output_error_ratio": 0.5, **GOOD, "top1_agreement_ratio": 0.5}
        assert not judge(Tier.ROUNDING, bad, {name: math.nan}).kept


class TestGuardTrial:
    def test_other_outputs_break_a_limit(self):
        measurement = Measurement({"output_error_ratio": (0.1,)}, 0, 0, 1, {}, {}, datetime.now(UTC))
        verdict = Verdict({}, {"x": -0.1}, Diagnosis("unknown"))
        guarded = guard_trial(SPEC, {**SPEC.baseline, "batch": 2}, measurement, verdict)
        assert guarded.violations == {"x": -0.1, SAME_OUTPUTS: 1.0}
        assert not guarded.feasible
        assert guard_trial(SPEC, {**SPEC.baseline, "dtype": "bfloat16"}, measurement, verdict).violations
        fine = Measurement({"output_error_ratio": (1e-7,)}, 0, 0, 1, {}, {}, datetime.now(UTC))
        assert guard_trial(SPEC, {**SPEC.baseline, "batch": 2}, fine, verdict) == verdict
