"""The whole verification on the simulated machine: whom it tries, what it refuses, what it never claims."""

from dataclasses import replace
from pathlib import Path

import pytest
from modes import MEMORY, RATE, SPEED, TRIALS, Windows, machine, study, trial
from simulated_machine import Simulated, make_job

from autotuner.events import StageStarted, ignore
from autotuner.executors.inline import InlineExecutor
from autotuner.jobs import Jobs
from autotuner.spec.expressions import Limit
from autotuner.spec.model import Goal, Objective, StudySpec
from autotuner.spec.parameters import Parameter
from autotuner.types import Decision, Diagnosis, Failure, FailureKind, Origin, Trial, Verdict
from autotuner.verify import verification
from autotuner.verify.arms import Bench, Launch
from autotuner.verify.foresight import opening_s
from autotuner.verify.verification import claim_of, confirm, confirms, verify
from autotuner.workloads.transformers_inference import TransformersInference

GLM = {"model_type": "glm4"}


def run(spec, pool, trials=TRIALS, listener=ignore):
    return verify(spec, pool, Windows(), trials, lambda: 1e9, listener)


def test_the_best_finalist_is_raced_and_proven():
    stages = []
    found = run(study(), machine(), listener=lambda e: stages.append(e.stage) if isinstance(e, StageStarted) else None)
    assert found.decision is Decision.BETTER
    assert found.config == {"mode": "b"}
    assert found.gain_interval[0] < 1.5 < found.gain_interval[1]
    assert stages == ["race", "contest"], "a single change is worth what the contest says"


def two_changes():
    """A study whose best trial changes two things, each worth something."""
    on = Parameter(boolean=True, default=False)
    spec = StudySpec(
        name="two", workload=Simulated(kind="simulated"), executor=InlineExecutor(),
        parameters={"fast": on, "small": on}, objectives=(Objective(maximize=RATE),), budget={"minutes": 5},
    )  # fmt: skip
    rates = {False: 100.0, True: 150.0}
    dear = replace(TRIALS[0].outcome, setup_s=9.0)
    trials = [
        Trial(
            number, {"fast": both, "small": both}, Origin.SAMPLER if both else Origin.BASELINE, dear,
            Verdict({RATE: rates[both]}, {}, Diagnosis("unknown"), 0.02),
        )
        for number, both in enumerate(rates)
    ]  # fmt: skip
    return spec, trials, machine(lambda config: {RATE: 100.0 + 25 * config["fast"] + 25 * config["small"]})


@pytest.mark.parametrize(("left_s", "stages"), [(50.0, {"contest0"}), (280.0, {"contributions0", "contest0"})])
def test_dear_openings_leave_the_time_to_the_contest(left_s, stages):
    """Three launches of both arms take 60 s and their windows more: of 50 s nothing is spent on anything else."""
    spec, trials, pool = two_changes()
    assert verify(spec, pool, Windows(), trials, lambda: left_s, ignore).decision is Decision.BETTER
    assert {job.launch.split("-")[0] for job in pool.jobs} == stages


def test_a_machine_that_grew_slow_still_comes_to_a_verdict(monkeypatch):
    """Openings take nine times what the search saw: the steps before eat the time, and the contest has its own."""
    spec, trials, pool = two_changes()
    pool.setup_s = 9.0
    monkeypatch.setattr(verification.time, "monotonic", lambda: pool.clock_s)
    found = verify(spec, pool, Windows(), [quick(each) for each in trials], lambda: 0.0, ignore)
    assert found.decision is Decision.BETTER, found.reason
    least_s = 0.35 * 300 * 0.6  # granted to all of the verification
    assert least_s < pool.clock_s < 2 * least_s


def quick(trial):
    return replace(trial, outcome=replace(trial.outcome, setup_s=0.5, warmup_s=0.5))


def test_dear_openings_are_no_race():
    dear = [replace(each, outcome=replace(each.outcome, setup_s=9.0)) for each in TRIALS]
    pool = machine()
    verify(study(budget={"minutes": 5}), pool, Windows(), dear, lambda: 50.0, ignore)
    assert {job.launch.split("-")[0] for job in pool.jobs} == {"contest0"}


@pytest.mark.parametrize(("reused", "seconds"), [(False, 5.0), (True, 9.0)])
def test_what_found_its_workload_open_counts_as_the_slowest_opening(reused, seconds):
    one, other = (replace(each, outcome=replace(each.outcome, setup_s=4.0)) for each in TRIALS[:2])
    slow = replace(other, outcome=replace(other.outcome, setup_s=8.0))
    known = replace(TRIALS[2], outcome=replace(one.outcome, reused=reused))
    assert opening_s([known], [one, slow, known]) == seconds


def test_a_limit_that_only_the_contest_sees_broken_gives_the_next_finalist_its_chance():
    def truth(config):
        return {RATE: SPEED[config["mode"]], MEMORY: 9e9 if config["mode"] == "b" else 1e9}

    found = run(study(limits=["peak_memory_bytes <= 4 GiB"]), machine(truth))
    assert found.decision is Decision.BETTER
    assert found.config == {"mode": "c"}


def test_a_candidate_that_fails_gives_the_next_one_its_chance():
    def fault(job, standing):
        broken = job.config["mode"] == "b" and "contest" in job.launch
        return Failure(FailureKind.CRASHED, "gone") if broken else None

    found = run(study(), machine(fault=fault))
    assert found.decision is Decision.BETTER
    assert found.config == {"mode": "c"}


def test_a_failing_baseline_ends_it_at_once():
    def fault(job, standing):
        broken = job.config["mode"] == "a" and "contest" in job.launch
        return Failure(FailureKind.CRASHED, "gone") if broken else None

    pool = machine(fault=fault)
    found = run(study(), pool)
    assert found.decision is Decision.INVALID
    assert not any("contest1" in job.launch for job in pool.jobs)


def test_changes_that_look_worthless_are_judged_with_an_interval_not_by_a_glance():
    found = run(study(), machine(lambda config: {RATE: 100.0}))
    assert found.decision in (Decision.SAME, Decision.AMBIGUOUS)
    assert found.pairs, "SAME is a finding of the contest"


def test_a_change_that_keeps_a_limit_is_not_put_back():
    def truth(config):
        return {RATE: 150.0 if config["fast"] else 100.0, MEMORY: 1e9 if config["small"] else 9e9}

    on = Parameter(boolean=True, default=False)
    spec = StudySpec(
        name="limit", workload=Simulated(kind="simulated"), executor=InlineExecutor(),
        parameters={"fast": on, "small": on}, objectives=(Objective(maximize=RATE),),
        limits=(Limit.parse("peak_memory_bytes <= 4 GiB"),),
    )  # fmt: skip
    measured = TRIALS[1].outcome
    verdict = Verdict({RATE: 150.0}, {}, Diagnosis("unknown"), 0.02)
    baseline = Verdict({RATE: 100.0}, {}, Diagnosis("unknown"), 0.02)
    trials = [
        Trial(0, {"fast": False, "small": False}, Origin.BASELINE, measured, baseline),
        Trial(1, {"fast": True, "small": True}, Origin.SAMPLER, measured, verdict),
    ]
    found = run(spec, machine(truth), trials)
    assert found.decision is Decision.BETTER
    assert found.config == {"fast": True, "small": True}


@pytest.mark.parametrize(("contended", "decision"), [(False, Decision.SAME), (True, Decision.AMBIGUOUS)])
def test_nothing_better_is_same_unless_the_machine_was_busy(contended, decision):
    trials = [trial(0, "a", contended), replace(trial(1, "b", contended), verdict=None)]
    assert run(study(), machine(), trials).decision is decision


def test_a_baseline_alone_says_nothing_of_anything_else():
    found = run(study(), machine(), [trial(0, "a", False)])
    assert found.decision is Decision.AMBIGUOUS
    assert "give the study more time" in found.reason
    refused = replace(trial(1, "b", False), outcome=Failure(FailureKind.INVALID, "late"), verdict=None)
    assert run(study(), machine(), [trial(0, "a", False), refused]).decision is Decision.AMBIGUOUS


def test_no_outputs_of_the_baseline_no_claim(tmp_path):
    class Guarded(Windows):
        def reference(self, config):
            return make_job(config, "reference", True)  # which writes nothing

    jobs = Guarded(tmp_path / "reference.npz")
    found = verify(study(), machine(), jobs, TRIALS, lambda: 1e9, ignore)
    assert found.decision is Decision.INVALID
    assert "could not be computed" in found.reason


def test_confirming_a_claim_and_refuting_it():
    claim = run(study(), machine())
    again = confirm(study(), machine(), Windows(), claim, ignore)
    assert confirms(again, claim)
    assert again.reason.startswith("confirmed: claimed 1.5")
    slower = confirm(study(), machine(lambda config: {RATE: 100.0}), Windows(), claim, ignore)
    assert not confirms(slower, claim)
    assert slower.reason.startswith("NOT confirmed")
    ambiguous = run(study(), machine(), [trial(0, "a", contended=True)])
    assert claim_of([claim, ambiguous]) is claim


def test_an_interrupt_does_not_wait_for_the_window_that_runs():
    pool = machine()
    with pytest.raises(KeyboardInterrupt), Launch(  # noqa: PT012 - the interrupt comes from inside
        Bench(pool, make_job, Goal((Objective(maximize=RATE),)), "stage"), 0, {"candidate": {"mode": "b"}}
    ) as launch:  # fmt: skip
        launch.open(["candidate"])
        raise KeyboardInterrupt
    assert pool.standing, "closing would queue behind the running job; leaving the pool kills everything"


def jobs_of(**options):
    parameters = {
        "batch_size": Parameter(choices=(1, 2), default=1),
        "compile": Parameter(choices=("none", "default"), default="none"),
    }
    spec = StudySpec(
        name="live", workload=TransformersInference(config=GLM), executor=InlineExecutor(), parameters=parameters,
        objectives=(Objective(maximize=RATE),), **options,
    )  # fmt: skip
    return Jobs(spec, Path("nowhere"))


def test_batch_size_is_live_unless_it_is_compiled_in_or_set_up_counts():
    assert jobs_of().trial(1, {"batch_size": 2, "compile": "none"}).live == {"batch_size"}
    assert jobs_of().trial(1, {"batch_size": 2, "compile": "default"}).live == frozenset()
    limited = jobs_of(limits=(Limit.parse("setup_s <= 5 s"),))
    assert limited.trial(1, {"batch_size": 2, "compile": "none"}).live == frozenset()


def test_a_window_can_claim_a_p95_within_ten_pairs():
    assert (
        10 * jobs_of().window({"batch_size": 1, "compile": "none"}, "contest-0-baseline", False).protocol.min_blocks
        >= 59
    )
