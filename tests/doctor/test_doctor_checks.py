"""Every check on a machine made of files: what it says of a sick one, and that it is silent about a healthy one."""

import re
from pathlib import Path

import pytest

from autotuner.doctor import Finding, Level, cpu, devices, find_faults, memory, permissions, storage
from autotuner.doctor.devices import Card
from autotuner.monitor.gpu import Condition

CPUS = "sys/devices/system/cpu"
NO_CAPABILITIES, ALL_CAPABILITIES = "CapEff:\t0000000000000000\n", "CapEff:\t000001ffffffffff\n"
MIB, GIB = 2**20, 2**30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def cores(name: str, *values: str) -> dict[str, str]:
    return {f"{CPUS}/cpu{core}/{name}": f"{value}\n" for core, value in enumerate(values)}


def quota(cpu_max: str) -> dict[str, str]:
    return {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/cpu.max": f"{cpu_max} 100000\n"}


YAMA, PERF = "proc/sys/kernel/yama/ptrace_scope", "proc/sys/kernel/perf_event_paranoid"
NVIDIA, PAGES = "proc/driver/nvidia/params", "sys/kernel/mm/transparent_hugepage/enabled"
PORT = "sys/class/infiniband/mlx5_0/ports/1"
SICK = [
    (cpu.governor, cores("cpufreq/scaling_governor", "powersave", "performance"), Level.ADVICE, "powersave on 1 of 2"),
    (cpu.turbo, {f"{CPUS}/intel_pstate/no_turbo": "1\n"}, Level.INFO, "turbo is off"),
    (cpu.turbo, {f"{CPUS}/cpufreq/boost": "0\n"}, Level.INFO, "turbo is off"),
    (cpu.heat, cores("thermal_throttle/core_throttle_count", "0", "17"), Level.ADVICE, "17 times"),
    (lambda root: cpu.quota(8, root), quota("150000"), Level.ADVICE, "1.5 of the 8 cores"),
    (lambda root: cpu.contention({}, 2, root), {"proc/pressure/cpu": "some avg10=35.20 avg60=1.0 total=1\n"},
     Level.ADVICE, "waited for a core 35 %"),
    (lambda root: cpu.contention({}, 2, root), {"proc/loadavg": "3.01 1.0 1.0 1/2 3\n"}, Level.ADVICE, "load is 3.01"),
    (lambda root: cpu.contention({"cpu_steal_ratio": 0.2}, 2, root), {}, Level.ADVICE, "virtual machines took 20%"),
    (cpu.clock, {"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n"}, Level.ADVICE, "hpet"),
    (cpu.virtual, {"proc/cpuinfo": "processor: 0\nflags\t\t: fpu hypervisor avx2\n"}, Level.INFO, "virtual machine"),
    (memory.swap, {"proc/meminfo": "SwapTotal: 4194304 kB\nSwapFree: 2097152 kB\n"}, Level.ADVICE, "2.00 GiB"),
    (memory.huge_pages, {PAGES: "always madvise [never]\n"}, Level.ADVICE, "off"),
    (permissions.ptrace, {YAMA: "1\n", "proc/self/status": NO_CAPABILITIES}, Level.INFO, "ptrace_scope is 1"),
    (permissions.ptrace, {YAMA: "3\n", "proc/self/status": ALL_CAPABILITIES}, Level.INFO, "until the next boot"),
    (permissions.perf_events, {PERF: "4\n", "proc/self/status": NO_CAPABILITIES}, Level.INFO, "paranoid is 4"),
    (permissions.gpu_counters, {NVIDIA: "RmMsg: \"\"\nRmProfilingAdminOnly: 1\n", "proc/self/status": NO_CAPABILITIES},
     Level.INFO, "ncu"),
    (devices.fabric, {f"{PORT}/state": "4: ACTIVE\n", f"{PORT}/rate": "400 Gb/sec (4X NDR)\n"}, Level.INFO,
     "mlx5_0 port 1 is active, 400 Gb/sec"),
]  # fmt: skip
HEALTHY = [
    (cpu.governor, cores("cpufreq/scaling_governor", "performance", "performance")),
    (cpu.turbo, {f"{CPUS}/intel_pstate/no_turbo": "0\n", f"{CPUS}/cpufreq/boost": "1\n"}),
    (cpu.heat, cores("thermal_throttle/core_throttle_count", "0", "0")),
    (lambda root: cpu.quota(8, root), quota("800000")),
    (lambda root: cpu.quota(8, root), quota("max")),
    (lambda root: cpu.contention({"cpu_foreign_ratio": 0.01}, 2, root),
     {"proc/pressure/cpu": "some avg10=2.10 avg60=1.0 total=1\n", "proc/loadavg": "1.01 1.0 1.0 1/2 3\n"}),
    (cpu.clock, {"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n"}),
    (cpu.virtual, {"proc/cpuinfo": "processor: 0\nflags\t\t: fpu avx2\n"}),
    (memory.swap, {"proc/meminfo": "SwapTotal: 4194304 kB\nSwapFree: 4194300 kB\n"}),
    (memory.huge_pages, {PAGES: "always [madvise] never\n"}),
    (permissions.ptrace, {YAMA: "1\n", "proc/self/status": ALL_CAPABILITIES}),
    (permissions.ptrace, {YAMA: "0\n", "proc/self/status": NO_CAPABILITIES}),
    (permissions.perf_events, {PERF: "2\n", "proc/self/status": NO_CAPABILITIES}),
    (permissions.perf_events, {PERF: "4\n", "proc/self/status": ALL_CAPABILITIES}),
    (permissions.gpu_counters, {NVIDIA: "RmProfilingAdminOnly: 0\n", "proc/self/status": NO_CAPABILITIES}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "files", "level", "words"), SICK, ids=[case[3] for case in SICK])
def test_a_sick_machine_is_told_what_is_wrong(check, files, level, words, tmp_path):
    (finding,) = check(tree(tmp_path, files))
    assert finding.level is level
    assert words in finding.sentence
    assert "\n" not in finding.sentence + finding.mend
    assert finding.mend or level is Level.INFO, "what is wrong has a mend"


@pytest.mark.parametrize(("check", "files"), HEALTHY, ids=[case[0].__name__ for case in HEALTHY])
def test_nothing_is_said_of_a_healthy_machine_nor_of_one_without_these_files(check, files, tmp_path):
    assert list(check(tree(tmp_path / "healthy", files))) == []
    (tmp_path / "empty").mkdir()
    assert list(check(tmp_path / "empty")) == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("", None), ("4", None), ("4,2", None), ("1", "leaves 3 of 4"), ("8", "more than the 4"), ("many", "no number"),
     ("0", "no number")],
)  # fmt: skip
def test_threads_that_the_environment_asks_for(wanted, words):
    found = list(cpu.threads({"OMP_NUM_THREADS": wanted} if wanted else {}, 4))
    assert [words in finding.sentence for finding in found] == ([True] if words else [])


def test_caches_of_all_cores_are_counted_once_each(tmp_path):
    """Two groups of two cores, each with its own 16 MiB."""
    files = {}
    for core in range(4):
        shared = "0-1" if core < 2 else "2-3"
        for index, (level, size, cpus) in enumerate([("1", "32K", str(core)), ("2", "512K", str(core)),
                                                     ("3", "16384K", shared)]):  # fmt: skip
            folder = f"{CPUS}/cpu{core}/cache/index{index}"
            files |= {f"{folder}/level": level, f"{folder}/size": size, f"{folder}/shared_cpu_list": cpus}
    assert cpu.all_caches_bytes(tree(tmp_path / "four", files)) == 32 * MIB
    (tmp_path / "none").mkdir()
    assert cpu.all_caches_bytes(tmp_path / "none") == 32 * MIB, "what is usual, where nobody says"


@pytest.mark.parametrize(("size", "words"), [(64 * MIB, "holds 64.0 MiB"), (None, "is not there"), (8 * GIB, None)])
def test_shared_memory_for_loaders(size, words):
    assert [words in finding.sentence for finding in memory.shared_memory(size)] == ([True] if words else [])


@pytest.mark.parametrize(("version", "bad"), [((3, 40, 1), True), ((3, 51, 2), True), ((3, 51, 3), False),
                                              ((3, 6, 9), False), ((4, 0, 0), False)])  # fmt: skip
def test_sqlite_s_bug_is_named_with_why_it_does_not_matter(version, bad):
    found = list(storage.sqlite(version))
    assert [finding.level for finding in found] == ([Level.INFO] if bad else [])
    assert all("rollback journal" in finding.sentence for finding in found)


def test_the_record_does_keep_a_rollback_journal(tmp_path):
    """Or what is said of SQLite would be wrong."""
    from autotuner.store import open_record

    with open_record(str(tmp_path / "a.db")) as record, record._database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"


def test_a_folder_that_cannot_be_written_stops(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (finding,) = storage.writable(tmp_path / "file" / "studies", "studies", Level.STOPS)
    assert finding.level is Level.STOPS
    assert "studies cannot be written in" in finding.sentence
    assert list(storage.writable(tmp_path / "not" / "yet", "studies", Level.STOPS)) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "looking leaves nothing"


@pytest.mark.parametrize(("free", "level"), [(MIB, Level.STOPS), (GIB, Level.ADVICE), (100 * GIB, None)])
def test_room_on_the_disk(free, level, tmp_path):
    found = storage.room(tmp_path / "new", "studies", Level.STOPS, free)
    assert [finding.level for finding in found] == ([level] if level else [])


def test_where_models_are_kept(monkeypatch):
    monkeypatch.setenv("HOME", "/nobody")
    assert storage.model_cache({}) == Path("/nobody/.cache/huggingface/hub")
    assert storage.model_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert storage.model_cache({"HF_HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/h/hub")
    assert storage.model_cache({"HF_HUB_CACHE": "/m", "HF_HOME": "/h"}) == Path("/m")


@pytest.mark.parametrize(
    ("name", "device", "level"),
    [
        ("no_library", "cpu", Level.INFO), ("no_library", "cuda", Level.STOPS), ("gpu_lost", "cpu", Level.ADVICE),
        ("gpu_lost", "cuda", Level.STOPS), ("mig_slice", "cuda", Level.INFO), ("old_driver", "cuda", Level.ADVICE),
        ("gpm_not_permitted", "cuda", Level.ADVICE),
    ],
)  # fmt: skip
def test_conditions_of_gpus_stop_only_who_needs_one(name, device, level):
    mend = "" if name in ("mig_slice", "no_library") else "mend it"
    assert list(devices.gpus([Condition(name, "so it is", mend)], device)) == [Finding(level, name, "so it is", mend)]


@pytest.mark.parametrize(
    ("driver", "cuda", "words"),
    [
        ("525.60.13", "12.8", None), ("520.61.05", "12.8", "needs 525.60.13"), ("570.124.06", "13.0", "needs 580.65.6"),
        ("590.10", "13.0", None), ("unknown", "13.0", None), ("450.0", "14.0", None),
    ],
)  # fmt: skip
def test_drivers_that_are_too_old_for_torch(driver, cuda, words):
    found = list(devices.driver({"driver": driver, "cuda": cuda}, True, "cuda"))
    assert [words in finding.sentence for finding in found] == ([True] if words else [])
    assert all(finding.level is Level.STOPS for finding in found)


def test_a_torch_without_cuda_beside_a_gpu():
    (finding,) = devices.driver({"torch": "2.13.0+cpu"}, True, "cuda")
    assert (finding.level, finding.name) == (Level.STOPS, "torch_without_cuda")
    assert list(devices.driver({"torch": "2.13.0+cpu"}, False, "cpu")) == []


@pytest.mark.parametrize(
    ("card", "names"),
    [
        (Card("GPU 0", True, 0x1, 700.0, 700.0), []),
        (Card("GPU 0", None, None, None, None), []),
        (Card("GPU 0", False, 0x4, 700.0, 700.0), ["persistence"]),
        (Card("GPU 0", True, 0x40, 700.0, 700.0), ["throttled"]),
        (Card("GPU 0", True, 0x80 | 0x20, 500.0, 700.0), ["throttled", "throttled", "power_limit"]),
    ],
)
def test_settings_of_a_gpu(card, names):
    assert [finding.name for finding in devices.settings(card)] == names


def test_the_address_of_telemetry_is_told_without_its_secrets():
    (finding,) = devices.telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:secret@collector:4318/v1?key=abc"})
    assert finding.sentence.endswith("https://collector:4318")
    assert list(devices.telemetry({})) == []


def test_every_check_runs_on_this_machine(tmp_path):
    found = find_faults("cpu", tmp_path, {})
    assert all(re.fullmatch(r"[a-z_]+", finding.name) and finding.sentence for finding in found)
    assert not [finding for finding in found if finding.level is Level.STOPS]
    assert {"threads"} <= {finding.name for finding in find_faults("cpu", tmp_path, {"OMP_NUM_THREADS": "999"})}


def test_a_gpu_that_is_not_there_stops_who_asks_for_it(tmp_path):
    from autotuner.monitor import gpu

    if gpu.gpus():
        pytest.skip("there is one")
    assert Level.STOPS in {finding.level for finding in find_faults("cuda", tmp_path, {})}
