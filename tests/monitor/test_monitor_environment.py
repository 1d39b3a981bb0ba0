import getpass
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner.monitor.environment import environment_key, fingerprint, machine_line
from autotuner.testing.nvml_replay import compile_library


def test_a_fingerprint_names_hardware_versions_and_the_model():
    found = fingerprint("cpu", {"model": "glm", "model_hash": "abc"})
    assert {"cpu", "cores", "memory_bytes", "kernel", "python", "torch", "transformers", "numpy"} <= set(found)
    assert (found["model"], found["model_hash"]) == ("glm", "abc")
    assert "gpu" not in found
    assert int(found["memory_bytes"]) % 2**30 == 0
    assert fingerprint("cpu", {"model": "glm", "model_hash": "abc"}) == found


def test_a_fingerprint_tells_nobody_whose_machine_it_is():
    text = " ".join(fingerprint("cpu", {}).values())
    for private in (platform.node(), getpass.getuser(), str(Path.home()), str(Path.cwd()), sys.prefix):
        assert len(private) < 5 or private not in text


def test_a_fingerprint_imports_nothing_heavy():
    program = """
import sys
from autotuner.monitor.environment import fingerprint
assert fingerprint("cuda", {})["torch"]
assert not {"torch", "transformers", "numpy", "optuna"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_a_process_with_torch_finds_the_same_environment_as_one_without():
    program = """
from autotuner.monitor import environment
before = environment.fingerprint("cpu", {})
import torch, transformers
environment._versions.cache_clear()
environment._host.cache_clear()
assert environment.fingerprint("cpu", {}) == before
assert before["torch"] == torch.__version__
assert before.get("cuda") == torch.version.cuda
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_gpu_belongs_to_the_fingerprint_where_it_computes(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    compile_library(tmp_path)
    program = """
import os
from autotuner.monitor.environment import fingerprint, machine_line
assert "gpu" not in fingerprint("cpu", {})
found = fingerprint("cuda", {})
print(found["gpu"], found["driver"], found["gpu_memory_bytes"])
print(machine_line(found))
os.environ["CUDA_VISIBLE_DEVICES"] = ""
assert "gpu" not in fingerprint("cuda", {})
os.environ["CUDA_VISIBLE_DEVICES"] = "MIG-1"
print(fingerprint("cuda", {})["gpu"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    named, line, slice_ = run.stdout.splitlines()
    assert named == f"NVIDIA H200 (replay) 580.00.00 {141 * 2**30}"
    assert ", NVIDIA H200 (replay), torch " in line
    assert slice_ == "MIG slice (replay)"


def test_a_machine_in_one_line():
    seen = {"cpu": "AMD EPYC", "cores": "2", "memory_bytes": str(24 * 2**30)}
    seen |= {"torch": "2.13.0+cpu", "transformers": "5.23.0"}
    assert machine_line(seen) == "2 x AMD EPYC cores, 24 GiB, no GPU, torch 2.13.0, transformers 5.23.0"
    assert machine_line(seen | {"gpu": "NVIDIA H200"}).split(", ")[2] == "NVIDIA H200"
    assert machine_line({}) == "? x unknown cores, no GPU"


def test_the_key_changes_with_any_value_and_not_with_the_order():
    seen = fingerprint("cpu", {"model": "a"})
    assert environment_key(seen) == environment_key(dict(reversed(seen.items())))
    keys = {environment_key(seen | {name: value + "x"}) for name, value in seen.items()}
    assert len(keys | {environment_key(seen)}) == len(seen) + 1
