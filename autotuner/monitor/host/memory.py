"""Resident memory of this process."""

import os
import resource
from pathlib import Path

from autotuner.monitor.host import files

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
