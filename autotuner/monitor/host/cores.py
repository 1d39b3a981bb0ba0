"""How many cores this process may use."""

import math
import os
from pathlib import Path

from autotuner.monitor.host import files

_ROOT = Path("/")


def available_cores(quota: float | None = None) -> int:
    """Cores that this process may use: its CPU affinity, or the cgroup's quota rounded up if that is less.

    Args:
        quota: What `cpu_quota` said; it is asked if this is None.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota() if quota is None else quota
    return cores if quota >= cores else math.ceil(quota)


def cpu_quota(root: Path = _ROOT) -> float:
    """CPU seconds a second that the cgroups of this process allow, v1 or v2; infinite when nothing limits it.

    Every ancestor limits too; and a container may see its own group mounted as the root, so that the path which the
    kernel names does not exist there.

    Args:
        root: Where `proc` and `sys` are mounted.
    """
    quotas = [math.inf]
    for line in files.read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        group = Path(path.lstrip("/"))
        for folder in (group, *group.parents):
            if not controllers:
                quotas += _quota_v2(root / "sys/fs/cgroup" / folder)
            elif "cpu" in controllers.split(","):
                quotas += _quota_v1(root / "sys/fs/cgroup/cpu" / folder)
    return min(quotas)


def _quota_v2(group: Path) -> list[float]:
    quota, _, period = files.read(group / "cpu.max").strip().partition(" ")
    return [float(quota) / float(period)] if quota not in ("", "max") else []


def _quota_v1(group: Path) -> list[float]:
    quota = files.read(group / "cpu.cfs_quota_us").strip()
    return [float(quota) / float(files.read(group / "cpu.cfs_period_us"))] if quota not in ("", "-1") else []
