"""Real processes that use a known amount of CPU time: whose is it, and who is in whose way?"""

import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autotuner.monitor import host
from autotuner.monitor.host import files, processes

BURN = "import time\nwhile time.process_time() < {}: pass\n"  # CPU time: the same work on a busy machine
CORES = len(os.sched_getaffinity(0))


def burn(cpu_s: float) -> list[str]:
    return [sys.executable, "-S", "-c", BURN.format(cpu_s)]


class Window:
    """CPU seconds of a block, as the probe sees them."""

    def __enter__(self):
        self._opened = host.HostProbe().open("cpu")
        self._reader = self._opened.__enter__()
        self._began_s = time.monotonic()
        return self

    def __exit__(self, *error):
        self.seen = self._reader.read()
        wall_s = time.monotonic() - self._began_s
        self._opened.__exit__(*error)
        self.own_s = self.seen["cpu_busy_ratio"] * wall_s * host.available_cores()
        self.foreign_s = self.seen["cpu_foreign_ratio"] * wall_s * CORES


def test_signals_of_an_idle_window():
    with Window() as window:
        time.sleep(0.3)
    assert 0 <= window.own_s < 0.1
    names = {"cpu_main_ratio", "cpu_foreign_ratio", "cpu_steal_ratio", "major_faults", "minor_faults", "rss_bytes"}
    assert names <= set(window.seen)
    assert all(0 <= value <= 1.1 for name, value in window.seen.items() if name.endswith("_ratio"))
    assert 1e7 < window.seen["rss_bytes"] < 1e11


def test_finished_children_are_our_own():
    with Window() as window:
        subprocess.run(burn(0.5), check=True)
    assert 0.45 < window.own_s < 1.5


def test_living_children_of_children_are_our_own():
    with Window() as window:
        program = f"import subprocess, sys\nsubprocess.run({burn(0.5)!r})\nprint(flush=True)\nsys.stdin.read()"
        child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()  # the grandchild is done, the child lives
    child.communicate()
    assert 0.45 < window.own_s < 1.5


def test_who_of_us_was_busy():
    """This process and its children share the cores; the busiest is told of one core, whoever it is."""
    with Window() as main:
        began_s = time.process_time()
        while time.process_time() - began_s < 0.3:
            pass
    assert main.seen["cpu_main_ratio"] > 5 * main.seen["cpu_children_ratio"]
    with Window() as children:
        subprocess.run(burn(0.3), check=True)
    assert children.seen["cpu_children_ratio"] > 5 * children.seen["cpu_main_ratio"]
    for seen in (main.seen, children.seen):
        assert seen["cpu_busy_ratio"] == pytest.approx(seen["cpu_main_ratio"] + seen["cpu_children_ratio"])
    assert main.seen["cpu_busiest_ratio"] >= main.seen["cpu_main_ratio"]
    assert "data_workers" not in main.seen


NAMED = """
import sys, time
open("/proc/self/comm", "w").write("pt_data_worker")
print(flush=True)
while time.process_time() < {}: pass
print(flush=True)
sys.stdin.read()
"""


def test_the_data_loaders_workers_are_told_by_their_name():
    argv = [[sys.executable, "-S", "-c", NAMED.format(cpu_s)] for cpu_s in (0.5, 0.0)]
    workers = [subprocess.Popen(one, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for one in argv]
    with Window() as window:
        for worker in workers:
            worker.stdout.readline(), worker.stdout.readline()
    for worker in workers:
        worker.communicate()
    seen = window.seen
    assert seen["data_workers"] == 2
    assert seen["cpu_data_workers_ratio"] == pytest.approx(seen["cpu_busiest_ratio"] / 2, rel=0.3)
    assert seen["cpu_busiest_ratio"] > 0.1


def test_torch_names_its_workers_so():
    """If it stops, their signals go silent."""
    from importlib.util import find_spec

    source = Path(find_spec("torch").origin).with_name("utils") / "data" / "_utils" / "worker.py"
    assert f'"{processes._DATA_WORKER}"' in source.read_text()


TOUCH = """
import mmap, sys
block = mmap.mmap(-1, 64 * 2**20)
for place in range(0, len(block), 4096): block[place] = 1
print(flush=True)
sys.stdin.read()
"""


def test_what_a_living_child_has_used():
    argv = [sys.executable, "-S", "-c", TOUCH]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        seen = host.usage(child.pid)
        child.stdin.close()
    assert seen.name.startswith("python")
    assert seen.minor_faults > 200  # a few thousand without huge pages
    assert seen.minor_faults > 10 * seen.major_faults
    assert 0 < seen.own_s < 10
    assert seen.reaped_s == 0
    assert host.usage(child.pid) is None


FAULTS_AND_WRITES = """
import mmap, os, sys
block = mmap.mmap(-1, 64 * 2**20)
for place in range(0, len(block), 4096): block[place] = 1
with open(sys.argv[1], "wb") as file:
    file.write(os.urandom(8 * 2**20))
    file.flush()
    os.fsync(file.fileno())
"""


def test_faults_and_disk_traffic_of_children_are_ours(tmp_path):
    with host.HostProbe().open("cpu") as reader:
        began_s = time.monotonic()
        subprocess.run([sys.executable, "-S", "-c", FAULTS_AND_WRITES, str(tmp_path / "x")], check=True)
        seen = reader.read()
        wall_s = time.monotonic() - began_s
    assert 64 * 2**20 / 2**21 <= seen["minor_faults"] < 1e6  # with huge pages there are fewer
    if not files.read("/proc/self/io"):
        pytest.skip("no permission to ask, or no such kernel")
    if seen["disk_write_bytes_per_s"] == 0:
        pytest.skip("no disk below")
    assert 7 * 2**20 < seen["disk_write_bytes_per_s"] * wall_s < 80 * 2**20
    assert seen["disk_read_bytes_per_s"] >= 0


def test_a_read_takes_a_fraction_of_a_millisecond():
    """0.25 ms alone and 0.7 ms beside eight children seen, in CPU time; the bound is for slower machines."""
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(8)]
    costs_s = []
    with host.HostProbe().open("cpu") as reader:
        for _ in range(30):
            began_s = time.thread_time()
            reader.read()
            costs_s.append(time.thread_time() - began_s)
    for child in children:
        child.kill()
        child.wait()
    assert min(costs_s) < 5e-3


def test_a_process_that_is_not_ours_is_foreign(tmp_path):
    """It leaves our tree first (its parent ends at once), then it burns."""
    done = tmp_path / "done"
    program = f"{BURN.format(0.6)}\nopen({str(done)!r}, 'w')"
    launcher = f"import subprocess\nsubprocess.Popen({[sys.executable, '-S', '-c', program]!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-S", "-c", launcher], check=True)
    with Window() as window:
        until_s = time.monotonic() + 60
        while not done.exists() and time.monotonic() < until_s:
            time.sleep(0.05)
    assert window.foreign_s > 0.3
    assert window.own_s < 0.3


def test_descendants_have_any_name_and_depth(tmp_path):
    odd = tmp_path / "a) b (c 1 2"
    shutil.copy(shutil.which("sleep"), odd)
    assert host.descendants() == ()
    program = f"import subprocess\nprint(subprocess.Popen([{str(odd)!r}, '60']).pid, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        grandchild = int(child.stdout.readline())
        assert set(host.descendants()) == {child.pid, grandchild}
        scanned = processes._scanned_children()
        assert (scanned(os.getpid()), scanned(child.pid)) == ([child.pid], [grandchild])
        os.kill(grandchild, 9)
    assert host.descendants() == ()


def test_what_the_kernel_does_not_offer_is_absent(monkeypatch):
    read = files.read
    hidden = ("/proc/pressure", "/proc/stat", "/proc/self/statm", "/proc/self/io")
    monkeypatch.setattr(files, "read", lambda path: "" if str(path).startswith(hidden) else read(path))
    with host.HostProbe().open("cpu") as reader:
        time.sleep(0.01)
        assert set(reader.read()) == {
            "cpu_busy_ratio", "cpu_main_ratio", "cpu_children_ratio", "cpu_busiest_ratio", "minor_faults",
            "major_faults",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("metrics", "word"),
    [
        ({}, ""),
        ({"cpu_busy_ratio": 1.0, "cpu_foreign_ratio": 0.0, "psi_cpu_some_ratio": 0.95}, ""),  # own threads fight
        ({"cpu_busy_ratio": 0.5, "cpu_foreign_ratio": 0.3, "psi_cpu_some_ratio": 0.02}, ""),  # enough cores for all
        ({"cpu_busy_ratio": 0.5, "cpu_foreign_ratio": 0.3, "psi_cpu_some_ratio": 0.4}, "30%"),
        ({"cpu_busy_ratio": 0.9, "cpu_foreign_ratio": 0.04, "psi_cpu_some_ratio": 0.9}, ""),
        ({"cpu_busy_ratio": 0.7, "cpu_foreign_ratio": 0.28}, "none was free"),
        ({"cpu_busy_ratio": 0.3, "cpu_foreign_ratio": 0.28}, ""),
        ({"cpu_steal_ratio": 0.03}, "virtual machines"),
        ({"cpu_steal_ratio": 0.01}, ""),
    ],
)
def test_only_others_are_contention(metrics, word):
    said = host.contention(metrics)
    assert bool(said) == bool(word)
    assert word in said


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),  # container, own namespace
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        (
            {  # the tightest ancestor counts
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            2.0,
        ),
        (
            {  # v1: the host's path is not visible, the container's own group is mounted as the root
                "proc/self/cgroup": "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
    ],
)
def test_cpu_quota_of_cgroups(tmp_path, files, cores):
    for name, text in files.items():
        write(tmp_path / name, text)
    assert host.cpu_quota(tmp_path) == cores


def test_available_cores_follow_the_affinity():
    program = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from autotuner.monitor.host import available_cores\nprint(available_cores())"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "1"
    assert 1 <= host.available_cores() <= CORES


def test_the_peak_starts_again_when_it_is_reset():
    size_bytes = 200_000_000
    ballast = bytearray(size_bytes)
    with_ballast = host.peak_rss_bytes()
    assert with_ballast > size_bytes
    del ballast
    if not host.reset_peak_rss():
        pytest.skip("clear_refs is not permitted here")
    assert host.peak_rss_bytes() < with_ballast - size_bytes / 2
