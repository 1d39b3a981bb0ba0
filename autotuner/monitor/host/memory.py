"""Resident memory of this process, and what its children have for themselves."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path

from autotuner.monitor.host import files
from autotuner.monitor.host.processes import descendants

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_bytes() -> int | None:
    """Resident size of this process, without its children, now; None if the kernel does not say."""
    statm = files.read("/proc/self/statm").split()
    return int(statm[1]) * _PAGE_BYTES if statm else None


def reset_peak_rss() -> bool:
    """Let the peak start again at the present resident size (Linux: 5 to clear_refs); False if not permitted."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int:
    """The largest resident size of this process, without its children, since its start or `reset_peak_rss`."""
    for line in files.read("/proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # sandboxes without VmHWM; cannot be reset


def peak_rss_bytes_of(pids: Iterable[int]) -> int:
    """The largest resident sets that some processes ever had, added up; those that are gone count nothing."""
    lines = (line.split() for pid in pids for line in files.read(f"/proc/{pid}/status").splitlines())
    return 1024 * sum(int(words[1]) for words in lines if words and words[0] == "VmHWM:")


def private_bytes_of_children() -> int:
    """What the living children, such as a loader's workers, have for themselves: pages that they share count once.

    Reading it takes milliseconds a child.
    """
    rollups = (files.read(f"/proc/{pid}/smaps_rollup") for pid in descendants())
    lines = (line.split() for rollup in rollups for line in rollup.splitlines())
    return 1024 * sum(int(words[1]) for words in lines if words and words[0] in ("Private_Clean:", "Private_Dirty:"))
