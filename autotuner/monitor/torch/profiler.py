"""torch.profiler, and the range that NVIDIA's profilers capture. Used by the profiled process alone."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autotuner.monitor.torch import synchronise


def record_steps(
    step: Callable[[], object], steps: int, device: str, trace: Path, whole_name: str, step_name: str
) -> float:
    """Run steps under torch.profiler and write its Chrome trace.

    One step before them pays for the profiler's own start (CUPTI's takes seconds). No shapes, stacks or memory: they
    would slow the steps down several times more.

    Args:
        step: One unit of work.
        steps: How many to record, at least 1.
        device: "cpu" or "cuda".
        trace: The file; compressed when it ends in .gz.
        whole_name: Annotation around all steps and the wait for the device after them.
        step_name: Annotation around each.

    Returns:
        Seconds that all of them took, the wait included.
    """
    from torch.profiler import ProfilerActivity, profile, record_function, schedule

    on_gpu = device.partition(":")[0] == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=1, repeat=1)) as profiler:
        step()
        synchronise(device)
        profiler.step()
        begun_s = time.perf_counter()
        with record_function(whole_name):
            for _ in range(steps):
                with record_function(step_name):
                    step()
            synchronise(device)
        spent_s = time.perf_counter() - begun_s
    profiler.export_chrome_trace(str(trace))
    return spent_s


@contextmanager
def capture_range(device: str) -> Iterator[None]:
    """What nsys (`--capture-range=cudaProfilerApi`) and ncu (`--profile-from-start off`) look at; nothing on a CPU."""
    if device.partition(":")[0] != "cuda":
        yield
        return
    import torch

    with torch.cuda.profiler.profile():
        yield


def intraop_threads() -> int:
    """How many threads one operator may use on a CPU."""
    import torch

    return int(torch.get_num_threads())
