"""The real binding (nvidia-ml-py) over the C library of `autotuner.testing.nvml_replay`, in processes of their own."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from autotuner.monitor import gpu
from autotuner.testing.nvml_replay import compile_library

FIRST, SECOND = (f"GPU-0000000{index}-0000-0000-0000-000000000000" for index in range(2))
PRELUDE = """
import json, os, subprocess, sys, time
from autotuner.monitor import gpu

def show(value):
    print(json.dumps(value))

def window(seconds=0.9, device="cuda", **environment):
    os.environ.update(environment)
    with gpu.GpuProbe().open(device) as reader:
        time.sleep(seconds)
        seen = reader.read()
    for name in environment:
        del os.environ[name]
    return seen
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return compile_library(tmp_path_factory.mktemp("nvml")).parent


@pytest.fixture
def ask(library):
    def run(program: str, **environment: str) -> list:
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        env |= {"LD_LIBRARY_PATH": str(library)} | environment
        done = subprocess.run([sys.executable, "-c", PRELUDE + program], env=env, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_gpus_and_their_choice(ask):
    shown = ask(
        """
found = gpu.gpus()
show([[g.index, g.uuid, g.name, g.memory_bytes, g.driver, g.is_replay] for g in found])
show([gpu.visible_uuid(device) for device in ("cuda", "cuda:1", "cuda:2", "cpu")])
for visible in ("1", "GPU-00000001", "1,0", "", "-1", "7", "MIG-1234"):
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    show(gpu.visible_uuid("cuda"))
for visible in ("", "1", "1, 0", "GPU-00000001,0,1", "0,7,1", "-1", "MIG-1234,1"):
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    show([g.uuid for g in gpu.visible_gpus()])
"""
    )
    assert shown[0] == [
        [0, FIRST, "NVIDIA H200 (replay)", 141 * 2**30, "580.00.00", True],
        [1, SECOND, "NVIDIA H200 (replay)", 141 * 2**30, "580.00.00", True],
    ]
    assert shown[1] == [FIRST, SECOND, "", ""]
    assert shown[2:9] == [SECOND, SECOND, SECOND, "", "", "", "MIG-1234"]
    assert shown[9:] == [[], [SECOND], [SECOND, FIRST], [SECOND, FIRST], [FIRST], [], ["MIG-1234", SECOND]]


@pytest.mark.parametrize("code", [4, 9, 18])  # no permission, driver not loaded, library and driver do not match
def test_a_driver_that_does_not_answer_is_no_gpu(ask, code):
    shown = ask(
        """
show([gpu.gpus(), gpu.processes("GPU-00000000"), gpu.used_memory_bytes("GPU-00000000"), window(0.0)])
""",
        NVML_REPLAY_INIT=str(code),
    )
    assert shown == [[[], None, None, {}]]


def test_a_gpu_that_does_not_say_who_it_is_is_left_out(ask):
    assert ask("show(gpu.gpus())", NVML_REPLAY_FAIL="uuid:4") == [[]]


def test_without_the_library_there_is_no_gpu(tmp_path):
    if gpu.gpus():
        pytest.skip("there is one")
    with gpu.GpuProbe().open("cuda") as reader:
        assert reader.read() == {}
    assert (gpu.processes(FIRST), gpu.used_memory_bytes(FIRST)) == (None, None)


def test_a_window_has_its_signals_in_si_units(ask):
    (seen, throttled, on_cpu) = ask(
        """
show(window(1.3, NVML_REPLAY_PIDS=str(os.getpid())))
show(window(0.5, NVML_REPLAY_THROTTLE="74:800,269:300,270:400,271:100"))
show(window(0.0, "cpu"))
"""
    )
    assert on_cpu == {}
    energy_j = seen.pop("gpu_energy_j")
    assert 350 * 1.2 < energy_j < 350 * 30
    assert seen == {
        "power_w": 350.0,
        "sm_clock_hz": 1.7e9,
        "memory_used_bytes": 2 * 2**30,
        "temperature_celsius": 61.0,
        "throttle_power_cap_ratio": 0.0,
        "throttle_thermal_ratio": 0.0,
        "throttle_brake_ratio": 0.0,
        "gpu_foreign_processes": 0,
    }
    assert 0.62 < throttled["throttle_power_cap_ratio"] <= 1
    assert 0.31 < throttled["throttle_thermal_ratio"] < 0.6  # the larger of the two, not their sum
    assert 0.05 < throttled["throttle_brake_ratio"] < 0.2
    assert "gpu_energy_j" not in throttled  # too short a window for this counter


def test_each_signal_fails_alone(ask):
    signals = {
        "power": {"power_w"},
        "clock": {"sm_clock_hz"},
        "memory": {"memory_used_bytes"},
        "temperature": {"temperature_celsius"},
        "processes": {"gpu_foreign_processes"},
    }
    full, *without = ask(
        f"""
os.environ["NVML_REPLAY_PIDS"] = str(os.getpid())
show(sorted(window(0.5)))
for name in {list(signals)}:
    show(sorted(window(0.5, NVML_REPLAY_FAIL=name + ":3")))
"""
    )
    assert {tuple(set(full) - set(left)) for left in without} == {tuple(names) for names in signals.values()}
    assert len(full) == 8


def test_an_older_driver_without_fields_still_tells_its_power(ask):
    (seen,) = ask("show(window(0.5, NVML_REPLAY_FAIL='fields:13'))")
    assert seen["power_w"] == 300.0  # the replay's average differs from its instant
    assert not [name for name in seen if name.startswith("throttle")]


def test_an_energy_counter_that_steps_back_is_left_out(ask):
    (seen,) = ask("show(window(1.1, NVML_REPLAY_ENERGY_RESET='1'))")
    assert "gpu_energy_j" not in seen
    assert seen["power_w"] == 350.0


def test_a_gpu_that_is_lost_goes_silent_and_raises_nothing(ask):
    seen = ask(
        """
os.environ["NVML_REPLAY_LOST_AFTER"] = "12"
with gpu.GpuProbe().open("cuda") as reader:
    time.sleep(0.9)
    show(reader.read())
    time.sleep(0.5)
    show(reader.read())
show(gpu.processes("GPU-00000000"))
"""
    )
    assert "power_w" in seen[0]
    assert "throttle_thermal_ratio" not in seen[0]
    assert seen[1:] == [{}, None]


def test_who_else_computes_on_the_gpu(ask):
    shown = ask(
        """
child, stranger = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
me, init = os.getpid(), os.getppid()
def processes(pids, used=0):
    os.environ.update(NVML_REPLAY_PIDS=",".join(map(str, pids)), NVML_REPLAY_USED=str(used))
    found = gpu.processes("GPU-00000000")
    return found if found is None else [pid in (me, child.pid) for pid in found]
show(processes([]))                    # nobody
show(processes([], 3 << 30))           # nobody listed, and yet 3 GiB in use: hidden by a container
show(processes([me, child.pid]))
show(processes([me, 4_000_000_000]))   # no such process here: numbers of another namespace
for pids in ([], [me], [me, child.pid], [me, init], [init], [me, child.pid, init]):
    show(window(0.0, NVML_REPLAY_PIDS=",".join(map(str, pids))).get("gpu_foreign_processes"))
child.kill(), stranger.kill(), child.wait(), stranger.wait()
"""
    )
    assert shown[:4] == [[], None, [True, True], None]
    assert shown[4:] == [None, 0, 0, 1, None, 1]


def test_workers_of_one_fork_server_are_no_strangers_to_each_other(ask):
    with subprocess.Popen(["sleep", "60"]) as sibling:
        program = f"show(window(0.0, NVML_REPLAY_PIDS=f'{{os.getpid()}},{sibling.pid}')['gpu_foreign_processes'])"
        assert ask(program) == [1]
        assert ask(program, AUTOTUNE_SERVER="1") == [1], "of another study"
        assert ask(program, AUTOTUNE_SERVER=str(os.getpid())) == [0]
        sibling.kill()


def test_throttling_says_what_held_the_gpu_back():
    assert gpu.throttling({}) == ""
    assert gpu.throttling({"throttle_power_cap_ratio": 0.9, "gpu_foreign_processes": 0}) == ""
    assert "too hot" in gpu.throttling({"throttle_thermal_ratio": 0.001})
    assert "power supply" in gpu.throttling({"throttle_thermal_ratio": 0.0, "throttle_brake_ratio": 0.2})
    assert gpu.throttling({"gpu_foreign_processes": 1}) == "1 other process used the GPU"
    assert "2 other processes" in gpu.throttling({"gpu_foreign_processes": 2})
