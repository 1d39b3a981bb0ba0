"""What the user's loader does between steps, as far as usual names of parameters and the process tree tell."""

import time
from contextlib import suppress

from autotuner.types import Config

WORKERS = ("num_workers", "workers", "dataloader_num_workers")
_PREFETCH_FACTOR = 2  # torch's default
_QUIET_S, _LIMIT_S = 0.05, 5.0


def loader_workers(config: Config) -> int:
    """Processes that load; 0 when no parameter has a usual name for it."""
    return next((value for name in WORKERS if type(value := config.get(name)) is int), 0)


def batches_ahead(config: Config) -> int:
    """How many batches torch's DataLoader prepares ahead."""
    factor = config.get("prefetch_factor")
    return loader_workers(config) * (factor if type(factor) is int else _PREFETCH_FACTOR)


def await_quiet_children() -> None:
    """Wait, at most some seconds, until no child process computes: a loader's queue is full then."""
    limit_s = time.monotonic() + _LIMIT_S
    before_s, used_s = 0.0, _children_s()  # nothing to wait for when they have never computed
    while used_s != before_s and time.monotonic() < limit_s:
        time.sleep(_QUIET_S)
        before_s, used_s = used_s, _children_s()


def _children_s() -> float:
    """CPU time of the living children, in the kernel's ticks of 10 ms; 0 without any."""
    import psutil

    total_s = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            times = child.cpu_times()
            total_s += times.user + times.system
    return total_s
