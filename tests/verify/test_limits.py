"""Percentiles are only claimed with enough requests behind them."""

import pytest

from autotuner.spec.expressions import Limit
from autotuner.verify.limits import doubt_percentile, judge_limit, percentile_bound, percentile_is_claimable

LIMIT = Limit.parse("latency_p95_s <= 100 ms")


def judged(latencies, limit=LIMIT, baseline=()):
    return judge_limit(limit, {"latency_s": tuple(latencies)}, {"latency_s": tuple(baseline)})


class TestPercentiles:
    @pytest.mark.parametrize(("share", "needed"), [(0.95, 59), (0.99, 299)])
    def test_claimable_by_the_mlperf_count(self, share, needed):
        assert percentile_is_claimable([0.1] * needed, share)
        assert not percentile_is_claimable([0.1] * (needed - 1), share)

    @pytest.mark.parametrize(("count", "spared"), [(59, 0), (92, 0), (93, 1), (123, 1), (124, 2), (1260, 50)])
    def test_bound_spares_as_many_as_the_table_allows(self, count, spared):
        assert percentile_bound(list(range(count)), 0.95) == count - 1 - spared

    def test_too_few_have_no_bound(self):
        assert percentile_bound([0.1] * 58, 0.95) is None


class TestJudgeLimit:
    def test_holds_exactly_when_the_violations_are_few_enough(self):
        assert judged([0.05] * 59).excess <= 0
        assert judged([0.05] * 91 + [0.2]).excess > 0
        assert judged([0.05] * 92 + [0.2]).excess <= 0

    def test_an_unproven_percentile_is_told(self):
        judgement = judged([0.05] * 91 + [0.2])
        assert (judgement.claimable, judgement.reason) == (True, "p95 is not proven at 95% by 92 requests")

    def test_too_few_requests_fall_back_to_the_plain_quantile(self):
        kept, broken = judged([0.05] * 35 + [0.2]), judged([0.05] * 30 + [0.2] * 6)
        assert (kept.claimable, kept.reason) == (False, "n too small to claim p95: 36 of 59")
        assert kept.excess <= 0 < broken.excess

    def test_an_objective_s_percentile_of_few_requests_is_doubted(self):
        few, many = {"latency_s": (0.1,) * 12}, {"latency_s": (0.1,) * 70}
        doubt = doubt_percentile("latency_p95_s", many, few)
        assert doubt == "latency_p95_s rests on 12 requests an arm, and 59 are needed"
        assert doubt_percentile("latency_p95_s", many, many) == ""
        assert doubt_percentile("latency_p50_s", few, few) == ""

    def test_other_limits_are_plain(self):
        samples = {"throughput_tokens_per_s": (90.0, 100.0, 110.0)}
        limit = Limit.parse("throughput_tokens_per_s >= 1.1 x baseline")
        judgement = judge_limit(limit, samples, {"throughput_tokens_per_s": (95.0,)})
        assert judgement.excess == pytest.approx((104.5 - 100) / 104.5)
        assert judgement.claimable

    def test_relative_percentile(self):
        limit = Limit.parse("latency_p95_s <= 1.2 x baseline")
        assert judged([0.11] * 60, limit, [0.1] * 60).excess <= 0
        assert judged([0.13] * 60, limit, [0.1] * 60).excess > 0

    def test_unmeasured_is_infinitely_far_past_it(self):
        assert judge_limit(LIMIT, {}, {}).excess == float("inf")
