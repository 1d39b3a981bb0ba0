"""A configuration is named only when it fits with the largest inputs, not only with the usual ones."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from modes import MEMORY, RATE, SPEED, TRIALS, Windows, machine, study
from simulated_machine import Simulated, make_job

from autotuner.events import ignore
from autotuner.executors.inline import InlineExecutor
from autotuner.executors.process import ProcessExecutor
from autotuner.jobs import PROOF_STEPS, Jobs
from autotuner.spec.expressions import Limit
from autotuner.spec.model import Objective, StudySpec
from autotuner.spec.parameters import Parameter
from autotuner.types import Decision, Failure, FailureKind, MeasurementProtocol
from autotuner.verify.proof import prove_memory
from autotuner.verify.verification import confirm, verify
from autotuner.workloads.python_object import PythonObject

OURS = """
import time

class Padded:
    def __init__(self, config):
        self.size = config["batch"]
    def step(self):
        time.sleep(0.001)
        return {"samples": self.size}
    def worst_step(self):
        held = bytearray(self.size * 2**20)
        return {"samples": self.size, "held": held[-1]}

class Even:
    def __init__(self, config): ...
    def step(self):
        return {"samples": 1}
"""


class Sized(Simulated):
    """Its steps differ in memory."""

    @property
    def sized(self):
        return True


@dataclass
class Proving(Windows):
    def proof(self, config):
        return replace(make_job(config, "proof", True), proves_memory=True)


def refusing(*modes):
    """A machine on which the largest inputs of some modes run out of memory."""

    def fault(job, standing):
        too_large = job.proves_memory and job.config["mode"] in modes
        return Failure(FailureKind.OUT_OF_MEMORY, "no room") if too_large else None

    return machine(lambda config: {RATE: SPEED[config["mode"]], MEMORY: 1e9}, fault=fault)


def sized_study(**more):
    return study(**more).model_copy(update={"workload": Sized(kind="simulated")})


def test_what_does_not_fit_on_the_largest_inputs_gives_the_next_finalist_its_chance():
    pool = refusing("b")
    found = verify(sized_study(), pool, Proving(), TRIALS, lambda: 1e9, ignore)
    assert found.decision is Decision.BETTER
    assert found.config == {"mode": "c"}
    assert found.worst_case == {MEMORY: 1e9, "steps": PROOF_STEPS}
    assert not any("contest" in job.launch and job.config["mode"] == "b" for job in pool.jobs)


def test_what_does_not_fit_is_not_raced_and_others_take_its_place():
    """Many configurations are at the edge: neither a race nor an attempt is wasted on them."""
    pool = refusing("b", "c")
    found = verify(sized_study(budget={"finalists": 1}), pool, Proving(), TRIALS, lambda: 1e9, ignore)
    assert found.config == {"mode": "d"}
    assert {job.config["mode"] for job in pool.jobs if job.launch.startswith("contest")} == {"a", "d"}
    nothing = refusing("b", "c", "d")
    found = verify(sized_study(), nothing, Proving(), TRIALS, lambda: 1e9, ignore)
    assert found.decision is Decision.INVALID
    assert "largest inputs" in found.reason
    assert {job.launch for job in nothing.jobs} == {"proof"}


def test_a_limit_holds_on_the_largest_inputs_too():
    spec = sized_study(limits=["peak_memory_bytes <= 500 MiB"])
    proof = prove_memory(spec, refusing("b"), Proving(), {"mode": "c"})
    assert "which breaks peak_memory_bytes <= 500 MiB" in proof.refusal


def test_steps_that_are_all_alike_need_no_proof():
    pool = refusing("b")
    assert prove_memory(study(), pool, Proving(), {"mode": "b"}).refusal == ""
    assert pool.jobs == []


def test_a_claim_is_proven_again():
    claim = verify(sized_study(), refusing("none"), Proving(), TRIALS, lambda: 1e9, ignore)
    assert confirm(sized_study(), refusing("none"), Proving(), claim, ignore).worst_case == claim.worst_case
    lost = confirm(sized_study(), refusing("b"), Proving(), claim, ignore)
    assert lost.decision is Decision.INVALID
    assert "NOT confirmed" in lost.reason


@pytest.mark.parametrize(("name", "refused"), [("Padded", True), ("Even", False)])
def test_ones_own_class_is_proven_on_its_largest_step(tmp_path: Path, name, refused):
    """Real processes: ordinary steps need next to nothing."""
    (tmp_path / "ours.py").write_text(OURS)
    spec = StudySpec(
        name="own", workload=PythonObject(object=f"{tmp_path}/ours.py:{name}", imports=()), executor=InlineExecutor(),
        parameters={"batch": Parameter(choices=(1, 500), default=1)}, objectives=(Objective(maximize=RATE),),
        limits=(Limit.parse("peak_memory_bytes <= 400 MiB"),), protocol=MeasurementProtocol(warmup_min_s=0.0),
    )  # fmt: skip
    jobs = Jobs(spec, tmp_path)
    with ProcessExecutor().open() as pool:
        small, large = (prove_memory(spec, pool, jobs, {"batch": size}) for size in (1, 500))
    assert small.refusal == ""
    assert bool(large.refusal) is refused
    assert bool(small.worst_case) is refused, "what has no largest step is not run"
