"""The allocator, the synchronisation and the errors of torch, which is imported only in processes that use it."""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from autotuner.caches import last_level_cache_bytes
from autotuner.monitor.torch.counting import UNCOUNTABLE as UNCOUNTABLE
from autotuner.monitor.torch.counting import count_step
from autotuner.monitor.torch.run_ahead import make_cuda_mark, run_ahead
from autotuner.plugins import Probe
from autotuner.types import Metrics

_OUT_OF_MEMORY_CLASSES = ("OutOfMemoryError", "MemoryError")
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",  # torch, the driver and Triton each put words of their own before it
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
    "std::bad_alloc",
    "is killed by signal: killed",  # a loader's worker: by the kernel, for want of memory
    "is killed by signal: bus error",  # the same, of the shared memory through which it hands over batches
)


def _is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def synchronise(device: str) -> None:
    """Wait until the device has done what was asked of it; a CPU has always done it."""
    if _is_cuda(device):
        import torch

        torch.cuda.synchronize(device)


def peak_memory_bytes(device: str) -> int | None:
    """Most memory that the allocator had reserved since `reset_peak_memory`; None on a CPU, whose peak the host knows.

    Reserved and not allocated: it is what the device must have, fragments included.
    """
    if not _is_cuda(device):
        return None
    import torch

    return int(torch.cuda.max_memory_reserved(device))


def reset_peak_memory(device: str) -> None:
    """Let the allocator's peak start again at what is reserved now."""
    if _is_cuda(device):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def release_memory(device: str) -> None:
    """Free what nobody refers to any more, and give unused blocks back: the allocator's and the C library's."""
    gc.collect()
    with suppress(AttributeError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)
    if _is_cuda(device):
        import torch

        torch.cuda.empty_cache()


def share_cores(processes: int) -> None:
    """Give this process its part of the host's cores, as torchrun does; without torch, nothing."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // processes))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch need not be imported here."""
    if any(kind.__name__ in _OUT_OF_MEMORY_CLASSES for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS)


def allocator_metrics(device: str) -> Metrics:
    """Counters of the CUDA allocator since the process began; empty on a CPU.

    `allocator_retries`: times that it had to give its cache back and try again, a sign that memory is short.
    `allocator_segments`: blocks that it has asked the driver for so far; growth means that it is not warm yet.
    """
    if not _is_cuda(device):
        return {}
    import torch

    seen = torch.cuda.memory_stats(device)
    return {
        "allocator_retries": float(seen.get("num_alloc_retries", 0)),
        "allocator_segments": float(seen.get("segment.all.allocated", 0)),
    }


def versions() -> dict[str, str]:
    """Of torch and of the CUDA that it was built with, if this process has imported it; else empty."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "version"):  # not there, or only half imported
        return {}
    return {"torch": str(torch.__version__)} | ({"cuda": str(torch.version.cuda)} if torch.version.cuda else {})


def explain_step(step: Callable[[], object], device: str) -> Metrics:
    """What a step asks of the machine, and on a GPU whether the host keeps up; runs it up to three times, untimed.

    Returns:
        The counts of `count_step`, and `drained_ratio` of `run_ahead`; empty in a process without torch.
    """
    if "torch" not in sys.modules:
        return {}
    counts = count_step(step, device, cache_bytes(device))
    return {**counts, **run_ahead(step, make_cuda_mark)} if counts and _is_cuda(device) else counts


def cache_bytes(device: str) -> int:
    """The last-level cache of the device: a GPU's L2."""
    if not _is_cuda(device):
        return last_level_cache_bytes()
    import torch

    return int(torch.cuda.get_device_properties(device).L2_cache_size)


class TorchReader:
    """The allocator's counters, as differences between reads."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._before = allocator_metrics(device)

    def read(self) -> Metrics:
        """`allocator_retries` and `allocator_segments` since the last read; empty on a CPU."""
        before, self._before = self._before, allocator_metrics(self._device)
        return {name: value - before[name] for name, value in self._before.items()}


class TorchProbe(Probe):
    """Observes torch's CUDA allocator."""

    kind: Literal["torch"] = "torch"

    @contextmanager
    def open(self, device: str) -> Iterator[TorchReader]:
        """Start observing the allocator of `device`."""
        yield TorchReader(device)
