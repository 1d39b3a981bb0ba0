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
    assert {"cpu_busy_ratio", "cpu_foreign_ratio", "cpu_steal_ratio", "major_faults", "rss_bytes"} <= set(window.seen)
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
        scanned = host._scanned_children()
        assert (scanned(os.getpid()), scanned(child.pid)) == ([child.pid], [grandchild])
        os.kill(grandchild, 9)
    assert host.descendants() == ()


def test_what_the_kernel_does_not_offer_is_absent(monkeypatch):
    read = host._read
    hidden = ("/proc/pressure", "/proc/stat", "/proc/self/statm")
    monkeypatch.setattr(host, "_read", lambda path: "" if str(path).startswith(hidden) else read(path))
    with host.HostProbe().open("cpu") as reader:
        time.sleep(0.01)
        assert set(reader.read()) == {"cpu_busy_ratio", "major_faults"}


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
