"""Which trials are probed, and for what: the pool answers from a script."""

from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.diagnosing import MAX_PROBES, examine
from autotuner.executors.process import ProcessExecutor
from autotuner.jobs import Jobs
from autotuner.plugins import Job
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Binding, Failure, FailureKind, Measurement, Origin, Trial


class ScriptedPool:
    """Answers every probe with the time ratio that the script has for its resource."""

    slots = 1

    def __init__(self, **ratios):
        self.ratios = ratios
        self.asked: list[Job] = []

    def submit(self, job):
        self.asked.append(job)
        ratio = self.ratios.get(job.relieves)
        future = Future()
        future.set_result(Failure(FailureKind.CRASHED, "no") if ratio is None else measured(10.0, relief=ratio))
        return future

    def close(self, launch):
        pass


def measured(rate, wait=0.6, others=0.3, relief=None, contended=False):
    """A step that waits for data, and for others: `input` is the first suspect, `communication` the second."""
    step_s = 1 / rate
    samples = {
        "throughput_steps_per_s": (rate,) * 6, "block_step_s": (step_s,) * 6,
        "input_wait_s": (wait * step_s,), "communication_s": (others * step_s,),
    }  # fmt: skip
    probe = {
        "relieved_time_ratio": relief, "relieved_time_low_ratio": relief - 0.02,
        "relieved_time_high_ratio": relief + 0.02, "relief_left_ratio": 0.0,
    } if relief is not None else {}  # fmt: skip
    return Measurement(samples, 1.0, 0.5, 1.0, probe, {}, datetime(2026, 1, 1, tzinfo=UTC), contended, "busy")


@pytest.fixture
def spec():
    return StudySpec.model_validate({
        "name": "s", "workload": Replay(), "executor": ProcessExecutor(), "equivalence": {"guard": False},
        "parameters": {"workers": {"int": [0, 4], "default": 0}},
        "objectives": [{"maximize": "throughput_steps_per_s"}],
    })  # fmt: skip


def look(spec, pool, outcome, trials=(), workers=0):
    return examine(spec, pool, Jobs(spec, Path("nowhere")), {"workers": workers}, outcome, trials)


def baseline(spec):
    outcome = measured(10.0)
    return Trial(0, {"workers": 0}, Origin.BASELINE, outcome, look(spec, ScriptedPool(), outcome))


def test_the_baseline_is_probed_for_its_likeliest_cause(spec):
    pool = ScriptedPool(input=0.45)
    diagnosis = look(spec, pool, measured(10.0)).diagnosis
    assert [job.relieves for job in pool.asked] == ["input"]
    assert (diagnosis.binding, diagnosis.confirmed) == (Binding.INPUT, True)
    assert diagnosis.elasticities["input"].value == pytest.approx(0.55)


def test_a_refuted_cause_gives_way_to_the_next(spec):
    pool = ScriptedPool(input=1.0, communication=0.4)
    diagnosis = look(spec, pool, measured(10.0)).diagnosis
    assert [job.relieves for job in pool.asked] == ["input", "communication"]
    assert (diagnosis.binding, diagnosis.confirmed) == (Binding.COMMUNICATION, True)
    assert diagnosis.elasticities.keys() == {"input", "communication"}


def test_when_every_probe_refutes_nothing_is_known(spec):
    diagnosis = look(spec, ScriptedPool(input=1.0, communication=1.0), measured(10.0)).diagnosis
    assert (diagnosis.binding, diagnosis.confirmed) == (Binding.UNKNOWN, False)


def test_a_failed_probe_leaves_the_hypothesis_and_asks_no_more(spec):
    pool = ScriptedPool()
    diagnosis = look(spec, pool, measured(10.0)).diagnosis
    assert len(pool.asked) == 1 < MAX_PROBES
    assert (diagnosis.binding, diagnosis.confirmed) == (Binding.INPUT, False)


def test_only_the_leading_trial_is_probed(spec):
    first, pool = baseline(spec), ScriptedPool(input=0.4)
    slower = look(spec, pool, measured(9.0), [first], workers=1)
    assert pool.asked == []
    assert (slower.diagnosis.binding, slower.diagnosis.confirmed) == (Binding.INPUT, False)
    faster = look(spec, pool, measured(20.0), [first], workers=2)
    assert len(pool.asked) == 1
    assert faster.diagnosis.confirmed


def test_the_probe_runs_where_the_trial_is_still_open(spec):
    pool = ScriptedPool(input=0.4)
    look(spec, pool, measured(10.0))
    trial_job = Jobs(spec, Path("nowhere")).trial(0, {"workers": 0})
    assert (pool.asked[0].launch, pool.asked[0].config) == (trial_job.launch, trial_job.config)
    assert pool.asked[0].reference_path is None


def test_steps_of_many_seconds_are_not_probed(spec):
    pool = ScriptedPool(input=0.4)
    slow = look(spec, pool, measured(0.1)).diagnosis
    assert pool.asked == []
    assert (slow.binding, slow.confirmed) == (Binding.INPUT, False)


def test_contended_or_failed_is_never_probed(spec):
    pool = ScriptedPool(input=0.4)
    assert look(spec, pool, Failure(FailureKind.OUT_OF_MEMORY, "no room")) is None
    assert look(spec, pool, measured(10.0, contended=True)).diagnosis.binding == Binding.INVALID
    assert pool.asked == []
