"""The contest on a real pool: real windows of real steps, with a difference that no busy machine can hide."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pytest

from autotuner.events import ignore
from autotuner.executors.inline import InlineExecutor
from autotuner.plugins import Job, Step, Workload
from autotuner.spec.model import Goal, Objective
from autotuner.types import Decision, MeasurementProtocol
from autotuner.verify.contest import contest

pytestmark = pytest.mark.alone
PROTOCOL = MeasurementProtocol(block_s=0.004, warmup_min_s=0.0, min_measure_s=0.0, max_measure_s=0.02)


class Sleeper(Workload):
    """A step takes as long as the configuration says, at least."""

    kind: Literal["sleeper"] = "sleeper"

    @contextmanager
    def open(self, config, device) -> Iterator["Sleeper"]:
        yield self

    def step(self, config) -> Step:
        time.sleep(config["step_s"])
        return Step({"requests": 1})

    def outputs(self, config, reference) -> Mapping[str, Any]:
        return {}


def make_job(config, launch, exclusive) -> Job:
    return Job(Sleeper(kind="sleeper"), config, PROTOCOL, launch=launch, exclusive=exclusive)


def test_a_real_difference_is_found():
    objective = Goal((Objective(maximize="throughput_requests_per_s"),))
    with InlineExecutor().open() as pool:
        result = contest(
            pool, make_job, {"step_s": 0.0005}, {"step_s": 0.02}, objective,
            stage="contest", seed=0, deadline=lambda: math.inf, listener=ignore,
        )  # fmt: skip
    assert result.decision is Decision.BETTER
    assert result.launches >= 3
    assert result.gain_ratio > 3
    assert len(result.candidate_samples["latency_s"]) > len(result.pairs)
