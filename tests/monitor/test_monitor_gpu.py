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
MIG = "MIG-00000000-0000-0000-0000-000000000000"
GPM = {  # of the replay's synthetic values: 5 id percent, 100 id MiB/s
    "sm_busy_ratio": 0.1,
    "sm_occupancy_ratio": 0.15,
    "tensor_busy_ratio": 0.25,
    "dram_busy_ratio": 0.5,
    "fp64_busy_ratio": 0.55,
    "fp32_busy_ratio": 0.6,
    "fp16_busy_ratio": 0.65,
    "pcie_tx_bytes_per_s": 2000 * 2**20,
    "pcie_rx_bytes_per_s": 2100 * 2**20,
}
PCIE = {"pcie_tx_bytes_per_s", "pcie_rx_bytes_per_s"}
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
    seen, throttled, on_cpu = ask(
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
        "memory_clock_hz": 3.201e9,
        "gpu_busy_ratio": 0.9,
        "memory_used_bytes": 2 * 2**30,
        "temperature_celsius": 61.0,
        "throttle_power_cap_ratio": 0.0,
        "throttle_sync_boost_ratio": 0.0,
        "throttle_thermal_ratio": 0.0,
        "throttle_brake_ratio": 0.0,
        "gpu_foreign_processes": 0,
        "ecc_corrected_errors": 0,
        "ecc_uncorrected_errors": 0,
        **GPM,
    }
    assert 0.62 < throttled["throttle_power_cap_ratio"] <= 1
    assert 0.31 < throttled["throttle_thermal_ratio"] < 0.6  # the larger of the two, not their sum
    assert 0.05 < throttled["throttle_brake_ratio"] < 0.2
    assert "gpu_energy_j" not in throttled  # too short a window for this counter


def test_each_signal_fails_alone(ask):
    signals = {
        "power": {"power_w"},
        "clock": {"sm_clock_hz", "memory_clock_hz"},
        "busy": {"gpu_busy_ratio"},
        "ecc": {"ecc_corrected_errors", "ecc_uncorrected_errors"},
        "gpm": set(GPM) - PCIE,  # of that the byte counters tell
        "memory": {"memory_used_bytes"},
        "temperature": {"temperature_celsius"},
        "processes": {"gpu_foreign_processes"},
    }
    full, *without = ask(
        f"""
os.environ["NVML_REPLAY_PIDS"] = str(os.getpid())
show(sorted(window(0.35)))
for name in {list(signals)}:
    show(sorted(window(0.35, NVML_REPLAY_FAIL=name + ":3")))
"""
    )
    assert [set(full) - set(left) for left in without] == list(signals.values())
    assert len(full) == 13 + len(GPM)


def test_an_older_driver_without_fields_still_tells_its_power(ask):
    (seen,) = ask("show(window(0.5, NVML_REPLAY_FAIL='fields:13'))")
    assert seen["power_w"] == 300.0  # the replay's average differs from its instant


def test_drivers_of_three_ages_tell_why_clocks_are_held_back(ask):
    """Fields, then violation counters, then the bits of a moment; what only a newer one tells is absent."""
    throttle = "74:500,269:300,policy-0:500,policy-1:300"
    counted, by_policy, by_bits, silent = ask(
        """
older = ",".join(f"field-{number}:3" for number in (74, 76, 269, 270, 271))
for failing in ("", older, older + ",violation:3", older + ",violation:3,reasons:13"):
    show(window(0.5, NVML_REPLAY_FAIL=failing))
""",
        NVML_REPLAY_THROTTLE=throttle,
        NVML_REPLAY_REASONS=str(0x20 | 0x80),
    )
    names = {f"throttle_{name}_ratio" for name in ("power_cap", "thermal", "sync_boost", "brake")}
    assert names <= counted.keys()
    assert counted["throttle_brake_ratio"] == 0, "a counter that is there is believed, not the bits"
    assert 0.4 < by_policy["throttle_power_cap_ratio"] < 0.65
    assert 0.2 < by_policy["throttle_thermal_ratio"] < 0.45
    assert by_policy["throttle_brake_ratio"] == 1.0, "no policy counts it: its bit is sampled"
    assert {name: by_bits[name] for name in names} == {
        "throttle_power_cap_ratio": 0.0,
        "throttle_thermal_ratio": 1.0,
        "throttle_sync_boost_ratio": 0.0,
        "throttle_brake_ratio": 1.0,
    }
    assert not names & silent.keys()


def test_pcie_without_gpm(ask):
    counted, measured, without = ask(
        """
for failing in ("", "field-197:3,field-198:3", "field-197:3,field-198:3,pcie:3"):
    show(window(0.5, NVML_REPLAY_FAIL=failing))
""",
        NVML_REPLAY_GPM="0",
    )
    assert counted["pcie_tx_bytes_per_s"] == pytest.approx(2e9, rel=0.2)
    assert counted["pcie_rx_bytes_per_s"] == pytest.approx(3e9, rel=0.2)
    assert (measured["pcie_tx_bytes_per_s"], measured["pcie_rx_bytes_per_s"]) == (2e9, 3e9)
    assert not PCIE & without.keys()
    assert not GPM.keys() - PCIE & counted.keys()


def test_gpm_needs_a_tenth_of_a_second_between_two_samples(ask):
    shown = ask(
        """
with gpu.GpuProbe().open("cuda") as reader:
    show(reader.read())
    time.sleep(0.15)
    show(reader.read())
    show(reader.read())
"""
    )
    assert [GPM.keys() - PCIE <= seen.keys() for seen in shown] == [False, True, False]


def test_a_mig_slice_has_its_own_memory_and_gpm_and_the_cards_clocks(ask):
    seen, fingerprint = ask(
        f"""
os.environ["CUDA_VISIBLE_DEVICES"] = "{MIG}"
seen = window(1.3, NVML_REPLAY_PIDS=str(os.getpid()))
show(seen)
show([gpu.state("cuda").name, gpu.state("{MIG}").name, gpu.used_memory_bytes("{MIG}")])
""",
        NVML_REPLAY_MIG="1",
    )
    assert seen.keys() == {
        "sm_clock_hz", "memory_clock_hz", "memory_used_bytes", "temperature_celsius", "gpu_foreign_processes",
        "throttle_power_cap_ratio", "throttle_thermal_ratio", "throttle_sync_boost_ratio", "throttle_brake_ratio",
        "ecc_corrected_errors", "ecc_uncorrected_errors", *GPM,
    }  # fmt: skip
    assert fingerprint == ["mig_slice", "mig_slice", 2 * 2**30]


def test_uncorrected_memory_errors_are_counted(ask):
    (seen,) = ask("show(window(0.9))", NVML_REPLAY_ECC="10")
    assert 5 <= seen["ecc_uncorrected_errors"] <= 60
    assert "uncorrected errors" in gpu.throttling(seen)


CONDITIONS = [
    ({"NVML_REPLAY_INIT": "9"}, "no_driver"),
    ({"NVML_REPLAY_INIT": "18"}, "version_mismatch"),
    ({"NVML_REPLAY_INIT": "4"}, "no_permission"),
    ({"NVML_REPLAY_INIT": "999"}, "nvml_failed"),
    ({"NVML_REPLAY_GPUS": "0"}, "no_gpu"),
    ({"NVML_REPLAY_LOST_AFTER": "0"}, "gpu_lost"),
    ({"NVML_REPLAY_LOST_IF": "/"}, "gpu_lost"),
    ({"NVML_REPLAY_LOST_IF": "/", "NVML_REPLAY_LOST_CODE": "16"}, "reset_required"),
    ({"NVML_REPLAY_FAIL": "memory:4"}, "no_permission"),
    ({"NVML_REPLAY_FAIL": "memory:999"}, "gpu_failed"),
    ({"NVML_REPLAY_MIG": "1"}, "mig_slice"),
    ({"NVML_REPLAY_GPM": "0"}, "gpm_unsupported"),
    ({"NVML_REPLAY_FAIL": "gpm:4"}, "gpm_not_permitted"),
    ({}, ""),
]


def test_each_bad_case_is_a_state_and_no_crash(ask):
    """Also for those who do not ask for it: reading a GPU in this state raises nothing."""
    shown = ask(
        f"""
for environment, _ in {CONDITIONS}:
    os.environ.update(environment)
    show([[c.name, c.sentence, c.mend] for c in gpu.conditions() if c.name != "replay"])
    show(gpu.state("{FIRST}").name)
    show([gpu.gpus() and 1, gpu.processes("{FIRST}"), gpu.used_memory_bytes("{FIRST}"), window(0.25)])
    for name in environment:
        del os.environ[name]
    os.environ["NVML_REPLAY_GPUS"] = "1"
""",
        NVML_REPLAY_GPUS="1",
    )
    for (_, name), found, of_device in zip(CONDITIONS, shown[::3], shown[1::3], strict=True):
        assert [condition[0] for condition in found] == ([name] if name else [])
        assert of_device in (name, "replay")
        for _, sentence, mend in found:
            assert "\n" not in sentence + mend
            assert mend or name == "mig_slice"


def test_an_old_driver_without_its_functions(tmp_path_factory):
    """Really not there, so that the binding itself says FunctionNotFound."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    missing = (
        "nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc", "nvmlGpmSampleGet", "nvmlGpmMetricsGet",
        "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetFieldValues", "nvmlDeviceGetMemoryInfo_v2",
    )  # fmt: skip
    folder = compile_library(tmp_path_factory.mktemp("old"), without=missing).parent
    program = """
show([[c.name, c.sentence, c.mend] for c in gpu.conditions() if c.name != "replay"])
show(window(0.9))
"""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder), "NVML_REPLAY_GPUS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found, seen = map(json.loads, done.stdout.splitlines())
    assert [condition[0] for condition in found] == ["old_driver", "gpm_unsupported"]
    assert (
        "580.00.00, that is too old to say which processes use it, why its clocks are held back, how busy"
        in found[0][1]
    )
    assert {"power_w", "gpu_busy_ratio", "throttle_power_cap_ratio", "memory_used_bytes"} <= seen.keys()
    assert not {"gpu_foreign_processes", "sm_busy_ratio", "throttle_brake_ratio"} & seen.keys()


def test_without_library_a_machine_says_what_it_lacks():
    if gpu.gpus():
        pytest.skip("there is a GPU")
    assert [condition.name for condition in gpu.conditions()] == ["no_library"]
    assert gpu.state("cuda") == gpu.state(FIRST) == gpu.conditions()[0]


def test_a_gpu_that_another_process_takes_away_makes_the_window_invalid(ask, tmp_path):
    marker = tmp_path / "gone"
    (seen,) = ask(
        f"""
with gpu.GpuProbe().open("cuda") as reader:
    reader.read()
    time.sleep(0.5)
    subprocess.run(["touch", {str(marker)!r}])
    show(reader.read())
""",
        NVML_REPLAY_LOST_IF=str(marker),
    )
    assert seen["power_w"] == 350.0
    assert gpu.throttling(seen) == "the GPU was lost in the middle of it"


def test_an_energy_counter_that_steps_back_is_left_out(ask):
    (seen,) = ask("show(window(1.1, NVML_REPLAY_ENERGY_RESET='1'))")
    assert "gpu_energy_j" not in seen
    assert seen["power_w"] == 350.0


def test_a_gpu_that_is_lost_goes_silent_and_raises_nothing(ask):
    seen = ask(
        """
os.environ["NVML_REPLAY_LOST_AFTER"] = "25"
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
    assert seen[0]["gpu_lost"] == 1.0
    assert seen[1:] == [{"gpu_lost": 1.0}, None]
    assert "lost" in gpu.throttling(seen[0])


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
    assert gpu.throttling({"ecc_corrected_errors": 3, "throttle_sync_boost_ratio": 0.2, "gpu_lost": 0.0}) == ""
    assert gpu.throttling({"gpu_lost": 1.0}) == "the GPU was lost in the middle of it"
    assert gpu.throttling({"ecc_uncorrected_errors": 1}) == "the GPU's memory had 1 uncorrected error"
    assert "too hot" in gpu.throttling({"throttle_thermal_ratio": 0.001})
    assert "power supply" in gpu.throttling({"throttle_thermal_ratio": 0.0, "throttle_brake_ratio": 0.2})
    assert gpu.throttling({"gpu_foreign_processes": 1}) == "1 other process used the GPU"
    assert "2 other processes" in gpu.throttling({"gpu_foreign_processes": 2})
