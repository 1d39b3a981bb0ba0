"""The opponent gets a fair hearing: its five thresholds, their order, and its division of a step."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.types import Binding

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from labelled.opponent import Profile, by_utilisation, exclusive_ratios, generous, strict

QUIET = Profile(dataloader_ratio=0.0, communication_ratio=0.0)
ON_GPU = replace(QUIET, utilisation_ratio=0.9, eligible_ratio=0.0, memory_ratio=0.5)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (QUIET, Binding.UNKNOWN),
        (replace(QUIET, dataloader_ratio=0.051), Binding.INPUT),
        (replace(QUIET, dataloader_ratio=0.05), Binding.UNKNOWN),
        (replace(QUIET, communication_ratio=0.11), Binding.COMMUNICATION),
        (replace(QUIET, communication_ratio=0.9, dataloader_ratio=0.06), Binding.INPUT),
        (ON_GPU, Binding.UNKNOWN),
        (replace(ON_GPU, utilisation_ratio=0.49, eligible_ratio=0.3), Binding.HOST_LAUNCH),
        (replace(ON_GPU, eligible_ratio=0.01, memory_ratio=0.95), Binding.COMPUTE),
        (replace(ON_GPU, memory_ratio=0.91), Binding.CAPACITY),
    ],
)
def test_its_thresholds_in_its_order(profile: Profile, said: Binding) -> None:
    assert strict(profile) == said


def test_on_a_cpu_only_waiting_is_seen() -> None:
    """Its other rules look at a GPU."""
    busy = replace(QUIET, cpu_utilisation_ratio=0.1, cpu_eligible=True, cpu_memory_ratio=0.99)
    assert strict(busy) == Binding.UNKNOWN


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (replace(QUIET, cpu_utilisation_ratio=0.4), Binding.HOST_LAUNCH),
        (replace(QUIET, cpu_utilisation_ratio=0.9, cpu_eligible=True), Binding.COMPUTE),
        (replace(QUIET, cpu_utilisation_ratio=0.9, cpu_memory_ratio=0.95), Binding.CAPACITY),
        (replace(QUIET, cpu_utilisation_ratio=0.9, waited_communication_ratio=0.5), Binding.COMMUNICATION),
        (replace(QUIET, cpu_utilisation_ratio=0.9), Binding.UNKNOWN),
        (replace(ON_GPU, cpu_utilisation_ratio=0.1), Binding.UNKNOWN),  # the GPU's own utilisation counts
    ],
)
def test_read_generously_a_cpu_stands_for_the_gpu(profile: Profile, said: Binding) -> None:
    assert generous(profile) == said


def test_utilisation_rule() -> None:
    assert (by_utilisation(0.9), by_utilisation(0.4)) == (Binding.COMPUTE, Binding.INPUT)


def test_a_moment_counts_once_for_the_role_that_comes_first() -> None:
    roles = {"kernel": [(2.0, 4.0), (3.0, 5.0)], "communication": [(4.0, 7.0)], "operators": [(0.0, 20.0)]}
    assert exclusive_ratios(roles, 0.0, 10.0) == pytest.approx({"kernel": 0.3, "communication": 0.2, "operators": 0.5})
