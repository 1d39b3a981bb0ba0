"""The roofline's floor against the time of real steps that should stand at one of its roofs, or between them."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import torch

from autotuner.analyze.roofline import floor_times_s
from autotuner.doctor import measure_ceilings
from autotuner.metrics import quantile
from autotuner.monitor.torch import cache_bytes
from autotuner.monitor.torch.counting import count_step
from autotuner.types import Binding
from model_checks.memory import tiny_llama
from model_checks.points import Point, quietly

ROUNDS = 30
UNDISTURBED = 0.25  # the quartile that others on this machine disturb least


def steps() -> Mapping[str, Callable[[], object]]:
    """Steps bound by arithmetic, by memory, and by some of both."""
    a, b = torch.randn(1024, 1024), torch.randn(2048, 2048)
    rows, weights, vector = torch.randn(64, 4096), torch.randn(4096, 4096), torch.randn(8192)
    tall, large = torch.randn(4096, 8192), torch.randn(2**25)
    target, llama, prompt = torch.empty_like(large), tiny_llama(4, 2), torch.ones(8, 256, dtype=torch.long)
    return {
        "matmul 1024": lambda: a @ a,
        "matmul 2048": lambda: b @ b,
        "64 rows x 4096 x 4096": lambda: rows @ weights,
        "copy 128 MiB": lambda: target.copy_(large),
        "scale in place 128 MiB": lambda: large.mul_(1.0),
        "matrix x vector 128 MiB": lambda: tall @ vector,
        "prefill of a small Llama": lambda: llama(prompt),
    }


def seconds_of(step: Callable[[], object]) -> float:
    """The fast quartile of its time."""
    samples = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        step()
        samples.append(time.perf_counter() - began_s)
    return quantile(samples[3:], UNDISTURBED)


def check() -> list[Point]:
    ceilings = measure_ceilings("cpu", quick=True)
    print("ceilings:", ", ".join(f"{name} {each.value:.3g}" for name, each in ceilings.values.items()))
    points = []
    with torch.inference_mode():
        for name, step in steps().items():
            floors = floor_times_s(count_step(step, "cpu", cache_bytes("cpu")), ceilings)
            floor_s = max(floors.get(roof, 0.0) for roof in (Binding.COMPUTE, Binding.MEMORY_BANDWIDTH))
            measured_s, _, disturbed = quietly(partial(seconds_of, step))
            points.append(Point("roofline", name, floor_s, measured_s, "s", disturbed or bool(ceilings.contended)))
    return points
