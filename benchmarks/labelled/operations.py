"""Arithmetic and memory: operations on a bank of operand sets, one set after the other.

A bank that is larger than the last-level cache streams from memory; "the same on resident data" is then the first set
again and again, and "fewer FLOPs" is to read the operands once and add them up.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from autotuner.types import Config, Metrics
from labelled.part import Part, swapped

Operands = tuple[Any, ...]
Operation = Callable[..., Any]


class Bank(Part):
    """`amount` sweeps over a bank; operations are the outer loop, so that a chain streams once a link.

    Attributes of an instance:
        sets: Operand sets.
        chain: Operations on one set.
        flops: Of one operation on one set, mean of the chain.
        moved_bytes: Memory traffic of one operation on one set, mean of the chain.
    """

    def __init__(
        self, device: str, amount: int, sets: Sequence[Operands], chain: Sequence[Operation], flops: float = 0.0,
        moved_bytes: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(device, amount)
        self.sets, self.chain, self.flops = list(sets), list(chain), flops
        self.moved_bytes = _bytes(sets[0]) if moved_bytes is None else moved_bytes

    def run(self, config: Config) -> Metrics:
        """Sweep."""
        for _ in range(self.amount):
            for operation in self.chain:
                for operands in self.sets:
                    operation(*operands)
        return {}

    def relieve(self, resource: str) -> AbstractContextManager[float] | None:
        """Memory: the first set only; compute: the operands are summed instead."""
        if resource == "memory_bandwidth" and len(self.sets) > 1:
            return swapped(self, 1 / len(self.sets), sets=[self.sets[0]] * len(self.sets))
        if resource == "compute" and self.flops:
            elements = sum(tensor.numel() for tensor in _tensors(self.sets[0]))
            if elements < 0.5 * self.flops:
                return swapped(self, elements / self.flops, chain=[_touch] * len(self.chain))
        return None

    def demands(self) -> Mapping[str, float]:
        """By the formulas of the operations."""
        times = self.amount * len(self.chain) * len(self.sets)
        return {"flops": times * self.flops, "bytes": times * self.moved_bytes, "operations": float(times)}


def _tensors(operands: Operands) -> list[Any]:
    import torch

    return [operand for operand in operands if isinstance(operand, torch.Tensor) and operand.is_floating_point()]


def _bytes(operands: Operands) -> float:
    return float(sum(tensor.numel() * tensor.element_size() for tensor in _tensors(operands)))


def _touch(*operands: Any) -> None:
    """Read every operand once."""
    for tensor in _tensors(operands):
        tensor.sum()


def _random(shape: tuple[int, ...], dtype: str, device: str) -> Any:
    import torch

    return (torch.rand(shape, device=device) - 0.5).to(getattr(torch, dtype))


def matmul(device: str, amount: int, n: int = 1024, sets: int = 2, dtype: str = "float32", batch: int = 1) -> Bank:
    """Square products, n x n, `batch` at once."""
    import torch

    shape = (n, n) if batch == 1 else (batch, n, n)
    bank = [tuple(_random(shape, dtype, device) for _ in range(3)) for _ in range(sets)]
    return Bank(device, amount, bank, [lambda a, b, out: torch.matmul(a, b, out=out)], 2.0 * batch * n**3)


def conv2d(device: str, amount: int, channels: int = 64, size: int = 56, batch: int = 4, sets: int = 2) -> Bank:
    """3 x 3 convolutions."""
    import torch.nn.functional as functional

    images, kernels = (batch, channels, size, size), (channels, channels, 3, 3)
    bank = [(_random(images, "float32", device), _random(kernels, "float32", device)) for _ in range(sets)]
    flops = 2.0 * batch * size**2 * channels**2 * 9
    return Bank(device, amount, bank, [lambda x, w: functional.conv2d(x, w, padding=1)], flops)


def attention(device: str, amount: int, length: int = 1024, heads: int = 8, width: int = 64, sets: int = 2) -> Bank:
    """Scaled dot-product attention over a long sequence."""
    import torch.nn.functional as functional

    shape = (1, heads, length, width)
    bank = [tuple(_random(shape, "float32", device) for _ in range(3)) for _ in range(sets)]
    return Bank(device, amount, bank, [functional.scaled_dot_product_attention], 4.0 * heads * length**2 * width)


def dense(
    device: str, amount: int, rows: int = 256, width: int = 1024, layers: int = 4, dtype: str = "float32"
) -> Bank:
    """Layers of a perceptron: with many rows arithmetic, with one row the weights' way from memory."""
    import torch
    import torch.nn.functional as functional

    x = _random((rows, width), dtype, device)
    bank = [(x, _random((width, width), dtype, device)) for _ in range(layers)]
    with torch.no_grad():
        return Bank(device, amount, bank, [functional.linear], 2.0 * rows * width**2)


def encoder(device: str, amount: int, length: int = 128, width: int = 384, layers: int = 2) -> Bank:
    """A prefill through transformer encoder layers, as torch ships them."""
    import torch

    made = [
        torch.nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True, device=device).eval()
        for _ in range(layers)
    ]  # fmt: skip
    x = _random((4, length, width), "float32", device)
    flops = 4 * (2.0 * length * 12 * width**2 + 4.0 * length**2 * width)
    weights = 4.0 * 12 * width**2
    return Bank(device, amount, [(x, layer) for layer in made], [_infer], flops, weights)


def _infer(x: Any, module: Any) -> None:
    import torch

    with torch.no_grad():
        module(x)


def stream(device: str, amount: int, what: str = "copy", elements: int = 2**19, sets: int = 24) -> Bank:
    """Elementwise operations and reductions over a bank far larger than the cache."""
    import torch

    chains: Mapping[str, tuple[int, list[Operation]]] = {
        "copy": (2, [lambda a, b: b.copy_(a)]),
        "triad": (3, [lambda a, b, c: torch.add(a, b, alpha=3.0, out=c)]),
        "scale": (1, [lambda a: a.mul_(1.0)]),
        "chain": (1, [lambda a: a.add_(0.5), lambda a: a.mul_(1.0), lambda a: a.clamp_(-8.0, 8.0)]),
        "dot": (2, [lambda a, b: torch.dot(a, b)]),
        "sum": (1, [lambda a: a.sum()]),
        "lerp": (2, [lambda a, b: a.lerp_(b, 0.5)]),
        "where": (2, [lambda a, b: torch.maximum(a, b, out=b)]),
    }
    count, chain = chains[what]
    bank = [tuple(_random((elements,), "float32", device) for _ in range(count)) for _ in range(sets)]
    writes = 1.0 if what == "scale" or what == "chain" else 0.0  # in place: read and written
    return Bank(device, amount, bank, chain, 0.0, 4.0 * elements * (count + writes))


def rows(device: str, amount: int, what: str = "softmax", height: int = 512, width: int = 1024, sets: int = 24) -> Bank:
    """Normalisations of rows over a large tensor."""
    import torch
    import torch.nn.functional as functional

    chains: Mapping[str, Operation] = {
        "softmax": lambda a, b: torch.softmax(a, -1, out=b),
        "layer_norm": lambda a, b: functional.layer_norm(a, (width,)),
    }
    bank = [tuple(_random((height, width), "float32", device) for _ in range(2)) for _ in range(sets)]
    return Bank(device, amount, bank, [chains[what]])


def gather(
    device: str, amount: int, table_rows: int = 2**16, width: int = 1024, picks: int = 512, sets: int = 16
) -> Bank:
    """Rows of a large table in random order, as an embedding reads them."""
    import torch

    table = _random((table_rows, width), "float32", device)
    bank = [
        (table, torch.randint(table_rows, (picks,), device=device), _random((picks, width), "float32", device))
        for _ in range(sets)
    ]  # fmt: skip
    operation: Operation = lambda source, index, out: torch.index_select(source, 0, index, out=out)  # noqa: E731
    return Bank(device, amount, bank, [operation], 0.0, 8.0 * picks * width)
