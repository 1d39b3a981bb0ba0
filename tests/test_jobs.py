"""What a worker is asked to do."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.executors.inline import InlineExecutor
from autotuner.jobs import Jobs
from autotuner.plugins import Rival
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Diagnosis, Measurement, Origin, Trial, Verdict


def spec_of(objective):
    return StudySpec.model_validate({
        "name": "s", "workload": Replay(), "executor": InlineExecutor(), "objectives": [objective],
        "parameters": {"size": {"int": [1, 4], "default": 1}},
    })  # fmt: skip


def best(metric):
    measured = Measurement({}, 0, 0, 1, {}, {}, datetime(2026, 1, 1, tzinfo=UTC))
    return Trial(3, {"size": 2}, Origin.SAMPLER, measured, Verdict({metric: 40.0}, {}, Diagnosis("unknown")))


@pytest.mark.parametrize(
    ("objective", "metric", "rival"),
    [
        ({"maximize": "throughput_steps_per_s"}, "throughput_steps_per_s", Rival("throughput_steps_per_s", 40.0)),
        ({"minimize": "latency_p95_s"}, "latency_p95_s", None),  # no block says it
    ],
)
def test_a_trial_knows_whom_it_must_beat(objective, metric, rival):
    jobs = Jobs(spec_of(objective), Path("nowhere"))
    assert jobs.trial(4, {"size": 3}, best(metric)).rival == rival
    assert jobs.trial(0, {"size": 1}).rival is None


def test_no_window_of_a_comparison_ends_early():
    jobs = Jobs(spec_of({"maximize": "throughput_steps_per_s"}), Path("nowhere"))
    assert jobs.window({"size": 3}, "pair", exclusive=False).rival is None
