"""Ablations with a known worth of every parameter."""

import math
from random import Random

import pytest
from simulated_machine import NOISES, Simulated, SimulatedPool, make_job

from autotuner.events import Note, PairMeasured, ignore
from autotuner.executors.inline import InlineExecutor
from autotuner.spec.model import Objective, StudySpec
from autotuner.spec.parameters import Parameter, Rule
from autotuner.types import Failure, FailureKind
from autotuner.verify.contributions import contributions

METRIC = "throughput_tokens_per_s"
WORTH = {"batch": 1.5, "threads": 1.1, "pin": 1.0, "mode": 1.0}


def study(**options):
    parameters = {
        "batch": Parameter(choices=(1, 8), default=1),
        "threads": Parameter(choices=(1, 2), default=1),
        "pin": Parameter(boolean=True, default=False),
        "mode": Parameter(choices=("a", "b"), default="a", when="pin"),
    }
    return StudySpec(
        name="ablation",
        workload=Simulated(kind="simulated"),
        executor=InlineExecutor(),
        parameters=parameters,
        objectives=(Objective(maximize=METRIC),),
        **options,
    )


LEADER = {"batch": 8, "threads": 2, "pin": True, "mode": "b"}


def machine(spec, worth=None, sd=0.001, **options):
    def truth(config):
        changed = [name for name, value in config.items() if value != spec.baseline[name]]
        return {METRIC: 100 * math.prod({**WORTH, **(worth or {})}[name] for name in changed)}

    return SimulatedPool(truth, NOISES["independent"](Random(1), sd), **options)


def run(spec, pool, leader=LEADER, deadline=lambda: math.inf, listener=ignore, **options):
    return contributions(pool, make_job, spec, leader, seed=5, deadline=deadline, listener=listener, **options)


class TestContributions:
    def test_what_helps_stays_with_its_worth_and_the_rest_goes(self):
        spec, heard = study(), []
        pool = machine(spec)
        leader, found = run(spec, pool, listener=heard.append)
        assert leader == {"batch": 8, "threads": 2, "pin": False, "mode": "a"}
        assert [one.parameter for one in found] == ["batch", "threads"]
        assert [one.gain_ratio for one in found] == [pytest.approx(1.5, rel=0.01), pytest.approx(1.1, rel=0.01)]
        assert all(
            one.pairs == 4 and one.gain_interval[0] < one.gain_ratio < one.gain_interval[1] < math.inf for one in found
        )
        assert any("pin goes back, its change" in event.text for event in heard if isinstance(event, Note))
        assert sum(isinstance(event, PairMeasured) for event in heard) == 12
        assert not pool.standing

    def test_more_pairs_give_an_interval(self):
        _, found = run(study(), machine(study()), pairs=8)
        assert found[0].gain_interval[0] < 1.5 < found[0].gain_interval[1] < math.inf

    def test_what_depends_on_it_goes_with_it(self):
        """`mode` only counts while `pin` is on: put back together, and not measured again."""
        spec = study()
        pool = machine(spec)
        run(spec, pool)
        assert {job.launch for job in pool.jobs} == {f"contributions-{i}-{a}" for i in range(3) for a in ARMS}

    def test_a_forbidden_neighbour_is_skipped(self):
        heard, spec = [], study(rules=(Rule(forbid="batch == 8 and threads == 1"),))
        leader, found = run(spec, machine(spec), listener=heard.append)
        assert leader["threads"] == 2
        assert [one.parameter for one in found] == ["batch"]
        assert any("threads skipped, a rule forbids" in event.text for event in heard if isinstance(event, Note))

    def test_a_failing_neighbour_is_skipped(self):
        def fault(job, standing):
            return Failure(FailureKind.CRASHED, "boom") if not job.config["pin"] else None

        heard, spec = [], study()
        leader, found = run(spec, machine(spec, fault=fault), listener=heard.append)
        assert leader["pin"]
        assert "pin" not in [one.parameter for one in found]
        texts = [event.text for event in heard if isinstance(event, Note)]
        assert "contributions: pin skipped, the reverted configuration failed, crashed" in texts

    def test_what_does_not_fit_together_takes_turns(self):
        def fault(job, standing):
            return Failure(FailureKind.OUT_OF_MEMORY, "full") if len(standing) > 1 else None

        spec = study()
        pool = machine(spec, fault=fault)
        _, found = run(spec, pool)
        assert len(found) == 2
        assert sum(not job.exclusive for job in pool.jobs) == 2
        assert pool.clock_s == 1 + 3 * 4 * 2 * 2  # one opening in vain, then every window in a process of its own

    def test_stops_at_the_deadline(self):
        heard, spec = [], study()
        pool = machine(spec)
        leader, found = run(spec, pool, deadline=lambda: 15.0 - pool.clock_s, listener=heard.append)
        assert leader == LEADER
        assert [one.parameter for one in found] == ["batch"]
        assert heard[-1] == Note("contributions: no time was left to weigh threads")

    def test_the_baseline_has_nothing_to_contribute(self):
        spec = study()
        pool = machine(spec)
        assert run(spec, pool, leader=spec.baseline) == (spec.baseline, ())
        assert pool.jobs == []

    def test_a_harmful_change_is_put_back(self):
        leader, _ = run(study(), machine(study(), {"threads": 0.8}))
        assert leader["threads"] == 1


ARMS = ("leader", "reverted")
