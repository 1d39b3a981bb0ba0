"""NVML and GPM of a real device: signals under a known load, and a trace that replays to the last bit."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotuner.monitor import gpu
from autotuner.monitor.gpu import GpuProbe
from autotuner.testing.nvml_replay import compact, compile_library

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
AUTOTUNE = "from autotuner.cli.main import app; app()"
GPM = {"sm_busy_ratio", "sm_occupancy_ratio", "tensor_busy_ratio", "dram_busy_ratio"}


@contextmanager
def load(name: str) -> Iterator[None]:
    argv = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "loads.py"), name, "--seconds", "120"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        yield
        process.kill()


def window(name: str, seconds: float = 2.0) -> dict[str, float]:
    with load(name), GpuProbe().open("cuda") as reader:
        time.sleep(0.3)
        reader.read()
        time.sleep(seconds)
        return dict(reader.read())


def has_gpm() -> bool:
    return not {"gpm_unsupported", "gpm_not_permitted"} & {condition.name for condition in gpu.conditions()}


def test_this_device_answers(device: gpu.Gpu) -> None:
    assert gpu.state(device.uuid).name in ("ready", "old_driver", "gpm_unsupported", "gpm_not_permitted", "mig_slice")


def test_signals_under_matmul_and_copy_differ_as_they_must() -> None:
    idle, products, copy = (window(name) for name in ("idle", "matmul", "copy"))
    for seen in (idle, products, copy):
        assert all(0 <= value <= 1 for name, value in seen.items() if name.endswith("_ratio")), seen
        assert "gpu_lost" not in seen
        assert seen["gpu_energy_j"] == pytest.approx(seen["power_w"] * 2.0, rel=0.4)
    assert idle["gpu_busy_ratio"] < 0.1 < 0.8 < products["gpu_busy_ratio"]
    assert products["power_w"] > 1.5 * idle["power_w"]
    if not has_gpm():
        pytest.skip("no GPM here: " + "; ".join(condition.sentence for condition in gpu.conditions()))
    assert products.keys() >= GPM
    assert idle["sm_busy_ratio"] < 0.05
    assert products["tensor_busy_ratio"] > 0.4 > 0.1 > copy["tensor_busy_ratio"]
    assert copy["dram_busy_ratio"] > 0.5
    assert copy["dram_busy_ratio"] > products["dram_busy_ratio"]


def test_reading_does_not_hold_a_worker_up() -> None:
    """What a real driver takes for its answers; the bound is loose, the number is for the log."""
    with GpuProbe().open("cuda") as reader:
        costs_s = []
        for _ in range(10):
            time.sleep(0.12)
            began_s = time.perf_counter()
            reader.read()
            costs_s.append(time.perf_counter() - began_s)
    print("seconds a read:", sorted(costs_s))
    assert sorted(costs_s)[5] < 0.1


def test_a_recorded_trace_replays_to_the_last_bit(tmp_path: Path, device: gpu.Gpu) -> None:
    with load("matmul"):
        lines = list(gpu.record(device, 2.0, load="matmul"))
    (tmp_path / "real.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    header, *moments = lines
    assert (header["replay"], header["synthetic"], len(moments)) == (False, False, 20)
    assert any(answer[0] == 0 for answer in moments[0]["answers"].values())
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    env |= {
        "LD_LIBRARY_PATH": str(compile_library(tmp_path).parent),
        "NVML_REPLAY_TRACE": str(compact(tmp_path / "real.jsonl", tmp_path / "compact.txt")),
        "NVML_REPLAY_STEPS": "1",
    }
    argv = [sys.executable, "-c", AUTOTUNE, "gpu", "record", "--seconds", "2", "--out", str(tmp_path / "again.jsonl")]
    subprocess.run(argv, env=env, check=True, cwd=ROOT, capture_output=True)
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert again[0]["name"] == f"{device.name} (replay)"
    assert [line["answers"] for line in again[1:]] == [line["answers"] for line in moments]
