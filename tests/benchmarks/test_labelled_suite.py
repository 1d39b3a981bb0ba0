"""A few of the labelled workloads, one of each kind: the whole suite is `benchmarks/diagnosis.py`.

Margins are wide, for a machine under test is never quiet: what somebody else disturbed is left out, as in the suite.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.types import Binding, Diagnosis

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from labelled.cases import Case, cases, part
from labelled.lab import ATTEMPTS, Lab, Result, hogs, open_lab, run_cases
from labelled.scoring import accuracy, confusion

pytestmark = pytest.mark.alone
NAMES = (
    "input: sleeping, 1 worker", "host: adds", "compute: matmul 1024", "memory: triad",
    "communication: all-reduce, late peer", "capacity: launches, near the limit", "70/30: input, compute",
    "unknown: sleep",
)  # fmt: skip
FEWEST_COUNTED, PATIENCE_S, TRIES = 4, 5.0, 3


def result(said: Binding, *truth: Binding, confirmed: bool = False) -> Result:
    case = Case("a case", "group", truth, ())
    return Result(case, truth, Diagnosis(said, confirmed=confirmed), {"other": Binding.UNKNOWN})


def test_there_are_enough_cases_of_every_kind() -> None:
    found = cases()
    assert len(found) >= 60
    assert {case.truth[0] for case in found} == set(Binding)
    assert all(len(case.parts) == len(case.shares) for case in found if case.shares)
    assert {case.name for case in found} >= set(NAMES)


def test_gpu_cases_use_the_same_parts() -> None:
    assert {case.truth[0] for case in cases("cuda")} >= {
        Binding.INPUT, Binding.HOST_LAUNCH, Binding.MEMORY_BANDWIDTH, Binding.COMPUTE, Binding.CAPACITY,
    }  # fmt: skip


def test_nothing_that_a_diagnosis_could_read_tells_the_truth() -> None:
    labels = {label.value for label in Binding}
    for case in cases():
        options = " ".join(spec.model_dump_json() for spec in case.parts)
        assert not any(label in options for label in labels), case.name


def test_scores() -> None:
    results = [
        result(Binding.INPUT, Binding.INPUT),
        result(Binding.COMPUTE, Binding.UNKNOWN, Binding.COMPUTE),
        result(Binding.INPUT, Binding.COMPUTE, confirmed=True),
        Result(Case("left out", "group", (Binding.INPUT,), ()), (Binding.INPUT,), None, skipped="disturbed"),
    ]
    assert accuracy(results) == pytest.approx(2 / 3)
    assert [each.confidently_wrong for each in results] == [False, False, True, False]
    assert confusion(results).splitlines()[2].split() == ["compute", "1", ".", ".", "1", ".", ".", ".", "."]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        with open_lab(tmp_path_factory.mktemp("lab"), patience_s=PATIENCE_S) as opened:
            yield opened


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "resource"),
    [
        (part("loader", 4, what="sleeping"), Binding.INPUT),
        (part("collective", 4, delay_s=2e-3), Binding.COMMUNICATION),
        (part("calls", 400, what="adds"), Binding.HOST_LAUNCH),
        (part("matmul", n=1024, sets=1), Binding.COMPUTE),
    ],
    ids=lambda value: value if isinstance(value, Binding) else "",
)
def test_a_relief_takes_most_of_the_time_away(lab: Lab, spec: object, resource: Binding) -> None:
    """Relieved of all its demand, a step takes less than half; somebody else's work may hide that, but not always."""
    assert any(lab.relieved_ratio((spec,), resource) < 0.5 for _ in range(TRIES))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_diagnosis_is_right_and_never_confirmed_and_wrong(lab: Lab) -> None:
    results = run_cases(lab, [case for case in cases() if case.name in NAMES], ATTEMPTS, lambda result: None)
    said = "\n".join(f"{each.case.name}: {each.answer or each.skipped}" for each in results)
    assert not any(each.confidently_wrong for each in results), said
    counted = [each for each in results if each.answer is not None]
    if len(counted) < FEWEST_COUNTED:
        pytest.skip(f"the machine is too busy: {said}")
    assert sum(each.right for each in counted) >= len(counted) - 1, said


@pytest.mark.slow
def test_among_hogs_a_measurement_is_invalid(lab: Lab) -> None:
    with hogs(2):
        answer = lab.diagnosis((part("matmul", n=512, sets=1),))
    assert answer.binding is Binding.INVALID
