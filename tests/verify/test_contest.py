"""The contest against a simulated machine with a known truth."""

import math
from collections import Counter
from itertools import chain, cycle, repeat
from random import Random

import pytest
from simulated_machine import NOISES, Simulated, SimulatedPool, make_job

from autotuner.events import Note, PairMeasured, ignore
from autotuner.spec.model import Goal, Objective
from autotuner.statistics import LogRatioEstimate
from autotuner.types import Decision, Failure, FailureKind
from autotuner.verify.contest import MAX_PAIRS_PER_LAUNCH, contest, decide

THROUGHPUT = Goal((Objective(maximize="throughput_tokens_per_s"),))
LATENCY = Goal((Objective(minimize="latency_p50_s"),))
NEW, OLD = {"new": True}, {"new": False}
ARMS = ("candidate", "baseline")


def machine(gain=1.0, sd=0.01, seed=0, noise="independent", **options):
    """A pool on which the new configuration is `gain` times as fast."""

    def truth(config):
        factor = gain if config["new"] else 1.0
        return {"throughput_tokens_per_s": 1000 * factor, "latency_s": 0.1 / factor}

    return SimulatedPool(**{"truth": truth, "noise": NOISES[noise](Random(seed), sd), **options})


def run(pool, objective=THROUGHPUT, listener=ignore, deadline=lambda: math.inf, **options):
    names = {"stage": "contest", "seed": 1, "deadline": deadline, "listener": listener, **options}
    return contest(pool, make_job, NEW, OLD, objective, **names)


def estimate(low, high):
    return LogRatioEstimate((low + high) / 2, low, high, 0.01, 12)


class TestDecide:
    @pytest.mark.parametrize(
        ("low", "high", "decision"),
        [
            (1.011, 1.5, Decision.BETTER),
            (1.009, 1.5, Decision.AMBIGUOUS),
            (0.5, 0.989, Decision.WORSE),
            (0.5, 0.991, Decision.AMBIGUOUS),
            (0.991, 1.009, Decision.SAME),
            (0.989, 1.009, Decision.AMBIGUOUS),
            (0.0, math.inf, Decision.AMBIGUOUS),
        ],
    )
    def test_needs_the_whole_interval(self, low, high, decision):
        log_low = math.log(low) if low else -math.inf
        assert decide(estimate(log_low, math.log(high))) is decision

    def test_region_is_the_callers(self):
        wide = estimate(math.log(0.98), math.log(1.02))
        assert decide(wide) is Decision.AMBIGUOUS
        assert decide(wide, region=0.03) is Decision.SAME


class TestDecisions:
    def test_a_gain_is_better_with_its_numbers(self):
        result = run(machine(gain=1.5))
        assert result.decision is Decision.BETTER
        assert result.gain_interval[0] < 1.5 < result.gain_interval[1]
        assert result.reason.startswith("throughput_tokens_per_s is 1.")
        assert f"over {len(result.pairs)} pairs in {result.launches} launches" in result.reason

    def test_direction_follows_the_objective(self):
        assert run(machine(gain=1.5), LATENCY).decision is Decision.BETTER
        worse = run(machine(gain=1 / 1.5), LATENCY)
        assert worse.decision is Decision.WORSE
        assert worse.gain_ratio == pytest.approx(1 / 1.5, rel=0.05)
        assert "the gain in latency_p50_s is 0.6" in worse.reason

    def test_twins_are_the_same_when_noise_is_small(self):
        assert run(machine(sd=0.003)).decision is Decision.SAME

    def test_noise_leaves_it_open_and_says_what_would_help(self):
        result = run(machine(gain=1.02, sd=0.1))
        assert result.decision is Decision.AMBIGUOUS
        assert len(result.pairs) == 30
        assert "more pairs would be needed" in result.reason

    def test_a_noiseless_metric_is_decided(self):
        """Peak memory is the same in every window; ties must not confuse the estimate."""
        pool = machine(truth=lambda config: {"peak_memory_bytes": 8e9 if config["new"] else 9e9})
        assert run(pool, Goal((Objective(minimize="peak_memory_bytes"),))).decision is Decision.BETTER


class TestDesign:
    def test_three_launches_of_fresh_processes_before_any_decision(self):
        pool = machine(gain=3.0, sd=0.001)
        result = run(pool)
        assert (len(result.pairs), result.launches) == (6, 3)
        assert {job.launch for job in pool.jobs} == {f"contest-{i}-{arm}" for i in range(3) for arm in ARMS}
        assert not pool.standing

    def test_no_decision_from_two_launches_however_clear(self):
        """With dear set-up four pairs come from each launch: eight would be clear, the third launch is waited for."""
        result = run(machine(gain=3.0, sd=0.001, setup_s=100.0))
        assert (len(result.pairs), result.launches) == (9, 3)

    def test_no_decision_before_the_fewest_pairs(self):
        assert len(run(machine(gain=3.0, sd=0.001), min_pairs=11).pairs) == 11

    def test_both_arms_stand_open_before_the_first_pair(self):
        pool = machine(gain=3.0)
        run(pool)
        first = [job.launch for job in pool.jobs[:4]]
        assert set(first[:2]) == set(first[2:]) == {f"contest-0-{arm}" for arm in ARMS}
        assert pool.jobs[0].protocol.max_measure_s == 0 < pool.jobs[2].protocol.max_measure_s
        assert pool.most_standing == 2

    def test_order_is_abba_or_baab_at_random(self):
        pool = machine(sd=0.2)
        run(pool)
        windows = [job.launch.rsplit("-", 1)[1][0] for job in pool.jobs if job.protocol.max_measure_s > 0]
        squares = Counter("".join(windows[at : at + 4]) for at in range(0, len(windows), 4))
        assert set(squares) == {"cbbc", "bccb"}
        assert min(squares.values()) >= 3

    def test_a_linear_drift_cancels(self):
        """Half a percent a window: one arm first and the other then would differ by tens of percent."""
        drift = (0.005 * place for place in range(1000))
        result = run(SimulatedPool(machine().truth, drift))
        assert result.decision is not Decision.BETTER
        assert result.gain_ratio == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize(("setup_s", "per_launch"), [(0.1, 2), (4.0, 4), (100.0, MAX_PAIRS_PER_LAUNCH)])
    def test_dear_set_up_takes_more_pairs_per_launch(self, setup_s, per_launch):
        result = run(machine(sd=0.2, setup_s=setup_s))
        assert Counter(pair.launch for pair in result.pairs)[0] == per_launch

    def test_same_seed_same_contest(self):
        pools = (machine(), machine())
        assert run(pools[0]) == run(pools[1])
        assert [job.launch for job in pools[0].jobs] == [job.launch for job in pools[1].jobs]

    def test_events_tell_every_pair(self):
        heard = []
        result = run(machine(gain=1.5), listener=heard.append)
        assert [event.pair for event in heard] == list(result.pairs)
        assert all(isinstance(event, PairMeasured) and event.stage == "contest" for event in heard)
        assert heard[0].gain_interval == (0.0, math.inf)
        assert heard[-1].gain_interval == result.gain_interval

    def test_set_up_time_is_compared_between_fresh_processes(self):
        pool = machine()
        slow = SimulatedPool(pool.truth, pool.noise, setup_s=2.0)
        result = run(slow, Goal((Objective(minimize="setup_s"),)))
        assert result.decision is Decision.SAME
        assert result.candidate_samples["setup_s"] == (2.0,) * len(result.pairs)
        assert slow.most_standing == 1


class TestDeadline:
    def test_no_time_no_pair(self):
        result = run(machine(), deadline=lambda: 0.0)
        assert (result.decision, result.pairs, result.gain_ratio) == (Decision.AMBIGUOUS, (), 1.0)
        assert result.reason == "the time was up before the first pair"

    def test_stops_when_no_further_pair_fits(self):
        """A launch takes 2 s to open and a pair 2 s: 17 s hold two launches of two pairs, and one pair of a third."""
        pool = machine(gain=2.0)
        result = run(pool, deadline=lambda: 17.0 - pool.clock_s)
        assert (len(result.pairs), result.launches) == (5, 3)
        assert result.decision is Decision.AMBIGUOUS
        assert "the time was up, and at least 6 pairs and 3 launches are needed" in result.reason
        assert pool.clock_s <= 17.0

    def test_grace_is_for_the_pairs_that_a_begun_contest_lacks(self):
        """Without a sixth pair the five that are there decide nothing; beyond it the time is up as before."""
        pool = machine(gain=2.0)
        result = run(pool, deadline=lambda: 17.0 - pool.clock_s, grace_s=2.0)
        assert (len(result.pairs), result.launches) == (6, 3)
        assert result.decision is Decision.BETTER, result.reason
        assert 17.0 < pool.clock_s <= 19.0

    def test_grace_begins_nothing_and_is_no_second_budget(self):
        assert run(machine(), deadline=lambda: 0.0, grace_s=100.0).pairs == ()
        pool = machine(gain=2.0)
        assert len(run(pool, deadline=lambda: 17.0 - pool.clock_s, grace_s=1.0).pairs) == 5
        assert pool.clock_s <= 18.0

    def test_dear_openings_leave_time_for_three_of_them(self):
        """A launch takes 16 s to open, which is worth eight pairs of 2 s; but 70 s hold two such launches only."""
        pool = machine(gain=2.0, setup_s=8.0)
        result = run(pool, deadline=lambda: 70.0 - pool.clock_s)
        assert result.decision is Decision.BETTER, result.reason
        assert result.launches == 3
        assert pool.clock_s <= 70.0


def failing(arm, kind=FailureKind.CRASHED, after=0):
    def fault(job, standing):
        struck = job.launch.endswith(arm) and len(calls) >= after
        calls.append(job)
        return Failure(kind, "boom", "logs/x.log") if struck else None

    calls = []
    return fault


class TestFailures:
    @pytest.mark.parametrize("arm", ARMS)
    @pytest.mark.parametrize("after", [0, 6])
    def test_a_failed_arm_makes_it_invalid(self, arm, after):
        pool = machine(gain=2.0, fault=failing(arm, after=after))
        result = run(pool)
        assert (result.decision, result.failed_arm) == (Decision.INVALID, arm)
        assert result.failure.kind is FailureKind.CRASHED
        assert result.reason == f"the {arm} failed in verification: crashed: boom, see logs/x.log"
        assert not pool.standing

    def test_two_that_do_not_fit_together_take_turns(self):
        def fault(job, standing):
            return Failure(FailureKind.OUT_OF_MEMORY, "full") if len(standing) > 1 else None

        heard, pool = [], machine(gain=1.5, fault=fault)
        result = run(pool, listener=heard.append)
        assert result.decision is Decision.BETTER
        assert [pair.launch for pair in result.pairs] == list(range(len(result.pairs)))
        assert sum(isinstance(event, Note) for event in heard) == 1
        assert sum(job.exclusive for job in pool.jobs) == 2 * len(result.pairs)
        order = "".join(job.launch.rsplit("-", 1)[1][0] for job in pool.jobs if job.exclusive)
        assert {order[at : at + 4] for at in range(0, len(order) - 3, 4)} <= {"cbbc", "bccb"}

    def test_one_that_does_not_even_fit_alone_is_invalid(self):
        result = run(machine(fault=failing("candidate", FailureKind.OUT_OF_MEMORY)))
        assert (result.decision, result.failed_arm) == (Decision.INVALID, "candidate")
        assert result.failure.kind is FailureKind.OUT_OF_MEMORY

    @pytest.mark.parametrize("value", [math.nan, 0.0, math.inf])
    def test_a_value_without_a_ratio_is_a_failure(self, value):
        result = run(machine(truth=lambda config: {"throughput_tokens_per_s": value if config["new"] else 1.0}))
        assert (result.decision, result.failed_arm) == (Decision.INVALID, "candidate")
        assert result.failure.kind is FailureKind.NOT_FINITE

    def test_busy_pairs_are_kept_and_told(self):
        result = run(machine(gain=1.5, contended=lambda number: number > 6))
        busy = sum(pair.contended for pair in result.pairs)
        assert 2 * busy > len(result.pairs)
        assert f"busy with something else during {busy} of them" in result.reason


class TestEvidence:
    def test_samples_are_pooled_over_windows_without_the_openings(self):
        pool = machine(gain=1.5)
        result = run(pool)
        assert len(result.candidate_samples["throughput_tokens_per_s"]) == len(result.pairs)
        assert result.candidate_samples["throughput_tokens_per_s"] == tuple(pair.candidate for pair in result.pairs)
        assert result.baseline_samples["setup_s"] == (1.0,) * result.launches

    def test_worst_deviations_of_both_arms_are_reported(self):
        errors = cycle([0.1, 0.3, 0.2])

        def truth(config):
            own = {"output_error_ratio": next(errors)} if config["new"] else {"output_error_ratio": 0.01}
            return {"throughput_tokens_per_s": 1.0, **own}

        result = run(machine(truth=truth))
        assert result.comparisons == {"output_error_ratio": 0.3}
        assert result.spread == {"output_error_ratio": 0.01}

    def test_one_huge_spike_does_not_hide_a_gain(self):
        spikes = chain([0.0] * 9, [-2.0], repeat(0.0))
        noise = (next(spikes) + value for value in NOISES["independent"](Random(2), 0.01))
        result = run(SimulatedPool(machine(gain=1.3).truth, noise))
        assert result.decision is Decision.BETTER
        assert result.gain_interval[0] < 1.3 < result.gain_interval[1]


def test_a_simulated_workload_is_never_opened():
    with pytest.raises(NotImplementedError):
        Simulated(kind="simulated").open({}, "cpu")
