"""Who uses the CPU: the threads of this process and the processes that it has started, from /proc."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from autotuner.monitor import host

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Use:
    """CPU seconds a second while a `watched` block ran; filled in at its end.

    Attributes:
        threads: (name, main, ratio), the main one first, then the busiest; those that used nothing are left out.
        workers_ratio: Of all descendants.
    """

    threads: tuple[tuple[str, bool, float], ...] = ()
    workers_ratio: float = 0.0
    ignored: set[int] = field(default_factory=set)


@contextmanager
def watched() -> Iterator[Use]:
    """Watch this process; the caller may put processes that do not count into `ignored`."""
    use = Use()
    began_s, threads, workers = time.perf_counter(), _threads(), _processes()
    yield use
    spent_s = time.perf_counter() - began_s
    ratios = {
        tid: (name, (cpu_s - threads.get(tid, ("", 0.0))[1]) / spent_s) for tid, (name, cpu_s) in _threads().items()
    }
    ordered = sorted(ratios.items(), key=lambda item: (item[0] != os.getpid(), -item[1][1]))
    use.threads = tuple((name, tid == os.getpid(), ratio) for tid, (name, ratio) in ordered if ratio > 0)
    after = _processes()
    use.workers_ratio = (
        sum(cpu_s - workers.get(pid, 0.0) for pid, cpu_s in after.items() if pid not in use.ignored) / spent_s
    )


def _threads() -> Mapping[int, tuple[str, float]]:
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has just ended
            found[int(task.name)] = ((task / "comm").read_text().strip(), _cpu_s(task / "stat"))
    return found


def _processes() -> Mapping[int, float]:
    found = {}
    for pid in host.descendants():
        with suppress(OSError):
            found[pid] = _cpu_s(Path(f"/proc/{pid}/stat"))
    return found


def _cpu_s(stat: Path) -> float:
    """User and system time; the name before the fields may hold blanks."""
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
