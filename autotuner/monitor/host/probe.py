"""The probe of the host: counters when it opens and at each read, in a fraction of a millisecond."""

import os
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from autotuner.monitor.host import files
from autotuner.monitor.host.cores import available_cores, cpu_quota
from autotuner.monitor.host.memory import rss_bytes
from autotuner.monitor.host.processes import Usage, descendants, disk_bytes, usage
from autotuner.plugins import Probe
from autotuner.types import Metrics

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

MAX_STEAL_RATIO = 0.02
MAX_FOREIGN_RATIO = 0.05
MAX_PRESSURE_RATIO = 0.10
FULL_RATIO = 0.95


@dataclass(frozen=True, slots=True)
class _Reading:
    """Counters at one moment; all grow.

    Attributes:
        main_s: CPU time of this process.
        reaped_s: That of children that it has waited for.
        young: Its living descendants by process id.
        totals: Faults and disk bytes of them all, by signal; what is not known is absent.
        cores_s: What the CPUs did; empty without /proc/stat.
        stalled_s: How long some task has waited, by resource; empty without PSI.
    """

    at_s: float
    main_s: float
    reaped_s: float
    young: Mapping[int, Usage]
    totals: Mapping[str, float]
    cores_s: Mapping[str, float]
    stalled_s: Mapping[str, float]

    @property
    def children_s(self) -> float:
        """CPU time of everything that this process has started, ended or not."""
        return self.reaped_s + sum(one.own_s + one.reaped_s for one in self.young.values())


def _read_counters() -> _Reading:
    mine, reaped = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    young = {pid: seen for pid in descendants() if (seen := usage(pid))}
    return _Reading(
        at_s=time.monotonic(),
        main_s=mine.ru_utime + mine.ru_stime,
        reaped_s=reaped.ru_utime + reaped.ru_stime,
        young=young,
        totals=_totals(mine, reaped, young),
        cores_s=_cores_s(),
        stalled_s={name: stalled for name in ("cpu", "io", "memory") for stalled in _stalled_s(name)},
    )


def _totals(
    mine: resource.struct_rusage, reaped: resource.struct_rusage, young: Mapping[int, Usage]
) -> dict[str, float]:
    others = young.values()
    read_bytes, write_bytes = disk_bytes("self")
    totals: dict[str, float] = {
        "minor_faults": float(mine.ru_minflt + reaped.ru_minflt + sum(one.minor_faults for one in others)),
        "major_faults": float(mine.ru_majflt + reaped.ru_majflt + sum(one.major_faults for one in others)),
    }
    if read_bytes is None or write_bytes is None:
        return totals
    return totals | {
        "disk_read_bytes": read_bytes + sum(one.read_bytes or 0 for one in others),
        "disk_write_bytes": write_bytes + sum(one.write_bytes or 0 for one in others),
    }


def _stalled_s(name: str) -> list[float]:
    """How long some task has waited for "cpu", "io" or "memory" since boot; empty without PSI."""
    some = files.read(f"/proc/pressure/{name}").partition("\n")[0]
    return [float(some.rpartition("total=")[2]) * 1e-6] if some else []


def _cores_s() -> dict[str, float]:
    """Busy and stolen seconds, summed over the cores of this process's affinity."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    rows = [line.split() for line in files.read("/proc/stat").splitlines() if line.partition(" ")[0] in cores]
    if not rows:
        return {}
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        sum(int(row[column]) for row in rows) * _TICK_S for column in range(1, 9)
    )
    return {"busy": user + nice + system + irq + softirq, "steal": steal, "cores": len(rows)}


def _differences(before: _Reading, after: _Reading, cores: int) -> dict[str, float]:
    """What happened between two readings, as the signals of the probe; `cores` is how many there are for us."""
    wall_s = after.at_s - before.at_s
    main_s = after.main_s - before.main_s
    children_s = max(0.0, after.children_s - before.children_s)  # who dies unwaited for takes its time away with it
    capacity_s = wall_s * cores
    seen = {
        "cpu_busy_ratio": (main_s + children_s) / capacity_s,
        "cpu_main_ratio": main_s / capacity_s,
        "cpu_children_ratio": children_s / capacity_s,
    }
    seen |= _of_processes(before, after, wall_s) | _of_cores(before, after, main_s + children_s)
    for name in before.stalled_s.keys() & after.stalled_s.keys():
        seen[f"psi_{name}_some_ratio"] = (after.stalled_s[name] - before.stalled_s[name]) / wall_s
    grown = {name: max(0.0, after.totals[name] - before.totals.get(name, 0.0)) for name in after.totals}
    seen |= {name: count for name, count in grown.items() if name.endswith("_faults")}
    return seen | {f"{name}_per_s": amount / wall_s for name, amount in grown.items() if name.endswith("_bytes")}


def _of_processes(before: _Reading, after: _Reading, wall_s: float) -> dict[str, float]:
    """Shares of one core: the busiest process, and the mean of the DataLoader's."""
    began_s = {pid: one.own_s for pid, one in before.young.items()}
    shares = {pid: min(1.0, (one.own_s - began_s.get(pid, 0.0)) / wall_s) for pid, one in after.young.items()}
    busiest = max([min(1.0, (after.main_s - before.main_s) / wall_s), *shares.values()])
    workers = [shares[pid] for pid, one in after.young.items() if one.is_data_worker]
    if not workers:
        return {"cpu_busiest_ratio": busiest}
    return {
        "cpu_busiest_ratio": busiest,
        "cpu_data_workers_ratio": sum(workers) / len(workers),
        "data_workers": float(len(workers)),
    }


def _of_cores(before: _Reading, after: _Reading, own_s: float) -> dict[str, float]:
    """What the cores of the affinity did for others."""
    if not (before.cores_s and after.cores_s):
        return {}
    capacity_s = (after.at_s - before.at_s) * after.cores_s["cores"]
    busy_s = after.cores_s["busy"] - before.cores_s["busy"]
    return {
        "cpu_foreign_ratio": max(0.0, busy_s - own_s) / capacity_s,
        "cpu_steal_ratio": max(0.0, after.cores_s["steal"] - before.cores_s["steal"]) / capacity_s,
    }


class HostReader:
    """Signals of the host between the last read, or the opening, and now."""

    def __init__(self) -> None:
        self._quota = cpu_quota()  # asked once: it takes a quarter of a read, and seldom changes
        self._before = _read_counters()

    def read(self) -> Metrics:
        """The window's signals by name, as docs/signals.md explains them; `rss_bytes` is of now."""
        before, self._before = self._before, _read_counters()
        if self._before.at_s <= before.at_s:
            return {}
        seen = _differences(before, self._before, available_cores(self._quota))
        resident = rss_bytes()
        return seen if resident is None else seen | {"rss_bytes": float(resident)}


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
