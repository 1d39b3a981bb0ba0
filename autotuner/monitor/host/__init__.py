"""What the host saw: CPU time of the own processes and of others, pressure (PSI), page faults, disk traffic, memory.

Everything is read from /proc and getrusage. A file that the kernel or a sandbox does not offer makes its signals
absent.
"""

from autotuner.monitor.host.cores import available_cores, cpu_quota
from autotuner.monitor.host.memory import (
    peak_rss_bytes,
    peak_rss_bytes_of,
    private_bytes_of_children,
    reset_peak_rss,
    rss_bytes,
)
from autotuner.monitor.host.probe import (
    FULL_RATIO,
    MAX_FOREIGN_RATIO,
    MAX_PRESSURE_RATIO,
    MAX_STEAL_RATIO,
    HostProbe,
    HostReader,
    contention,
)
from autotuner.monitor.host.processes import Usage, children, descendants, family, usage

__all__ = [
    "FULL_RATIO", "MAX_FOREIGN_RATIO", "MAX_PRESSURE_RATIO", "MAX_STEAL_RATIO", "HostProbe", "HostReader", "Usage",
    "available_cores", "children", "contention", "cpu_quota", "descendants", "family", "peak_rss_bytes",
    "peak_rss_bytes_of", "private_bytes_of_children", "reset_peak_rss", "rss_bytes", "usage",
]  # fmt: skip
