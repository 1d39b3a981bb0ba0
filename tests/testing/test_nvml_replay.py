"""Traces: what `gpu record` writes, the library plays back to the last bit; and what is measured there stays there.

The only trace is a synthetic one, as its header says: no GPU was at hand when it was written.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner.errors import UsageError
from autotuner.exporters.bundle import make_bundle
from autotuner.exporters.env_file import EnvExporter
from autotuner.exporters.json_file import JsonExporter
from autotuner.monitor.gpu import TRACE_FORMAT
from autotuner.testing.exporters import recommendation
from autotuner.testing.nvml_replay import compact, compile_library

SYNTHETIC = Path(__file__).parent / "data" / "h200_synthetic.jsonl"
AUTOTUNE = "from autotuner.cli.main import app; app()"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return compile_library(tmp_path_factory.mktemp("nvml")).parent


@pytest.fixture
def run(library, tmp_path):
    def run(program, *words, trace=None, **environment):
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        env |= {"LD_LIBRARY_PATH": str(library), "TMPDIR": str(tmp_path)} | environment
        if trace is not None:
            env["NVML_REPLAY_TRACE"] = str(compact(trace, tmp_path / "compact.txt"))
        argv = [sys.executable, "-c", program, *map(str, words)]
        return subprocess.run(argv, env=env, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)

    return run


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recorded(run, trace, out, seconds, **environment):
    done = run(AUTOTUNE, "gpu", "record", "--seconds", seconds, "--out", out, trace=trace, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return lines_of(out)


def test_the_synthetic_trace_says_what_it_is():
    header, *moments = lines_of(SYNTHETIC)
    assert header["synthetic"] is True
    assert header["name"].endswith("(synthetic)")
    assert (header["format"], len(moments)) == (TRACE_FORMAT, 40)


def test_recording_a_replay_gives_the_trace_back(run, tmp_path):
    """Question by question, values and return codes, GPM too; and again from the copy."""
    header, *moments = lines_of(SYNTHETIC)
    source = SYNTHETIC
    for turn in range(2):
        out = tmp_path / f"{turn}.jsonl"
        again_header, *again = recorded(run, source, out, 1.5 if turn else 2.0, NVML_REPLAY_STEPS="1")
        assert len(again) == (15 if turn else 20)
        assert [line["answers"] for line in again] == [line["answers"] for line in moments[: len(again)]]
        assert again_header["answers"] == header["answers"]
        assert again_header.keys() == header.keys() - {"note"}
        assert again_header["name"] == "NVIDIA H200 (synthetic) (replay)"
        assert (again_header["replay"], again_header["synthetic"]) == (True, True)
        assert (again_header["driver"], again_header["nvml"]) == (header["driver"], header["nvml"])
        source = out


def test_by_the_clock_a_trace_shows_its_phases(run):
    program = """
import json, time
from autotuner.monitor import gpu
with gpu.GpuProbe().open("cuda") as reader:
    began_s = time.monotonic()
    for until_s in (0.9, 1.2, 2.8):
        time.sleep(max(0, began_s + until_s - time.monotonic()))
        print(json.dumps(reader.read()))
"""
    done = run(program, trace=SYNTHETIC)
    idle, _, matmul = map(json.loads, done.stdout.splitlines())
    assert idle["sm_busy_ratio"] < 0.05
    assert idle["gpu_busy_ratio"] < 0.2
    assert idle["throttle_power_cap_ratio"] == 0
    assert matmul["sm_busy_ratio"] == pytest.approx(0.986, rel=0.02)
    assert matmul["tensor_busy_ratio"] == pytest.approx(0.913, rel=0.02)
    assert matmul["dram_busy_ratio"] == pytest.approx(0.375, rel=0.02)
    assert matmul["pcie_tx_bytes_per_s"] == pytest.approx(11 * 2**20, rel=0.05)
    assert "nvlink_rx_bytes_per_s" not in matmul
    assert 0.6 < matmul["throttle_power_cap_ratio"] <= 1
    assert matmul["power_w"] == pytest.approx(688, rel=0.02)
    assert 688 * 1.0 < matmul["gpu_energy_j"] < 688 * 3


def test_gpm_between_two_moments_far_apart_is_their_mean(run):
    """Weighted with time, as the hardware's counters would say; the moment of the first sample is over by then."""
    moments = lines_of(SYNTHETIC)[1:]
    program = """
import pynvml
from autotuner.monitor.gpu import gpm, nvml, visible_uuid
with nvml.device(visible_uuid("cuda")) as device, gpm.opened(device) as counted:
    for step in range(13):
        nvml.memory_v2(device.handle)
        if step in (8, 12):
            answers = counted.answers()[2]
print(repr(answers[10][1]))
"""
    done = run(program, trace=SYNTHETIC, NVML_REPLAY_STEPS="1")
    spans_s = [moments[place]["at_s"] - moments[place - 1]["at_s"] for place in range(9, 13)]
    values = [moments[place]["answers"]["nvmlGpmMetricsGet:10"][1] for place in range(9, 13)]
    mean = sum(a * b for a, b in zip(spans_s, values, strict=True)) / sum(spans_s)
    assert float(done.stdout) == pytest.approx(mean, rel=1e-9)


def test_faults_strike_a_trace_as_well(run, tmp_path):
    out = tmp_path / "lost.jsonl"
    _, *moments = recorded(run, SYNTHETIC, out, 0.4, NVML_REPLAY_FAIL="power:4,gpm:4", NVML_REPLAY_LOST_AFTER="40")
    first, last = moments[0]["answers"], moments[-1]["answers"]
    assert (first["nvmlDeviceGetPowerUsage"], first["nvmlGpmSampleGet"]) == ([4], [4])
    assert first["nvmlDeviceGetClockInfo:1"] == [0, 345]
    assert {answer[0] for answer in last.values()} == {15}


def test_what_is_no_trace_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"format": "other"}\n')
    with pytest.raises(ValueError, match="no trace"):
        compact(tmp_path / "x.jsonl", tmp_path / "y")


def test_recording_refuses_in_one_line(run, tmp_path):
    out = tmp_path / "a.jsonl"
    refusals = {
        "there is nothing to record: NVML is there, but NVIDIA's driver is not loaded": {"NVML_REPLAY_INIT": "9"},
        "there is nothing to record: NVML works and shows no GPU": {"NVML_REPLAY_GPUS": "0"},
        "there is nothing to record: CUDA_VISIBLE_DEVICES names no GPU": {"CUDA_VISIBLE_DEVICES": "7"},
        "MIG slice (replay) cannot be recorded now": {"CUDA_VISIBLE_DEVICES": "MIG-0"},
    }
    for text, environment in refusals.items():
        done = run(AUTOTUNE, "gpu", "record", "--seconds", "0.2", "--out", out, **environment)
        assert (done.returncode, done.stdout) == (3, "")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert not out.exists()
    out.write_text("mine")
    done = run(AUTOTUNE, "gpu", "record", "--seconds", "0.2", "--out", out)
    assert done.returncode == 2
    assert out.read_text() == "mine"


def test_an_interrupted_recording_is_a_shorter_trace(library, tmp_path):
    out = tmp_path / "a.jsonl"
    program = f"""
import signal, threading, time
from pathlib import Path
def interrupt():
    while not Path({str(out)!r}).exists() or Path({str(out)!r}).read_text().count(chr(10)) < 4:
        time.sleep(0.02)
    signal.raise_signal(signal.SIGINT)
threading.Thread(target=interrupt).start()
{AUTOTUNE}
"""
    argv = [sys.executable, "-c", program, "gpu", "record", "--seconds", "60", "--out", str(out), "--json"]
    env = os.environ | {"LD_LIBRARY_PATH": str(library)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    samples = json.loads(done.stdout)["samples"]
    assert 3 <= samples <= 20
    assert len(lines_of(out)) in (samples + 1, samples + 2)  # the signal may come between writing and counting


@pytest.mark.parametrize("exporter", [JsonExporter(), EnvExporter()], ids=lambda one: one.kind)
@pytest.mark.parametrize("visible", ["0", "MIG-00000000-0000-0000-0000-000000000000"])
def test_what_was_measured_on_a_replayed_gpu_cannot_be_exported(run, tmp_path, exporter, visible):
    """From the device's name through the fingerprint, which the record keeps, to the exporter: not even by force."""
    program = (
        "import json; from autotuner.monitor.environment import fingerprint; print(json.dumps(fingerprint('cuda', {})))"
    )
    done = run(program, trace=SYNTHETIC, CUDA_VISIBLE_DEVICES=visible)
    environment = json.loads(done.stdout)
    assert environment["gpu"].endswith("(replay)")
    made = dataclasses.replace(recommendation(), environment=environment)
    with pytest.raises(UsageError, match="is no device but plays values back"):
        make_bundle(exporter, made, force=True)
    assert not (tmp_path / "out").exists()
    real = environment | {"gpu": "NVIDIA H200"}
    assert make_bundle(exporter, dataclasses.replace(made, environment=real), force=True).files
