"""Ways to ask less of a machine for one step of a transformer, for the causal probe of a diagnosis."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def shared_layers(model: Any, cache_bytes: int) -> Iterator[float]:
    """All layers of a stack use the first one's weights, which stay in the cache: same arithmetic, fewer bytes.

    Yields:
        The share of the weights that must still come from memory; 1 where one layer does not fit a quarter of the
        cache, or there is no stack of equal layers.
    """
    stack = equal_layers(model)
    layer_bytes = weight_bytes(stack[0]) if stack else 0
    if len(stack) < 2 or layer_bytes > cache_bytes / 4:
        yield 1.0
        return
    others_bytes = weight_bytes(model) - layer_bytes * len(stack)
    kept = [[parameter.data for parameter in layer.parameters()] for layer in stack]
    try:
        for layer in stack[1:]:
            for parameter, first in zip(layer.parameters(), kept[0], strict=True):
                parameter.data = first
        yield others_bytes / (others_bytes + layer_bytes * len(stack))
    finally:
        for layer, datas in zip(stack, kept, strict=True):
            for parameter, data in zip(layer.parameters(), datas, strict=True):
                parameter.data = data


def equal_layers(model: Any) -> list[Any]:
    """The largest stack of layers whose weights have the same shapes; empty if there is none."""
    import torch

    stacks = [list(module) for module in model.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    alike = [stack for stack in stacks if len({_shapes(layer) for layer in stack}) == 1 and weight_bytes(stack[0])]
    return max(alike, key=lambda stack: len(stack) * weight_bytes(stack[0]), default=[])


def weight_bytes(module: Any) -> int:
    """Bytes of the parameters of a module, each counted once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def _shapes(layer: Any) -> tuple[Any, ...]:
    return tuple((tuple(parameter.shape), parameter.dtype) for parameter in layer.parameters())
