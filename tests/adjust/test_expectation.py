from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from autotuner.adjust.expectation import WORKERS, expected_scores, weight
from autotuner.adjust.space import Space
from autotuner.executors.inline import InlineExecutor
from autotuner.plugins import Workload, load_class
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict

RATE = "throughput_samples_per_s"


def study(default=0, metric=RATE, cores=2, name="num_workers", values=tuple(range(9))):
    return StudySpec.model_validate({
        "name": "s", "workload": Replay(), "executor": InlineExecutor(), "objectives": [{"maximize": metric}],
        "parameters": {
            name: {"choices": values, "default": default}, "mode": {"choices": ["a", "b"], "default": "a"},
        },
        "cpu_cores": cores,
    })  # fmt: skip


def trial(spec, workers, period_s, wait_s, busy_ratio):
    samples = {RATE: (1 / period_s,), "latency_s": (period_s,) * 5, "input_wait_s": (wait_s,) * 5}
    seen = Measurement(samples, 1, 1, 1, {"cpu_busy_ratio": busy_ratio}, {}, datetime.now(UTC))
    verdict = Verdict({spec.objective.metric: 1 / period_s}, {}, Diagnosis("input"))
    return Trial(0, {**spec.baseline, next(iter(spec.parameters)): workers}, Origin.BASELINE, seen, verdict)


def expected(spec, seen):
    space = Space(spec)
    rows = space.matrix(space.encode({"num_workers": n, "mode": "a"}) for n in range(9))
    return np.exp(expected_scores(spec, space, [seen], rows))


def test_sleeping_loaders_are_worth_a_worker_each_until_the_steps_bind():
    spec = study()
    rates = expected(spec, trial(spec, 0, 0.100, 0.080, busy_ratio=0.1))  # computes 20 ms of 100 on one of two cores
    assert rates[0] == pytest.approx(10)
    assert rates[1:5] == pytest.approx([12.5, 25, 37.5, 50])
    assert rates[5:] == pytest.approx(50), "a step takes 20 ms"


def test_loaders_that_compute_are_worth_no_more_than_the_cores():
    spec = study()
    rates = expected(spec, trial(spec, 0, 0.100, 0.080, busy_ratio=0.5))  # one core all the time, 80 ms for a batch
    assert rates[1] == pytest.approx(12.5)
    assert rates[3:] == pytest.approx(20), "100 ms of CPU time for a step, on two cores"


def test_workers_that_are_waited_for_set_the_pace():
    spec = study(default=2)
    rates = expected(spec, trial(spec, 2, 0.050, 0.030, busy_ratio=0.2))  # 100 ms of a worker for a batch
    assert rates[2:5] == pytest.approx([20, 30, 40])


@pytest.mark.parametrize(
    ("spec", "wait_s"), [(study(), 0.001), (study(metric="goodput_requests_per_s"), 0.080)], ids=["fed", "another goal"]
)
def test_without_a_reason_nothing_is_expected(spec, wait_s):
    assert expected(spec, trial(spec, 0, 0.100, wait_s, busy_ratio=0.1)) == pytest.approx(1)


def test_an_expectation_is_believed_until_it_is_contradicted():
    spec = study()
    moves = np.log([1.0, 2.0, 4.0, 4.0])

    def believed(rates, failed=(), broken=()):
        trials = [trial(spec, 0, 1 / rate, 0.0, 0.1) for rate in rates]
        verdicts = [replace(each.verdict, violations={"limit": float(n in broken)}) for n, each in enumerate(trials)]
        trials = [replace(each, verdict=verdict) for each, verdict in zip(trials, verdicts, strict=True)]
        trials += [replace(trials[0], outcome=Failure(FailureKind.CRASHED, ""), verdict=None) for _ in failed]
        return weight(spec, trials, np.append(moves[: len(rates)], failed))

    assert believed([3.0]) == 1
    assert believed([5.0, 10.0, 20.0, 20.0]) == pytest.approx(1)
    assert believed([20.0, 10.0, 5.0, 5.0]) == 0
    assert believed([5.0, 5.0, 5.0, 5.0]) == pytest.approx(0.2), "it counts for one observation of five"
    assert believed([5.0, 10.0, 20.0, 20.0], failed=[2.0, 2.0]) == pytest.approx(1), "what failed was not slow"
    assert believed([5.0, 10.0, 20.0, 20.0], broken=[2, 3]) == pytest.approx(1), "nor what breaks a limit"
    assert weight(spec, [], np.zeros(0)) == 1


def test_nothing_is_faster_than_its_cpu_time_on_all_cores():
    spec = study()
    rates = expected(spec, trial(spec, 0, 0.100, 0.020, busy_ratio=0.9))  # 180 ms of CPU for a step, on two cores
    assert rates[8] == pytest.approx(1 / 0.090)


@pytest.mark.parametrize("name", ["workers", "dataloader_num_workers"])
def test_by_whatever_name(name):
    spec = study(name=name)
    seen = trial(spec, 0, 0.100, 0.080, busy_ratio=0.1)
    space = Space(spec)
    rows = space.matrix(space.encode({name: n, "mode": "a"}) for n in (0, 4))
    assert np.exp(expected_scores(spec, space, [seen], rows)) == pytest.approx([10, 50])


def test_the_training_of_this_house_has_one_of_the_names():
    assert any(name in load_class("workloads", "transformers-training", Workload).traits for name in WORKERS)


def test_words_for_workers_are_left_alone():
    spec = study(values=[0, "auto"])
    space = Space(spec)
    assert (expected_scores(spec, space, [trial(spec, 0, 0.1, 0.08, 0.1)], space.rows) == 0).all()


def decoder(batch=2, metric=RATE, sizes=(1, 2, 4, 8, 16)):
    return StudySpec.model_validate({
        "name": "s", "workload": Replay(), "executor": InlineExecutor(), "objectives": [{"maximize": metric}],
        "parameters": {
            "batch_size": {"choices": sizes, "default": batch}, "mode": {"choices": ["a", "b"], "default": "a"},
        },
    })  # fmt: skip


def counted(spec, **evidence):
    seen = trial(spec, spec.baseline["batch_size"], 0.1, 0.0, 0.1)
    return replace(seen, verdict=replace(seen.verdict, diagnosis=Diagnosis("host_launch", evidence=evidence)))


def rates_of(spec, seen):
    space = Space(spec)
    rows = space.matrix(
        space.encode({"batch_size": size, "mode": "a"}) for size in spec.parameters["batch_size"].values
    )
    return np.exp(expected_scores(spec, space, [seen], rows))


def test_a_batch_gains_what_its_arithmetic_leaves():
    spec = decoder()
    rates = rates_of(spec, counted(spec, step_s=0.1, compute_floor_s=0.025))  # 25 ms of 100 grow with the batch
    assert rates == pytest.approx([1 / (0.075 + 0.0125) * 0.05, 1, 2 / 1.25, 4 / 1.75, 8 / 2.75])
    assert rates_of(spec, counted(spec, step_s=0.1, compute_floor_s=0.2)) == pytest.approx(1), (
        "it computes all the time"
    )


@pytest.mark.parametrize(
    ("spec", "evidence"),
    [
        (decoder(), {"step_s": 0.1}),
        (decoder(metric="goodput_requests_per_s"), {"step_s": 0.1, "compute_floor_s": 0.02}),
        (decoder(batch=0, sizes=(0, 2)), {"step_s": 0.1, "compute_floor_s": 0.02}),
    ],
    ids=["not counted", "another goal", "no batch"],
)
def test_of_a_batch_that_cannot_be_judged_nothing_is_expected(spec, evidence):
    assert rates_of(spec, counted(spec, **evidence)) == pytest.approx(1)


def test_a_loader_that_is_waited_for_comes_before_the_batch():
    spec = StudySpec.model_validate({
        "name": "s", "workload": Replay(), "executor": InlineExecutor(), "objectives": [{"maximize": RATE}],
        "parameters": {
            "num_workers": {"choices": range(9), "default": 0}, "batch_size": {"choices": [1, 2], "default": 1},
        }, "cpu_cores": 2,
    })  # fmt: skip
    starved = trial(spec, 0, 0.100, 0.080, busy_ratio=0.1)
    diagnosis = Diagnosis("input", evidence={"step_s": 0.1, "compute_floor_s": 0.02})
    starved = replace(starved, verdict=replace(starved.verdict, diagnosis=diagnosis))
    space = Space(spec)
    scores = expected_scores(spec, space, [starved], space.rows)
    by_batch = [scores[space.rows[:, space.names.index("batch_size")] == index] for index in (0, 1)]
    assert (by_batch[0] == by_batch[1]).all()
    assert len(set(scores.round(6))) > 2
