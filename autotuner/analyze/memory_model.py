"""What fits into a device's memory: model states, key-value cache, activations, and a line through what was measured.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", section 3 and figure 1;
Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4; Pope et al. 2022,
"Efficiently Scaling Transformer Inference", section 3.3, with grouped key-value heads (Ainslie et al. 2023).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autotuner.analyze.least_squares import StraightLine, fit_straight_line
from autotuner.types import Estimate

Stage = Literal[0, 1, 2, 3]
Recompute = Literal["nothing", "attention", "everything"]


@dataclass(frozen=True, slots=True)
class ModelStates:
    """Bytes on one device that do not depend on the batch."""

    parameters_bytes: float
    gradients_bytes: float
    optimizer_bytes: float

    @property
    def total_bytes(self) -> float:
        """All three."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes


def zero_bytes(
    elements: float,
    devices: int,
    stage: Stage,
    *,
    parameter_bytes: float = 2,
    gradient_bytes: float = 2,
    optimizer_bytes: float = 12,
) -> ModelStates:
    """Model states per device under ZeRO; FSDP's full sharding is stage 3, plain data parallelism stage 0.

    Stage 1 shards the optimizer's states over the devices, stage 2 the gradients too, stage 3 the parameters too.

    Args:
        elements: Parameters of the model.
        devices: Data-parallel processes, >= 1.
        stage: 0 to 3.
        parameter_bytes: Of one element.
        gradient_bytes: Of one element.
        optimizer_bytes: Of one element; 12 is Adam in mixed precision: float32 copy, momentum and variance.
    """
    if devices < 1 or elements < 0:
        raise ValueError(f"{elements} elements on {devices} devices")
    shards = [devices if stage >= first else 1 for first in (3, 2, 1)]
    sizes = (parameter_bytes, gradient_bytes, optimizer_bytes)
    return ModelStates(*(elements * size / shard for size, shard in zip(sizes, shards, strict=True)))


def largest_shard_elements(shapes: Iterable[Sequence[int]], devices: int) -> int:
    """Elements on the fullest device when every parameter is cut along its first dimension, as FSDP2 cuts it.

    Rows that do not divide evenly make it more than the mean that `zero_bytes` counts. A scalar counts whole.
    """
    return sum(math.ceil(shape[0] / devices) * math.prod(shape[1:]) if shape else 1 for shape in shapes)


def fsdp_peak_bytes(
    layer_elements: float,
    layers: int,
    rest_elements: float,
    devices: int,
    *,
    freed: bool,
    element_bytes: float = 4,
    optimizer_bytes: float = 8,
) -> float:
    """Model states of FSDP2 on one device when most of them are there: somewhere in the backward pass.

    `zero_bytes` counts what lies there between steps; on top come, while layer i is at work, its whole gradients and
    their copy that is reduced and scattered, the gathered parameters, and the shards of the gradients that are done.
    Gathered are the layers up to i, or, when they are freed after use, i and the one before it, which is fetched ahead.
    What lies around the layers stays gathered throughout, and its gradients are reduced last. Zhao et al. 2023,
    "PyTorch FSDP", section 3.2 and 3.3, and torch's `fully_shard`; everything in one number format.

    Args:
        layer_elements: Parameters of one layer, each a group of its own.
        layers: How many there are, alike.
        rest_elements: Parameters around them.
        devices: Data-parallel processes.
        freed: Layers are freed after their forward pass (stage 3), or not (stage 2).
        element_bytes: Of a parameter and of a gradient.
        optimizer_bytes: Of one element's optimizer states; 8 is Adam's two moments.
    """
    kept_elements = (layers * layer_elements + rest_elements) / devices
    busiest_elements = max(
        (min(2, place + 1) if freed else place + 1) * layer_elements  # gathered
        + 2 * layer_elements  # its whole gradients and their copy
        + (layers - place) * layer_elements / devices  # shards of gradients, its own among them
        for place in range(layers)
    )
    return kept_elements * (element_bytes + optimizer_bytes) + (busiest_elements + 2 * rest_elements) * element_bytes


def kv_cache_bytes(
    layers: int, kv_heads: int, head_dim: int, tokens: int, sequences: int = 1, element_bytes: float = 2
) -> float:
    """Bytes of the keys and values of all layers.

    Args:
        layers: That attend; each has its own cache.
        kv_heads: Heads of keys (grouped-query attention has fewer than of queries).
        head_dim: Elements of a head.
        tokens: Kept per sequence: prompt and answer, at most the sliding window; a static cache's full length.
        sequences: Batch, times beams.
        element_bytes: Of one element.
    """
    return 2 * layers * kv_heads * head_dim * tokens * sequences * element_bytes


def activation_bytes(
    layers: int,
    hidden: int,
    heads: int,
    tokens: int,
    sequences: int = 1,
    *,
    recompute: Recompute = "nothing",
    tensor_parallel: int = 1,
    sequence_parallel: bool = False,
    element_bytes: float = 2,
) -> float:
    """Bytes that the layers of a GPT-like transformer keep for their backward pass, on one device.

    Korthikanti et al. 2022, equations 1, 2, 4 and 6 and table 2, for s b h (34 + 5 a s / h) a layer at 2 bytes an
    element: two LayerNorms, multi-head attention with dropout on its scores, a GELU feed-forward of 4 h, two more
    dropouts; masks take a byte. Embeddings and logits come on top. Other architectures: measure and `fit_memory`.

    Args:
        layers: Of the transformer, on this device.
        hidden: Width h.
        heads: Attention heads a.
        tokens: Sequence length s.
        sequences: Batch b of one forward pass.
        recompute: What the backward pass computes again: "nothing", "attention" (selective: scores, softmax, dropout;
            fused attention kernels do the same) or "everything" (only each layer's input is kept).
        tensor_parallel: Devices t that share each layer.
        sequence_parallel: Share LayerNorms and dropouts among them too.
        element_bytes: Of one activation.
    """
    if min(layers, hidden, heads, tokens, sequences, tensor_parallel) < 1:
        raise ValueError("a transformer has at least one of everything")
    plane = tokens * sequences * hidden  # elements of one activation
    whole = 1 if not sequence_parallel else tensor_parallel
    if recompute == "everything":
        return layers * plane * element_bytes / whole
    shared = 12 * element_bytes  # query, key, value, projection's input, feed-forward: split by tensor parallelism
    unsplit = 4 * element_bytes + 2  # inputs of norms, attention and feed-forward, and two dropouts' masks
    scores = heads * tokens / hidden * (2 * element_bytes + 1) if recompute == "nothing" else 0.0
    return layers * plane * (unsplit / whole + (shared + scores) / tensor_parallel)


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """Measured bytes as a line in the batch."""

    line: StraightLine

    def bytes_at(self, batch: float) -> Estimate:
        """What a run with this batch would need, with its 95 % prediction interval."""
        return self.line.prediction(batch)

    def largest_batch(self, limit_bytes: float) -> int:
        """The largest batch whose prediction interval stays under a limit; 0 where none does.

        The interval's upper end rises with the batch wherever it can be trusted, so that bisection finds it.
        """
        low, high = 0, 1
        while high < 2**40 and self.bytes_at(high).high <= limit_bytes:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bytes_at(middle).high <= limit_bytes else (low, middle)
        return low


def fit_memory(peak_bytes: Mapping[float, float]) -> MemoryLine | None:
    """The line a + b batch through {batch: peak bytes}; weights and states are a, activations b.

    Plain least squares: an allocator rounds to pages and segments of one size, however much it holds.

    Returns:
        None for fewer than three batches, or memory that falls with the batch.
    """
    line = fit_straight_line(list(peak_bytes.items()), relative=False)
    return MemoryLine(line) if line is not None and line.slope >= 0 else None
