"""The judge of a canary: what passes, and everything that must not."""

import math
import random
from dataclasses import replace

import pytest

from autotuner.analyze.canary import judge_canary
from autotuner.types import CanaryRules, Guard, Ruling, Window

P95, RATE = "latency_p95_s", "throughput_requests_per_s"
AIM, GUARDS = Guard(P95, maximize=False), [Guard(RATE, maximize=True)]
RULES = CanaryRules()


def windows(count, p95=1.0, rate=1.0, noise=0.02, seed=0, **counts):
    """So many, with factors on the candidate's true values."""
    draw = random.Random(seed)

    def arm(*factors):
        return {
            P95: 0.2 * factors[0] * draw.lognormvariate(0, noise),
            RATE: 50 * factors[1] * draw.lognormvariate(0, noise),
        }

    return [Window(arm(1, 1), arm(p95, rate), **counts) for _ in range(count)]


def judged(found, rules=RULES):
    return judge_canary(found, AIM, GUARDS, rules)


def test_what_is_better_and_nowhere_worse_passes():
    verdict = judged(windows(40, p95=0.9))
    assert (verdict.ruling, verdict.settled) == (Ruling.PASS, True)
    gain = verdict.gains[P95]
    assert 1 < gain.low < 1 / 0.9 < gain.high
    assert verdict.reason.startswith(f"{P95} is better: 1.1")


@pytest.mark.parametrize(
    ("factors", "ruling", "words"),
    [
        ({"p95": 1.1}, Ruling.FAIL, f"{P95} is worse"),
        ({"p95": 0.8, "rate": 0.9}, Ruling.FAIL, f"{RATE} is worse"),
        ({}, Ruling.INCONCLUSIVE, f"{P95} is not proven better"),
        ({"p95": 0.8, "rate": 0.98}, Ruling.INCONCLUSIVE, f"{RATE} may be worse"),
    ],
)
def test_what_must_not_pass(factors, ruling, words):
    verdict = judged(windows(60, **factors))
    assert verdict.ruling is ruling
    assert verdict.reason.startswith(words)


def test_too_few_windows_say_nothing_and_enough_of_them_end_it():
    few = judged(windows(15, p95=0.5))
    assert (few.ruling, few.settled) == (Ruling.INCONCLUSIVE, False)
    assert "at least 16" in few.reason
    assert judged(windows(120)).settled
    assert not judged(windows(119)).settled
    assert judged([]).ruling is Ruling.ERROR


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, None], ids=str)
@pytest.mark.parametrize("arm", ["baseline", "candidate"])
def test_what_is_no_number_never_passes(value, arm):
    """Argo takes an infinite rate for a success, Kayenta a group without data for a perfect one."""
    kept = windows(40, p95=0.5)
    for window in kept[::2]:
        numbers = getattr(window, arm)
        if value is None:
            del numbers[P95]
        else:
            numbers[P95] = value
    verdict = judged(kept)
    assert (verdict.ruling, verdict.settled) == (Ruling.ERROR, True)
    assert (verdict.windows, verdict.unusable) == (20, 20)
    assert "20 of 40 windows have no usable numbers" in verdict.reason


def test_a_few_gaps_are_bridged():
    kept = windows(40, p95=0.8)
    kept[3].candidate[P95] = math.nan
    assert judged(kept).ruling is Ruling.PASS


def test_failing_requests_end_it_at_once():
    verdict = judged(windows(2, candidate_requests=50, candidate_failures=7, baseline_requests=50))
    assert (verdict.ruling, verdict.settled) == (Ruling.FAIL, True)
    assert verdict.reason == "it failed 14 of 100 requests, and 0.10% are allowed"


def test_failing_requests_count_in_the_warm_up_too():
    """Its times tell of the time before; who was answered with an error was so all the same."""
    failing = windows(2, candidate_requests=50, candidate_failures=7, baseline_requests=50)
    good = windows(40, p95=0.5, candidate_requests=50, baseline_requests=50)
    assert judge_canary(good, AIM, GUARDS, RULES).ruling is Ruling.PASS
    assert judge_canary(good[:1], AIM, GUARDS, RULES, failing).ruling is Ruling.FAIL
    slow = windows(2, p95=9.0, candidate_requests=50, baseline_requests=50)
    assert judge_canary(good, AIM, GUARDS, RULES, slow).ruling is Ruling.PASS


def test_two_that_fail_alike_are_not_told_apart_by_chance():
    """In probation the old one gets a tenth of the requests: what it fails is known to a few failures only."""
    fails = 0
    for seed in range(20):
        draw, seen = random.Random(seed), []
        for window in windows(40, seed=seed):
            new, old = (sum(draw.random() < 0.01 for _ in range(count)) for count in (90, 10))
            seen.append(replace(window, candidate_requests=90, candidate_failures=new, baseline_requests=10,
                                baseline_failures=old))  # fmt: skip
            fails += "failed" in judged(seen).reason
    assert fails == 0


def test_what_the_other_one_failed_before_is_known():
    failing = windows(3, candidate_requests=90, candidate_failures=10, baseline_requests=10)
    assert judge_canary(failing, AIM, GUARDS, RULES).ruling is not Ruling.FAIL
    assert judge_canary(failing, AIM, GUARDS, RULES, known=(1000, 0)).ruling is Ruling.FAIL
    assert judge_canary(failing, AIM, GUARDS, RULES, known=(1000, 120)).ruling is not Ruling.FAIL


def test_why_windows_had_no_numbers_is_said():
    kept = windows(40, p95=0.5)
    gaps = [Window({}, {}, gap=f"server down {number}") for number in range(20)]
    reason = judged([*kept, *gaps]).reason
    assert reason == f"20 of 60 windows have no usable numbers of {P95}, {RATE}; the last time: server down 19"


def test_what_the_baseline_fails_as_well_is_nobodys_fault():
    alike = {"baseline_requests": 100, "baseline_failures": 5, "candidate_requests": 100, "candidate_failures": 5}
    assert judged(windows(30, p95=0.8, noise=0.01, **alike)).ruling is Ruling.PASS
    assert judged(windows(30, p95=0.8, noise=0.01, **{**alike, "candidate_failures": 9})).ruling is Ruling.FAIL


@pytest.mark.parametrize(
    "counts",
    [
        {"candidate_requests": 5, "candidate_failures": -1},
        {"candidate_requests": 5, "candidate_failures": 6},
        {"baseline_requests": 5, "baseline_failures": 50},
    ],
)
def test_counts_that_cannot_be_true_are_those_of_no_window(counts):
    """Failures that the baseline cannot have had would excuse any of the candidate."""
    verdict = judged(windows(40, p95=0.5, **counts))
    assert (verdict.ruling, verdict.windows, verdict.unusable) == (Ruling.ERROR, 0, 40)


def test_one_failure_of_many_is_luck():
    lucky = windows(30, p95=0.8, noise=0.01, candidate_requests=100, baseline_requests=100)
    lucky[0] = Window(lucky[0].baseline, lucky[0].candidate, 100, 0, 100, 1)
    assert judged(lucky).ruling is Ruling.PASS


def test_alike_neighbours_are_worth_fewer():
    """The same values, in blocks of ten and shuffled: only the order differs."""
    draw = random.Random(3)
    levels = [level for level in [draw.lognormvariate(0, 0.1) for _ in range(6)] for _ in range(10)]
    shuffled = draw.sample(levels, len(levels))
    reach = {}
    for name, values in (("blocks", levels), ("shuffled", shuffled)):
        kept = [Window({P95: 0.2, RATE: 50.0}, {P95: 0.18 * value, RATE: 50.0}) for value in values]
        gain = judged(kept).gains[P95]
        reach[name] = math.log(gain.high / gain.low)
    assert reach["blocks"] > 2 * reach["shuffled"]


def test_values_that_never_change_are_judged_too():
    kept = [Window({P95: 0.2, RATE: 50.0}, {P95: 0.2, RATE: 50.0})] * 60
    assert judged(kept).ruling is Ruling.INCONCLUSIVE


@pytest.mark.parametrize(("own", "other"), [(5e-324, 1.7e308), (1.7e308, 5e-324), (1e300, 1.0)])
def test_absurd_numbers_are_judged_and_end_nothing(own, other):
    found = [Window({P95: own, RATE: 1.0}, {P95: other, RATE: 1.0})] * 40
    assert judged(found).ruling is (Ruling.PASS if own > other else Ruling.FAIL)


def test_where_no_failure_is_allowed_one_is_too_many():
    rules = CanaryRules(failure_ratio=0.0)
    assert judged(windows(3, candidate_requests=500, candidate_failures=1), rules).ruling is Ruling.FAIL
    assert judged(windows(40, p95=0.9, candidate_requests=500), rules).ruling is Ruling.PASS
