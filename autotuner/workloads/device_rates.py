"""What the device that computes can do: multiply matrices, move memory, take data and launches from the host.

Every operation is a context that yields one step of a few milliseconds, which ends when the device has done its work.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from time import perf_counter, thread_time
from typing import Any

from autotuner.errors import UnsupportedError
from autotuner.plugins import Step
from autotuner.types import Config
from autotuner.workloads.operation import Run

LAUNCHES = 1000  # tiny operations in a step
SMALLEST_SIDE, LARGEST_SIDE = 256, 8192
_TRIAL_SIDE = 128
_CPU_STEP_S, _GPU_STEP_S = 15e-3, 5e-3  # on a busy CPU a short product waits longer for its threads than it computes
_SMALLEST_ARRAY_BYTES, _LARGEST_ARRAY_BYTES = 2**26, 2**31
_PINNED_BYTES, _PAGEABLE_BYTES = 2**28, 2**26
_FLOAT_BYTES = 4


def _is_cuda(device: str) -> bool:
    return device.partition(":")[0] == "cuda"


def _require_cuda(device: str, what: str) -> None:
    if not _is_cuda(device):
        raise UnsupportedError(f"{what} needs a CUDA device")


def _wait(device: str) -> None:
    if _is_cuda(device):
        import torch

        torch.cuda.synchronize(device)


@contextmanager
def matmul(form: str, device: str) -> Iterator[Run]:
    """Products of square matrices of random numbers; 2 n³ FLOPs each.

    Random, because the power that zeros do not draw lets a GPU clock higher than any real product may.

    Args:
        form: A floating-point dtype of torch, or "tf32": float32 on CUDA's tensor cores.
        device: "cpu" or "cuda".
    """
    with _float32_as("tf32" if form == "tf32" else "ieee", device):
        side, repeats = _shape(form, device)
        multiply = _product(form, side, device)

        def step(config: Config) -> Step:
            for _ in range(repeats):
                multiply()
            _wait(device)
            return Step(work={"flops": repeats * 2.0 * side**3})

        yield step


@contextmanager
def _float32_as(precision: str, device: str) -> Iterator[None]:
    """Compute float32 products on CUDA with the tensor cores ("tf32") or without ("ieee")."""
    if not _is_cuda(device):
        if precision == "tf32":
            raise UnsupportedError("tf32 needs a CUDA device")
        yield
        return
    import torch

    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@cache
def _shape(form: str, device: str) -> tuple[int, int]:
    """Side of the matrices, and products in a step: large enough for the full rate, short enough for a step.

    Found by trying, for a CPU without instructions for a 16-bit format is 150 times slower with it than with float32;
    once a process, for equal configurations mean equal work.
    """
    if not _is_cuda(device):
        return _side_for_cpu(form), 1
    side = SMALLEST_SIDE
    while (product_s := _best_s(_product(form, side, device), device, perf_counter)) < _GPU_STEP_S / 2:
        if side == LARGEST_SIDE:
            break
        side *= 2
    return side, max(1, round(_GPU_STEP_S / product_s))


def _side_for_cpu(form: str) -> int:
    """The power of two whose product takes the time of a step.

    From small products on one thread, by its own time: on a busy machine several threads wait for one another longer
    than they compute.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        product_s = _best_s(_product(form, _TRIAL_SIDE, "cpu"), "cpu", thread_time)
    finally:
        torch.set_num_threads(threads)
    side = _TRIAL_SIDE * (_CPU_STEP_S * threads / product_s) ** (1 / 3)
    return min(max(1 << round(math.log2(side)), SMALLEST_SIDE), LARGEST_SIDE)


def _best_s(multiply: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    """The fastest of five: the first ones select kernels and allocate, and others on the machine disturb some."""
    times_s = []
    for _ in range(5):
        begun_s = clock()
        multiply()
        _wait(device)
        times_s.append(clock() - begun_s)
    return max(min(times_s), 1e-7)


def _product(form: str, side: int, device: str) -> Callable[[], object]:
    import torch

    if form.startswith("float8"):
        return _float8_product(form, side, device)
    dtype = torch.float32 if form == "tf32" else getattr(torch, form)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=product)


def _float8_product(form: str, side: int, device: str) -> Callable[[], object]:
    """Scaled per tensor, accumulated fast, written as bfloat16: what inference in float8 does."""
    import torch

    _require_cuda(device, form)
    if torch.cuda.get_device_capability(device) < (8, 9):
        raise UnsupportedError(f"{form} products need compute capability 8.9")
    left, right = (torch.randn(side, side, device=device).to(getattr(torch, form)) for _ in range(2))
    scale = torch.ones((), device=device)
    options = {"scale_a": scale, "scale_b": scale, "out_dtype": torch.bfloat16, "use_fast_accum": True}
    return lambda: torch._scaled_mm(left, right.t(), **options)  # the right one column by column


@contextmanager
def copy(device: str, cache_bytes: int) -> Iterator[Run]:
    """STREAM's copy, c = a: counts what is read and what is written."""
    (source, target), repeats, seen = _arrays(2, device, cache_bytes)

    def step(config: Config) -> Step:
        for _ in range(repeats):
            target.copy_(source)
        _wait(device)
        return Step(work={"bytes": repeats * 2.0 * source.nbytes}, metrics=seen)

    yield step


@contextmanager
def triad(device: str, cache_bytes: int) -> Iterator[Run]:
    """STREAM's triad, a = b + s c: counts what is read and what is written."""
    import torch

    (one, other, target), repeats, seen = _arrays(3, device, cache_bytes)

    def step(config: Config) -> Step:
        for _ in range(repeats):
            torch.add(one, other, alpha=3.0, out=target)
        _wait(device)
        return Step(work={"bytes": repeats * 3.0 * one.nbytes}, metrics=seen)

    yield step


def _arrays(count: int, device: str, cache_bytes: int) -> tuple[list[Any], int, dict[str, float]]:
    """Arrays of float32, how often a step goes over them, and the size of the device's cache where it tells.

    STREAM's rule (McCalpin 1995): each at least four times the last-level caches. A GPU's are 1/64 of its memory, so
    that a step takes some milliseconds on any of them.
    """
    import torch

    if _is_cuda(device):
        known = torch.cuda.get_device_properties(device)
        size, repeats = max(known.total_memory // 64, 4 * known.L2_cache_size), 8
        seen = {"cache_bytes": float(known.L2_cache_size)}
    else:
        size, repeats, seen = max(4 * cache_bytes, _SMALLEST_ARRAY_BYTES), 1, {}
    length = min(size, _LARGEST_ARRAY_BYTES if repeats == 1 else size) // _FLOAT_BYTES
    return [torch.full((length,), float(place), device=device) for place in range(count)], repeats, seen


@contextmanager
def upload(device: str, *, pinned: bool) -> Iterator[Run]:
    """From host memory to the device; pinned memory is copied without the driver's own buffer between."""
    import torch

    _require_cuda(device, "uploading")
    length = (_PINNED_BYTES if pinned else _PAGEABLE_BYTES) // _FLOAT_BYTES
    source = torch.ones(length, pin_memory=pinned)
    target = torch.empty(length, device=device)

    def step(config: Config) -> Step:
        target.copy_(source, non_blocking=pinned)
        _wait(device)
        return Step(work={"bytes": float(source.nbytes)})

    yield step


@contextmanager
def launch(device: str) -> Iterator[Run]:
    """Operations on a single number, called from Python: what the host needs to hand out one."""
    import torch

    number = torch.zeros(1, device=device)

    def step(config: Config) -> Step:
        for _ in range(LAUNCHES):
            number.add_(1.0)
        _wait(device)
        return Step(work={"operations": float(LAUNCHES)})

    yield step


@contextmanager
def graph_launch(device: str) -> Iterator[Run]:
    """The same operations, captured once in a CUDA graph and replayed: what one of its nodes costs."""
    import torch

    _require_cuda(device, "a CUDA graph")
    number = torch.zeros(1, device=device)
    number.add_(1.0)  # loads the kernel: that must not happen while capturing
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            number.add_(1.0)

    def step(config: Config) -> Step:
        graph.replay()
        _wait(device)
        return Step(work={"operations": float(LAUNCHES)})

    yield step
