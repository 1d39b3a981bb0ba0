"""What the host saw: CPU time of the own processes and of others, pressure (PSI), page faults, resident memory.

Everything is read from /proc and getrusage, once when the probe opens and once a read, in a fraction of a
millisecond. A file that the kernel or a sandbox does not offer makes its signals absent.
"""

import math
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from autotuner.plugins import Probe
from autotuner.types import Metrics

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_ROOT = Path("/")

MAX_STEAL_RATIO = 0.02
MAX_FOREIGN_RATIO = 0.05
MAX_PRESSURE_RATIO = 0.10
FULL_RATIO = 0.95


def _read(path: str | Path) -> str:
    """A file of /proc or /sys; empty where it does not exist, is not permitted, or its process has ended."""
    try:
        with Path(path).open("rb", buffering=0) as file:  # unbuffered: a third of the time of read_text
            return (file.read() or b"").decode()
    except OSError:
        return ""


def available_cores() -> int:
    """Cores that this process may use: its CPU affinity, or the cgroup's quota rounded up if that is less."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota >= cores else math.ceil(quota)


def cpu_quota(root: Path = _ROOT) -> float:
    """CPU seconds a second that the cgroups of this process allow, v1 or v2; infinite when nothing limits it.

    Every ancestor limits too; and a container may see its own group mounted as the root, so that the path which the
    kernel names does not exist there.

    Args:
        root: Where `proc` and `sys` are mounted.
    """
    quotas = [math.inf]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            if not controllers:
                quotas += _quota_v2(root / "sys/fs/cgroup" / folder)
            elif "cpu" in controllers.split(","):
                quotas += _quota_v1(root / "sys/fs/cgroup/cpu" / folder)
    return min(quotas)


def _quota_v2(group: Path) -> list[float]:
    quota, _, period = _read(group / "cpu.max").strip().partition(" ")
    return [float(quota) / float(period)] if quota not in ("", "max") else []


def _quota_v1(group: Path) -> list[float]:
    quota = _read(group / "cpu.cfs_quota_us").strip()
    return [float(quota) / float(_read(group / "cpu.cfs_period_us"))] if quota not in ("", "-1") else []


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat from "state" on (the name before it may hold blanks); empty if it has ended."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def family() -> set[int]:
    """This process and those that belong to it: its descendants or, in a worker, everything under its fork server."""
    me, parent = os.getpid(), os.getppid()
    root = parent if os.environ.get("AUTOTUNE_SERVER") == str(parent) else me
    return {root, *descendants(root)}


def descendants(root: int | None = None) -> tuple[int, ...]:
    """Living descendants of a process, default this one; what has double-forked away is not among them."""
    if root is None:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return ()
    children_of = _listed_children if _kernel_lists_children() else _scanned_children()
    found: list[int] = []
    waiting = [root or os.getpid()]
    while waiting:
        young = children_of(waiting.pop())
        found += young
        waiting += young
    return tuple(found)


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    return _listed_children(pid) if _kernel_lists_children() else _scanned_children()(pid)


def _kernel_lists_children() -> bool:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()


def _listed_children(pid: int) -> list[int]:
    """The kernel's own lists, one a thread (CONFIG_PROC_CHILDREN)."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
    return [int(child) for task in tasks for child in _read(task / "children").split()]


def _scanned_children() -> Callable[[int], list[int]]:
    """The same from one pass over all processes, for kernels without these lists."""
    children = defaultdict[int, list[int]](list)
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (fields := _stat(entry.name)):
                children[int(fields[1])].append(int(entry.name))
    return lambda pid: children[pid]


@dataclass(frozen=True, slots=True)
class _Reading:
    """Counters at one moment; all grow. `cores_s` is what the CPUs did; empty without /proc/stat."""

    at_s: float
    own_s: float
    faults: int
    cores_s: Mapping[str, float] = field(default_factory=dict)
    stalled_s: Mapping[str, float] = field(default_factory=dict)


def _read_counters() -> _Reading:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    faults = sum(usage.ru_majflt for usage in usages)
    for pid in descendants():
        if fields := _stat(pid):  # man 5 proc: 10 majflt+, 12..15 utime stime cutime cstime, less 3
            own_s += sum(map(int, fields[11:15])) * _TICK_S
            faults += int(fields[9]) + int(fields[10])
    stalled_s = {resource_: stalled for resource_ in ("cpu", "io", "memory") for stalled in _stalled_s(resource_)}
    return _Reading(time.monotonic(), own_s, faults, _cores_s(), stalled_s)


def _stalled_s(name: str) -> list[float]:
    """How long some task has waited for "cpu", "io" or "memory" since boot; empty without PSI."""
    some = _read(f"/proc/pressure/{name}").partition("\n")[0]
    return [float(some.rpartition("total=")[2]) * 1e-6] if some else []


def _cores_s() -> dict[str, float]:
    """Busy and stolen seconds, summed over the cores of this process's affinity."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [line.split() for line in _read("/proc/stat").splitlines() if line.partition(" ")[0] in cores]
    if not rows:
        return {}
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        sum(int(row[column]) for row in rows) * _TICK_S for column in range(1, 9)
    )
    return {"busy": user + nice + system + irq + softirq, "steal": steal, "cores": len(rows)}


def _differences(before: _Reading, after: _Reading) -> dict[str, float]:
    """What happened between two readings, as the signals of the probe."""
    wall_s = after.at_s - before.at_s
    own_s = max(0.0, after.own_s - before.own_s)  # a child that nobody waits for takes its time away with it
    seen = {"cpu_busy_ratio": own_s / (wall_s * available_cores()), "major_faults": float(after.faults - before.faults)}
    if before.cores_s and after.cores_s:
        cores_wall_s = wall_s * after.cores_s["cores"]
        busy_s = after.cores_s["busy"] - before.cores_s["busy"]
        seen["cpu_foreign_ratio"] = max(0.0, busy_s - own_s) / cores_wall_s
        seen["cpu_steal_ratio"] = max(0.0, after.cores_s["steal"] - before.cores_s["steal"]) / cores_wall_s
    for name in before.stalled_s.keys() & after.stalled_s.keys():
        seen[f"psi_{name}_some_ratio"] = (after.stalled_s[name] - before.stalled_s[name]) / wall_s
    return seen


class HostReader:
    """Signals of the host between the last read, or the opening, and now."""

    def __init__(self) -> None:
        self._before = _read_counters()

    def read(self) -> Metrics:
        """Shares of the window and `rss_bytes` of this process alone, now.

        `cpu_busy_ratio`: CPU time of this process and its descendants, of the cores available (quota included).
        `cpu_foreign_ratio`, `cpu_steal_ratio`: CPU time of everybody else, and of other virtual machines, of the
        cores in the affinity. `psi_*_some_ratio`: share of the window in which some task of the machine waited.
        `major_faults`: pages that had to be read from a disk. CPU time of others is counted in ticks (10 ms).
        """
        before, self._before = self._before, _read_counters()
        if self._before.at_s <= before.at_s:
            return {}
        seen = _differences(before, self._before)
        if statm := _read("/proc/self/statm").split():
            seen["rss_bytes"] = float(int(statm[1]) * _PAGE_BYTES)
        return seen


class HostProbe(Probe):
    """Observes the host; every device has one."""

    kind: Literal["host"] = "host"

    @contextmanager
    def open(self, device: str) -> Iterator[HostReader]:
        """Start observing; `device` does not matter."""
        yield HostReader()


def contention(metrics: Metrics) -> str:
    """One sentence on who else disturbed the window; empty when nobody did.

    Own threads that fight each other are the configuration's fault and no contention: without CPU time that somebody
    else used, pressure alone says nothing.
    """
    steal = metrics.get("cpu_steal_ratio", 0.0)
    if steal > MAX_STEAL_RATIO:
        return f"other virtual machines took {steal:.0%} of the CPU time"
    foreign = metrics.get("cpu_foreign_ratio", 0.0)
    if foreign <= MAX_FOREIGN_RATIO:
        return ""
    pressure = metrics.get("psi_cpu_some_ratio")
    if pressure is None and foreign + metrics.get("cpu_busy_ratio", 0.0) >= FULL_RATIO:
        return f"other processes used {foreign:.0%} of the cores; none was free"
    if pressure is not None and pressure > MAX_PRESSURE_RATIO:
        return f"other processes used {foreign:.0%} of the cores; tasks waited for one {pressure:.0%} of the time"
    return ""


def reset_peak_rss() -> bool:
    """Let the peak start again at the present resident size (Linux: 5 to clear_refs); False if not permitted."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int:
    """The largest resident size of this process, without its children, since its start or `reset_peak_rss`."""
    for line in _read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # sandboxes without VmHWM; cannot be reset
