"""Everything here needs a real GPU: `pytest tests/gpu -m gpu`. Without one it is skipped."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotuner.monitor import gpu

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))
SETTLING_LIMIT_S = 30.0
SLACK_BYTES = 256 * 2**20  # the driver keeps a little after a first context


def settled_bytes(uuid: str, below_bytes: float) -> int:
    """Memory in use, as soon as it is below a bound, or when time is up; freeing is not instant."""
    deadline_s = time.monotonic() + SETTLING_LIMIT_S
    while (used := gpu.used_memory_bytes(uuid) or 0) > below_bytes and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return used


@pytest.fixture(scope="session")
def device() -> gpu.Gpu:
    """The GPU under test."""
    found = [one for one in gpu.gpus() if not one.is_replay and one.uuid == gpu.visible_uuid("cuda")]
    if not found:
        pytest.skip("no NVIDIA GPU is visible")
    return found[0]


@pytest.fixture(autouse=True)
def clean(device: gpu.Gpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers find the workload of this folder; and whatever a test did, the GPU's memory is back after it."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    before = gpu.used_memory_bytes(device.uuid)
    assert before is not None, "the driver must say how much memory is in use"
    yield
    assert settled_bytes(device.uuid, before + SLACK_BYTES) <= before + SLACK_BYTES, "memory is not back"
