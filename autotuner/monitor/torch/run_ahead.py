"""Does the GPU wait for the host? Ask right after a forward pass was handed over whether it is already done.

A host that is ahead leaves the GPU a queue of work; a GPU that has finished everything by the time the last kernel was
handed over has waited for most of them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from autotuner.types import Metrics

GRACE_S = 100e-6  # for the last kernel and the event itself, some 10 us; a queue of work takes far longer


class Mark(Protocol):
    """A point in the GPU's queue, as `torch.cuda.Event` is one."""

    def record(self) -> None:
        """Put the mark behind what was handed over so far."""

    def query(self) -> bool:
        """Whether the GPU has passed the mark."""


def run_ahead(step: Callable[[], object], make_mark: Callable[[], Mark]) -> Metrics:
    """Run one step and look after each forward pass of an outermost module whether the GPU had already finished.

    Returns:
        `drained_ratio`, the share of forward passes after which nothing was left to do; empty without a module.
    """
    drained: list[bool] = []

    def ask() -> None:
        mark = make_mark()
        mark.record()
        ends_s = time.perf_counter() + GRACE_S
        while not (done := mark.query()) and time.perf_counter() < ends_s:
            pass
        drained.append(done)

    with _after_forward(ask):
        step()
    return {"drained_ratio": sum(drained) / len(drained)} if drained else {}


def make_cuda_mark() -> Mark:
    """A CUDA event without timing, which costs least."""
    import torch

    mark: Mark = torch.cuda.Event(enable_timing=False)
    return mark


@contextmanager
def _after_forward(ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` whenever an outermost module's forward pass has returned. Hooks slow every module: never time this."""
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    depth = 0

    def enter(module: Any, args: Any) -> None:
        nonlocal depth
        depth += 1

    def leave(module: Any, args: Any, result: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth == 0:
            ask()

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
