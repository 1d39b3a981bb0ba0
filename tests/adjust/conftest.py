"""Studies over parameters that nothing runs: the landscape is a function in the test."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from autotuner.adjust.adjuster import Proposal, propose
from autotuner.adjust.space import Space
from autotuner.executors.process import ProcessExecutor
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Config, Diagnosis, Failure, FailureKind, Measurement, Trial, Verdict

Landscape = Callable[[Config], float | FailureKind]


@pytest.fixture(scope="session")
def study() -> Callable[..., StudySpec]:
    """`study(parameters, **sections)` makes a StudySpec that maximises throughput_steps_per_s."""

    def make(parameters: Mapping[str, Any], **sections: Any) -> StudySpec:
        sections.setdefault("objectives", [{"maximize": "throughput_steps_per_s"}])
        return StudySpec.model_validate(
            {"name": "s", "workload": Replay(), "executor": ProcessExecutor(), "parameters": parameters, **sections}
        )

    return make


@pytest.fixture(scope="session")
def try_out() -> Callable[..., Trial]:
    """`try_out(spec, number, proposal, landscape)` is the trial that the landscape makes of a proposal."""

    def run(spec: StudySpec, number: int, proposal: Proposal, landscape: Landscape, setup_s: float = 0.0) -> Trial:
        value = landscape(proposal.config)
        if isinstance(value, FailureKind):
            return Trial(number, proposal.config, proposal.origin, Failure(value, "no"), None)
        metric = spec.objective.metric
        measured = Measurement({metric: (value,)}, setup_s, 0, 1, {}, {}, datetime(2026, 1, 1, tzinfo=UTC))
        verdict = Verdict({metric: value}, {}, Diagnosis("unknown"))
        return Trial(number, proposal.config, proposal.origin, measured, verdict)

    return run


@pytest.fixture(scope="session")
def run_study(try_out: Callable[..., Trial]) -> Callable[..., list[Trial]]:
    """`run_study(spec, landscape)` proposes until nothing is left, and returns the record."""

    def run(spec: StudySpec, landscape: Landscape, kept: Sequence[Trial] = (), setup_s: float = 0.0) -> list[Trial]:
        space, trials = Space(spec), list(kept)
        while (proposal := propose(spec, space, trials)) is not None:
            trials.append(try_out(spec, len(trials), proposal, landscape, setup_s))
        return trials

    return run
