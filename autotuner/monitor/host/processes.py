"""The processes that belong to this one, and what each has used."""

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autotuner.monitor.host import files

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_DATA_WORKER = "pt_data_worker"  # what torch's DataLoader calls its processes


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used since it began; all of it grows.

    Attributes:
        name: The kernel's, at most 15 characters.
        own_s: CPU time of itself, all threads, in ticks of 10 ms.
        reaped_s: CPU time of children that it has waited for.
        minor_faults: Pages that were in memory already, its reaped children's included.
        major_faults: Pages that had to be read from a disk, likewise.
        read_bytes: From disks, not from the page cache; its reaped children's included. None if not permitted.
        write_bytes: To disks, likewise.
    """

    name: str
    own_s: float
    reaped_s: float
    minor_faults: int
    major_faults: int
    read_bytes: int | None
    write_bytes: int | None

    @property
    def is_data_worker(self) -> bool:
        """Whether torch's DataLoader runs it."""
        return self.name == _DATA_WORKER


def usage(pid: int) -> Usage | None:
    """What a process has used; None if it has ended."""
    name, fields = _stat(pid)
    if not fields:
        return None
    # man 5 proc numbers the fields from 1, with pid and name before them: 10..13 faults, 14..17 CPU time
    minor, minor_reaped, major, major_reaped = map(int, fields[7:11])
    user, system, user_reaped, system_reaped = (int(ticks) * _TICK_S for ticks in fields[11:15])
    read_bytes, write_bytes = disk_bytes(pid)
    return Usage(
        name, user + system, user_reaped + system_reaped, minor + minor_reaped, major + major_reaped,
        read_bytes, write_bytes,
    )  # fmt: skip


def disk_bytes(pid: int | str) -> tuple[int | None, int | None]:
    """Bytes that a process and its reaped children have read from disks and written to them; None if not permitted."""
    rows = dict(line.split(": ") for line in files.read(f"/proc/{pid}/io").splitlines())
    if "read_bytes" not in rows:
        return None, None
    return int(rows["read_bytes"]), int(rows["write_bytes"])


def _stat(pid: int) -> tuple[str, list[str]]:
    """Name and fields of /proc/PID/stat from "state" on (a name may hold blanks and brackets); empty if it ended."""
    before, _, after = files.read(f"/proc/{pid}/stat").rpartition(")")
    return before.partition("(")[2], after.split()


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
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - a third of the time of iterdir
    except OSError:
        return []
    return [int(child) for task in tasks for child in files.read(f"/proc/{pid}/task/{task}/children").split()]


def _scanned_children() -> Callable[[int], list[int]]:
    """The same from one pass over all processes, for kernels without these lists."""
    children = defaultdict[int, list[int]](list)
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit() and (fields := _stat(int(entry.name))[1]):
                children[int(fields[1])].append(int(entry.name))
    return lambda pid: children[pid]
