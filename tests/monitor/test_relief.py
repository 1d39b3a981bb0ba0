"""Causal probes on workloads with known truth."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from autotuner.caches import last_level_cache_bytes
from autotuner.monitor.recorder import Recorder
from autotuner.plugins import Job, Step, Workload
from autotuner.types import Binding, Measurement, MeasurementProtocol

QUICK = MeasurementProtocol(block_s=0.02, warmup_min_s=0.01, warmup_max_s=0.1, min_measure_s=0.02, max_measure_s=3.0)


pytestmark = pytest.mark.usefixtures("simulated_clock")


class Waiting(Workload):
    """Waits 3 ms for data and works 1 ms; a resident batch takes the waiting away."""

    kind: Literal["waiting"] = "waiting"

    @contextmanager
    def open(self, config: Any, device: str) -> Iterator[Any]:
        yield Opened()


class Opened:
    def __init__(self) -> None:
        self.wait_s = 0.003

    def step(self, config: Any) -> Step:
        time.sleep(self.wait_s)
        time.sleep(0.001)
        return Step({"samples": 1}, {"input_wait_s": self.wait_s})

    def outputs(self, config: Any, reference: Any) -> dict[str, Any]:
        return {}

    def relieve(self, resource: str, config: Any) -> Any:
        return {Binding.INPUT: self._resident(), Binding.COMPUTE: self._useless()}.get(Binding(resource))

    @contextmanager
    def _resident(self) -> Iterator[float]:
        before, self.wait_s = self.wait_s, 0.0
        yield 0.0
        self.wait_s = before

    @contextmanager
    def _useless(self) -> Iterator[float]:
        yield 1.0


def probe(resource: str) -> Measurement:
    with Recorder() as recorder:
        outcome = recorder.measure(Job(Waiting(), {"n": 1}, QUICK, relieves=resource))
    assert isinstance(outcome, Measurement), outcome
    return outcome


def test_relief_of_what_binds_shortens_the_step_in_proportion():
    seen = probe("input").telemetry
    assert seen["relieved_time_ratio"] == pytest.approx(1 / 4, rel=0.01)
    assert seen["relieved_time_low_ratio"] <= seen["relieved_time_ratio"] <= seen["relieved_time_high_ratio"] < 0.3
    assert seen["relief_left_ratio"] == 0.0


def test_the_samples_are_those_of_the_step_as_it_is():
    measurement = probe("input")
    assert min(measurement.samples["input_wait_s"]) == 0.003
    assert len(measurement.samples["block_step_s"]) >= 5


def test_a_step_without_torch_is_not_counted():
    assert "relief_left_flops_ratio" not in probe("input").telemetry


@pytest.mark.parametrize("resource", ["memory_bandwidth", "compute"])
def test_without_a_relief_nothing_is_said(resource):
    measurement = probe(resource)
    assert "relieved_time_ratio" not in measurement.telemetry
    assert measurement.samples["block_step_s"]


def test_the_cache_is_the_kernels_largest(tmp_path: Path):
    for number, size in enumerate(("32K", "512K", "16M")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{number}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(size + "\n")
    assert last_level_cache_bytes(tmp_path) == 16 * 2**20
    assert last_level_cache_bytes(tmp_path / "nowhere") == 32 * 2**20
