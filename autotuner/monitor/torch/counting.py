"""What one step asks of a machine, counted while it runs: operations, FLOPs by number format, bytes from memory.

FLOPs are those of matrix products, convolutions and attention, two for a multiply-add, by torch's own formulas; what
works element by element is memory's business. Compiled code is counted as it would run uncompiled: the same FLOPs, but
fused operations need fewer bytes and fewer launches, so both are upper bounds there.

Bytes are what a least-recently-used cache of the size of the last one would fetch and write back, tensor by tensor
(Hill & Smith, Evaluating associativity in CPU caches, 1989, for how little set conflicts add to full associativity).
"""

import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from autotuner.types import Metrics

# What torch raises when code cannot run under a dispatch mode, or its formulas do not know an operation's arguments.
UNCOUNTABLE = (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, OSError)

TINY_BYTES, TINY_FLOPS = 32 * 2**10, 2e5  # an operation below both costs less to do than to launch
_AGAIN_S = 1.0  # a step up to this long is counted twice: the second time finds the cache as steady work leaves it
_OVERWRITES = ("copy_", "fill_", "zero_", "normal_", "uniform_")  # their first argument is not read
_PICKS = ("embedding", "index_select", "gather", "index", "take", "slice")  # they read of the first what they return


def count_step(step: Callable[[], object], device: str, cache_bytes: int) -> Metrics:
    """Run `step` once or twice and count what it asks of the machine.

    Args:
        step: Runs one step and waits for it.
        device: "cpu" or "cuda"; the time inside operations is only known where they end when they return.
        cache_bytes: The last-level cache.

    Returns:
        `step_operations`, `step_flops` and `step_flops_<dtype>`, `step_bytes`; on a CPU also `step_kernel_s`, the time
        inside operations, and `step_tiny_s`, the part of it in operations that are too small to be worth a launch.
        Empty for a step that does not use torch.

    Raises:
        One of UNCOUNTABLE: The step did something that cannot be counted; it has come to its end all the same.
    """
    cache, timed = Cache(cache_bytes), device == "cpu"
    for _ in range(2):
        counts = Counts(cache)
        with _watching(counts, timed=timed):
            began_s = time.perf_counter()
            step()
        if counts.error is not None:
            raise counts.error
        if time.perf_counter() - began_s > _AGAIN_S:
            break
    return counts.metrics(timed=timed)


class Cache:
    """Least recently used, at the granularity of whole tensors."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._resident: OrderedDict[int, int] = OrderedDict()
        self._used_bytes = 0

    def forget(self, key: int) -> None:
        """What lies there of a tensor is not what will be read of it next."""
        self._used_bytes -= self._resident.pop(key, 0)

    def missing_bytes(self, key: int, size_bytes: int) -> int:
        """How much of a tensor must come from memory now; afterwards it lies in the cache if it fits at all."""
        held_bytes = self._resident.pop(key, 0)
        self._used_bytes -= held_bytes
        if size_bytes > self.capacity_bytes:
            return size_bytes
        self._resident[key] = max(size_bytes, held_bytes)
        self._used_bytes += self._resident[key]
        while self._used_bytes > self.capacity_bytes:
            self._used_bytes -= self._resident.popitem(last=False)[1]
        return max(0, size_bytes - held_bytes)


class Counts:
    """The sums over one step.

    Attributes:
        error: What was raised while counting; kept, for the other ranks of a step wait until it is over.
    """

    def __init__(self, cache: Cache) -> None:
        self.error: Exception | None = None
        self._cache = cache
        self._flops: dict[str, float] = defaultdict(float)
        self._operations = 0
        self._bytes = 0.0
        self._kernel_s = self._tiny_s = 0.0

    def add(self, name: str, inputs: Iterable[Any], outputs: Iterable[Any], flops: float, seconds: float) -> None:
        """Count one operation by its tensors."""
        read, written = list(inputs), list(outputs)
        if name in _OVERWRITES:
            read = read[1:]
        touched_bytes = [_size_bytes(tensor) for tensor in [*read, *written]]
        if name in _PICKS and read:
            table_bytes, touched_bytes[0] = touched_bytes[0], min(touched_bytes[0], sum(map(_size_bytes, written)))
            if table_bytes > self._cache.capacity_bytes:  # other rows each time, as far as anybody can know
                self._cache.forget(_key(read[0]))
        for tensor, size_bytes in zip(read + written, touched_bytes, strict=True):
            self._bytes += self._cache.missing_bytes(_key(tensor), size_bytes)
        if flops:
            self._flops[_format(read)] += flops
        self._operations += 1
        self._kernel_s += seconds
        self._tiny_s += seconds if sum(touched_bytes) <= TINY_BYTES and flops <= TINY_FLOPS else 0.0

    def metrics(self, *, timed: bool) -> Metrics:
        """As `count_step` returns them."""
        if not self._operations:
            return {}
        times = {"step_kernel_s": self._kernel_s, "step_tiny_s": self._tiny_s} if timed else {}
        return {
            "step_operations": float(self._operations),
            "step_bytes": self._bytes,
            "step_flops": math.fsum(self._flops.values()),
            **{f"step_flops_{name}": flops for name, flops in self._flops.items()},
            **times,
        }


def _size_bytes(tensor: Any) -> int:
    """What reading the tensor touches: an expanded one is no larger than what it is made of."""
    return int(min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()))


def _key(tensor: Any) -> int:
    return int(tensor.untyped_storage().data_ptr()) + int(tensor.storage_offset()) * int(tensor.element_size())


def _format(tensors: list[Any]) -> str:
    """The number format in which a product is computed: that of its first tensor, or tf32 where float32 may be so."""
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    if first is None:
        return "integer"
    name = str(first.dtype).removeprefix("torch.")
    return "tf32" if name == "float32" and first.is_cuda and _allows_tf32() else name


def _allows_tf32() -> bool:
    import torch

    return str(torch.get_float32_matmul_precision()) != "highest"


@contextmanager
def _watching(counts: Counts, *, timed: bool) -> Iterator[None]:
    """Every operation of torch in the block is counted; compiled functions run uncompiled meanwhile."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass_type
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):  # type: ignore[misc]  # untyped for mypy, which does not follow torch
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(map(is_traceable_wrapper_subclass_type, types)):
                return NotImplemented  # a DTensor: it comes back with the parts that lie here
            kwargs = kwargs or {}
            name, flops_of = func._overloadpacket.__name__, _formula(func)
            if flops_of is None and func._can_decompose():
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            began_s = time.perf_counter()
            result = func(*args, **kwargs)
            seconds = time.perf_counter() - began_s if timed else 0.0
            if func.is_view:  # moves nothing; its cost shows as time outside of operations
                return result
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if _is_dense(leaf)]
            outputs = [leaf for leaf in tree_leaves(result) if _is_dense(leaf)]
            try:
                counts.add(name, tensors, outputs, flops_of(args, kwargs, result) if flops_of else 0.0, seconds)
            except UNCOUNTABLE as error:
                counts.error = error
            return result

    with torch.compiler.set_stance("force_eager"), Watch():
        yield


def _is_dense(leaf: object) -> bool:
    import torch

    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided and leaf.device.type != "meta"


def _formula(func: Any) -> "Callable[[Any, Any, Any], float] | None":
    """How many FLOPs an operation does, from (args, kwargs, result); None if it is not counted.

    Torch's own formulas, and ours for what reaches us whole.
    """
    from torch.utils.flop_counter import flop_registry

    packet = func._overloadpacket
    own: dict[str, Callable[[Any, Any, Any], float]] = {
        "linear": lambda args, kwargs, result: 2.0 * args[0].numel() * args[1].shape[0],
        "matmul": lambda args, kwargs, result: 2.0 * result.numel() * args[0].shape[-1],
        "mv": lambda args, kwargs, result: 2.0 * args[0].numel(),
        "addmv": lambda args, kwargs, result: 2.0 * args[1].numel(),
        "dot": lambda args, kwargs, result: 2.0 * args[0].numel(),
        "_int_mm": lambda args, kwargs, result: 2.0 * result.numel() * args[0].shape[-1],
        "scaled_dot_product_attention": _attention_flops,
        "_scaled_dot_product_flash_attention_for_cpu": _attention_flops,
        "_native_multi_head_attention": lambda args, kwargs, result: _encoder_flops(args[0], (args[5], args[7])),
        "_transformer_encoder_layer_fwd": lambda args, kwargs, result: _encoder_flops(
            args[0], (args[3], args[5], args[14], args[16])
        ),
    }
    if (name := packet.__name__) in own:
        return own[name]
    if packet in flop_registry:
        return lambda args, kwargs, result: float(flop_registry[packet](*args, **kwargs, out_val=result))
    return None


def _attention_flops(args: Any, kwargs: Any, result: Any) -> float:
    """Q K^T and P V, masked or not: 2 · 2 · batch · heads · queries · keys · head width."""
    query, key, value = args[:3]
    *_, queries, width = query.shape
    return float(2 * math.prod(query.shape[:-2]) * queries * key.shape[-2] * (width + value.shape[-1]))


def _encoder_flops(inputs: Any, weights: tuple[Any, ...]) -> float:
    """Torch's fused encoder layer or attention: [batch, tokens, width] through every matrix, and self-attention."""
    batch, tokens, width = inputs.shape
    return float(2 * batch * tokens * sum(weight.numel() for weight in weights) + 4 * batch * tokens**2 * width)
