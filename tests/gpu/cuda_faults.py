"""A workload of real CUDA kernels that fails on demand; apart from the tests, because workers import it by name."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from autotuner.plugins import Preload, Step, Workload
from autotuner.types import Config

SIDE = 2048


class CudaFaults(Workload):
    """Multiplies matrices; the parameter `fault` says what goes wrong in a step."""

    kind: Literal["cuda-faults"] = "cuda-faults"
    hold_bytes: int = 0

    any_parameter: ClassVar[bool] = True

    def preload(self) -> Preload:
        return ("torch",)

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[Any]:
        import torch

        held = torch.empty(self.hold_bytes, dtype=torch.uint8, device=device)
        yield OpenCudaFaults(torch.ones(SIDE, SIDE, device=device), held)


class OpenCudaFaults:
    """Some matrices on the GPU."""

    def __init__(self, matrix: Any, held: Any) -> None:
        self._matrix, self._held = matrix, held

    def step(self, config: Config) -> Step:
        strike(str(config.get("fault", "")), self._matrix)
        event_s, wall_s = timed_product(self._matrix)
        return Step(
            work={"products": 1.0}, metrics={"worker_pid": float(os.getpid()), "event_s": event_s, "wall_s": wall_s}
        )

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return {"row": (self._matrix @ self._matrix)[:1].cpu().numpy()}


def strike(fault: str, matrix: Any) -> None:
    """Make the device fail for real."""
    import torch

    match fault:
        case "out_of_memory":
            torch.empty(2**42, dtype=torch.uint8, device=matrix.device)
        case "device_assert":  # sticky: the context answers nothing but this error ever after
            matrix[torch.full((1,), 2 * SIDE, device=matrix.device)].sum().item()
        case "hang":
            time.sleep(3600)


def timed_product(matrix: Any) -> tuple[float, float]:
    """Seconds of twenty products, by the device's events and by the host's clock around a synchronise."""
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begun_s = time.perf_counter()
    begin.record()
    for _ in range(20):
        matrix @ matrix
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3, time.perf_counter() - begun_s
