"""Who comes to the race, and who leads it."""

import math
from datetime import UTC, datetime
from random import Random

import pytest
from simulated_machine import NOISES, SimulatedPool, make_job

from autotuner.events import ignore
from autotuner.spec.model import Goal, Objective
from autotuner.types import Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict
from autotuner.verify.choose import finalists, race

THROUGHPUT = Goal((Objective(maximize="throughput_tokens_per_s"),))
LATENCY = Goal((Objective(minimize="latency_p50_s"),))


def trial(number, value, precision_ratio=0.01, *, feasible=True, origin=Origin.SAMPLER, metric=THROUGHPUT.metric):
    measurement = Measurement({}, 0.0, 0.0, 1.0, {}, {}, datetime.now(UTC))
    verdict = Verdict({metric: value}, {"limit": -1.0 if feasible else 0.1}, Diagnosis("unknown"), precision_ratio)
    return Trial(number, {"x": number}, origin, measurement, verdict)


def failed(number):
    return Trial(number, {"x": number}, Origin.SAMPLER, Failure(FailureKind.OUT_OF_MEMORY, "full"), None)


def chosen(trials, count=3, noisy=False, objective=THROUGHPUT):
    return [one.number for one in finalists(trials, objective, count, noisy)]


BASELINE = trial(0, 100.0, origin=Origin.BASELINE)


class TestFinalists:
    def test_the_best_that_reach_the_leader(self):
        trials = [BASELINE, trial(1, 150, 0.03), trial(2, 148, 0.03), trial(3, 120, 0.03), trial(4, 152, 0.03)]
        assert chosen(trials) == [4, 1, 2]

    def test_a_lucky_noisy_one_does_not_pass_a_sure_one(self):
        assert chosen([BASELINE, trial(1, 103, 0.20), trial(2, 100, 0.01)]) == [2, 1]

    def test_neither_failed_nor_infeasible_nor_unmeasured_nor_the_baseline(self):
        again = Trial(6, BASELINE.config, Origin.SAMPLER, BASELINE.outcome, trial(6, 500.0).verdict)
        trials = [BASELINE, failed(1), trial(2, 200, feasible=False), trial(3, math.nan), trial(4, 0.0), again]
        assert chosen([*trials, trial(5, 150)]) == [5]

    def test_clearly_worse_than_the_baseline_is_out(self):
        assert chosen([BASELINE, trial(1, 90)]) == []
        assert chosen([BASELINE, trial(1, 99)]) == [1]

    def test_a_failed_baseline_excludes_nobody(self):
        nothing = Trial(0, {"x": 0}, Origin.BASELINE, Failure(FailureKind.CRASHED, "boom"), None)
        assert chosen([nothing, trial(1, 1.0)]) == [1]

    def test_count_and_two_more_when_noisy(self):
        trials = [BASELINE, *(trial(number, 150 - number, 0.5) for number in range(1, 10))]
        assert chosen(trials, 3) == [1, 2, 3]
        assert chosen(trials, 3, noisy=True) == [1, 2, 3, 4, 5]

    def test_lower_is_better_when_minimized(self):
        trials = [trial(n, v, 0.05, metric="latency_p50_s") for n, v in ((1, 0.2), (2, 0.1), (3, 0.104))]
        assert chosen(trials, objective=LATENCY) == [2, 3]

    def test_unknown_precision_is_the_worst(self):
        assert chosen([trial(1, 130, math.inf), trial(2, 100), trial(3, 130, math.nan)])[0] == 2

    def test_the_same_configuration_runs_once(self):
        twin = Trial(7, {"x": 1}, Origin.HINT, BASELINE.outcome, trial(7, 151).verdict)
        assert chosen([BASELINE, trial(1, 150), twin]) == [7]

    def test_nobody(self):
        assert chosen([]) == []


def pool(values, sd=0.01, seed=0, **options):
    """Configuration x runs at values[x]."""
    noise = NOISES["independent"](Random(seed), sd)
    return SimulatedPool(lambda config: {THROUGHPUT.metric: values[config["x"]]}, noise, **options)


def run(machine, numbers, deadline=lambda: math.inf, listener=ignore, **options):
    candidates = [trial(number, 100.0) for number in numbers]
    names = {"seed": 3, "deadline": deadline, "listener": listener, **options}
    winner = race(machine, make_job, candidates, THROUGHPUT, **names)
    return winner.number if winner else None


class TestRace:
    def test_the_truly_best_leads(self):
        machine = pool({1: 100.0, 2: 105.0, 3: 101.0})
        assert run(machine, [1, 2, 3]) == 2
        assert not machine.standing

    def test_three_launches_of_two_rounds_each_the_second_mirrored(self):
        machine = pool({1: 100.0, 2: 100.5}, sd=0.02)
        run(machine, [1, 2])
        names = [job.launch for job in machine.jobs]
        assert len(set(names)) == 6
        assert len(names) == 3 * (2 + 2 * 2)
        for launch in range(3):
            windows = names[6 * launch + 2 : 6 * launch + 6]
            assert windows[:2] == windows[:1:-1]

    def test_who_is_far_behind_drops_out(self):
        heard, machine = [], pool({1: 100.0, 2: 50.0, 3: 101.0})
        run(machine, [1, 2, 3], listener=heard.append)
        assert "race-2-trial2" not in {job.launch for job in machine.jobs}
        assert any("trial2 is clearly behind" in note.text for note in heard)

    def test_who_fails_drops_out(self):
        def fault(job, standing):
            return Failure(FailureKind.CRASHED, "boom") if job.config["x"] == 2 else None

        heard = []
        assert run(pool({1: 1.0, 2: 2.0, 3: 1.5}, fault=fault), [1, 2, 3], listener=heard.append) == 3
        assert heard[0].text == "race: trial2 failed (crashed) and is out"

    def test_who_do_not_fit_together_take_turns(self):
        def fault(job, standing):
            return Failure(FailureKind.OUT_OF_MEMORY, "full") if len(standing) > 1 else None

        assert run(pool({1: 1.0, 2: 1.1, 3: 1.2}, fault=fault), [1, 2, 3]) == 3

    def test_one_needs_no_race_and_none_has_no_leader(self):
        machine = pool({1: 1.0})
        assert run(machine, [1]) == 1
        assert run(machine, []) is None
        assert machine.jobs == []

    def test_without_time_the_most_promising_leads(self):
        assert run(pool({1: 1.0, 2: 2.0}), [1, 2], deadline=lambda: 0.0) == 1

    def test_time_for_one_launch_only(self):
        machine = pool({1: 1.0, 2: 2.0})
        assert run(machine, [1, 2], deadline=lambda: 10.0 - machine.clock_s) == 2
        assert {job.launch for job in machine.jobs} == {"race-0-trial1", "race-0-trial2"}

    @pytest.mark.parametrize("seed", range(3))
    def test_beats_picking_the_best_single_sample(self, seed):
        """Ten races among five with 2 % between neighbours and 3 % noise: the race loses less than a single look."""
        truth = {x: 1.02**x for x in range(5)}
        raced = looked = 0
        for study in range(20):
            raced += run(pool(truth, 0.03, 100 * seed + study), list(truth))
            rng = Random(100 * seed + study)
            looked += max(truth, key=lambda x: truth[x] * math.exp(rng.gauss(0, 0.03)))
        assert raced > looked
