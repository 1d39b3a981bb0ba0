"""What this user may look at: other processes (py-spy), the CPU's counters (perf, nsys) and the GPU's (ncu)."""

import re
from collections.abc import Iterator
from pathlib import Path

from autotuner.doctor.cpu import ROOT, read
from autotuner.doctor.finding import Finding, Level

_SYS_PTRACE, _SYS_ADMIN, _PERFMON = 19, 21, 38  # linux/capability.h


def _has(capability: int, root: Path) -> bool:
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", read(root / "proc/self/status"), re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> capability & 1)


def ptrace(root: Path = ROOT) -> Iterator[Finding]:
    """Whether py-spy may look into a worker: not with Yama's scope 1 or 2 without a capability, never with 3."""
    scope = read(root / "proc/sys/kernel/yama/ptrace_scope")
    if scope == "3":
        text = "no process may look into another (yama/ptrace_scope is 3 until the next boot): no flame graph"
        yield Finding(Level.INFO, "ptrace", text, "boot with kernel.yama.ptrace_scope=0")
    elif scope in ("1", "2") and not _has(_SYS_PTRACE, root):
        text = f"py-spy may not look into a running worker (yama/ptrace_scope is {scope}): no flame graph"
        yield Finding(Level.INFO, "ptrace", text, "sudo sysctl kernel.yama.ptrace_scope=0, or cap_add SYS_PTRACE")


def perf_events(root: Path = ROOT) -> Iterator[Finding]:
    """Whether nsys and perf may sample the CPU."""
    paranoid = read(root / "proc/sys/kernel/perf_event_paranoid")
    allowed = _has(_PERFMON, root) or _has(_SYS_ADMIN, root)
    if re.fullmatch(r"-?\d+", paranoid) and int(paranoid) > 2 and not allowed:
        text = f"perf and nsys may not sample the CPU (perf_event_paranoid is {paranoid})"
        yield Finding(Level.INFO, "perf_events", text, "sudo sysctl kernel.perf_event_paranoid=2")


def gpu_counters(root: Path = ROOT) -> Iterator[Finding]:
    """Whether ncu may read a GPU's counters (https://developer.nvidia.com/ERR_NVGPUCTRPERM)."""
    restricted = re.search(r"^RmProfilingAdminOnly: 1$", read(root / "proc/driver/nvidia/params"), re.MULTILINE)
    if restricted and not _has(_SYS_ADMIN, root):
        text = "ncu may not read the GPU's counters: the driver reserves them for administrators"
        mend = "load the nvidia module with NVreg_RestrictProfilingToAdminUsers=0, or cap_add SYS_ADMIN"
        yield Finding(Level.INFO, "gpu_counters", text, mend)
