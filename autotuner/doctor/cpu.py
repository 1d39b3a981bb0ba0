"""The processor: how fast it is allowed to be, how much of it is ours, and who else is on it now."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from autotuner.caches import last_level_cache_bytes
from autotuner.doctor.finding import Finding, Level
from autotuner.monitor import host

ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"
_CLOCKS_THAT_READ_FAST = {"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen"}


def read(path: Path) -> str:
    """A file of /proc or /sys without its last line break; empty where there is none, or it may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def all_caches_bytes(root: Path = ROOT) -> int:
    """The last-level caches of all cores together: what an array must not fit into."""
    largest, sizes = last_level_cache_bytes(root), {}
    for folder in (root / _CPUS).glob("cpu[0-9]*/cache/index*"):
        level, shared = read(folder / "level"), read(folder / "shared_cpu_list")
        sizes[level, shared] = level
    top = max(sizes.values(), default="")
    return largest * max(1, sum(level == top for level in sizes.values()))


def governor(root: Path = ROOT) -> Iterator[Finding]:
    """Governors that let clocks follow the load: the first milliseconds of a burst are slow, and vary."""
    found = [read(path) for path in sorted((root / _CPUS).glob("cpu[0-9]*/cpufreq/scaling_governor"))]
    slow = [name for name in found if name and name != "performance"]
    if slow:
        text = f"the frequency governor is {slow[0]} on {len(slow)} of {len(found)} cores: clocks follow the load"
        yield Finding(Level.ADVICE, "governor", text, "sudo cpupower frequency-set -g performance")


def turbo(root: Path = ROOT) -> Iterator[Finding]:
    """Turbo that is switched off: steady clocks, and less of them."""
    if read(root / _CPUS / "intel_pstate/no_turbo") == "1" or read(root / _CPUS / "cpufreq/boost") == "0":
        text = "turbo is off: timings are steadier and ceilings lower; right if production has it off, too"
        yield Finding(Level.INFO, "turbo", text)


def heat(root: Path = ROOT) -> Iterator[Finding]:
    """Cores that have been slowed down by their temperature (Intel counts it)."""
    counts = [read(path) for path in (root / _CPUS).glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    times = max((int(count) for count in counts if count.isdigit()), default=0)
    if times:
        text = f"a core was slowed down {times} times since boot because it was too hot"
        yield Finding(Level.ADVICE, "heat", text, "cool it better, or limit its power, and measure again")


def quota(cores: int, root: Path = ROOT) -> Iterator[Finding]:
    """A cgroup that allows less than the cores that can be seen: threads run in bursts and are stopped."""
    allowed = host.cpu_quota(root)
    if allowed < cores:
        text = f"the container may use {allowed:.3g} of the {cores} cores that programs see"
        mend = f"OMP_NUM_THREADS={math.ceil(allowed)}, or raise its CPU limit (docker --cpus, resources.limits.cpu)"
        yield Finding(Level.ADVICE, "quota", text, mend)


def threads(environ: Mapping[str, str], cores: int) -> Iterator[Finding]:
    """OMP_NUM_THREADS where it keeps torch from the cores, or gives it more than there are."""
    wanted = environ.get("OMP_NUM_THREADS", "")
    first = wanted.partition(",")[0].strip()
    if not wanted:
        return
    if not first.isdigit() or int(first) < 1:
        yield Finding(Level.ADVICE, "threads", f"OMP_NUM_THREADS={wanted!r} is no number of threads", "unset it")
    elif int(first) > cores:
        text = f"OMP_NUM_THREADS={wanted} is more than the {cores} cores there are: threads wait for each other"
        yield Finding(Level.ADVICE, "threads", text, f"OMP_NUM_THREADS={cores}")
    elif int(first) < cores:
        text = f"OMP_NUM_THREADS={wanted} leaves {cores - int(first)} of {cores} cores idle (torchrun sets it to 1)"
        yield Finding(Level.ADVICE, "threads", text, "unset it, or set the number that production uses")


def contention(seen: Mapping[str, float], cores: int, root: Path = ROOT) -> Iterator[Finding]:
    """Others that use the machine now: what the probe saw in a moment, and what the kernel says of the last seconds.

    Args:
        seen: Signals of the probe `host` over a short window in which this program did nothing.
        cores: That can be used.
        root: Where `proc` is mounted.
    """
    mend = "end what else runs, or wait: contended measurements are taken again, and marked"
    if text := host.contention(seen):
        yield Finding(Level.ADVICE, "contention", text, mend)
        return
    pressure = re.search(r"^some avg10=([\d.]+)", read(root / "proc/pressure/cpu"))
    load = read(root / "proc/loadavg").split()
    if pressure and float(pressure[1]) > 100 * host.MAX_PRESSURE_RATIO:
        text = f"tasks waited for a core {float(pressure[1]):.0f} % of the last 10 seconds"
        yield Finding(Level.ADVICE, "pressure", text, mend)
    elif load and float(load[0]) > cores:
        yield Finding(Level.ADVICE, "load", f"the load is {load[0]}, more than the {cores} cores", mend)


def clock(root: Path = ROOT) -> Iterator[Finding]:
    """A clock that the kernel must ask a device for: reading the time costs a microsecond and more."""
    source = read(root / "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source and source not in _CLOCKS_THAT_READ_FAST:
        text = f"the kernel's clock is {source}, which is slow to read"
        yield Finding(Level.ADVICE, "clock", text, "boot with tsc=reliable, if the machine's TSC is")


def virtual(root: Path = ROOT) -> Iterator[Finding]:
    """A virtual machine: some of it belongs to others whom nobody sees from inside."""
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", read(root / "proc/cpuinfo"), re.MULTILINE)
    if flags:
        text = "this is a virtual machine: its host may share the cores, and may hold in memory what its disk gives"
        yield Finding(Level.INFO, "virtual", text)
