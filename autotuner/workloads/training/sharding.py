"""FSDP2: data ranks share out the model's states, layer by layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from autotuner.workloads.training.communication import Stopwatch
from autotuner.workloads.transformers_relief import equal_layers


class Sharded:
    """`fully_shard` on every layer of the largest stack and on the rest.

    Parameters are gathered for a layer and freed after it (`freed`: ZeRO's stage 3), or gathered once a step and freed
    after the last backward (stage 2). The rest, embeddings and head, stays gathered from forward to backward, where it
    is needed first: torch's own default.
    """

    def __init__(self, model: Any, mesh: Any, freed: bool, gathered_dtype: str | None, measured: bool) -> None:
        import torch
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy()
        if gathered_dtype is not None:
            policy = MixedPrecisionPolicy(getattr(torch, gathered_dtype), torch.float32)
        for layer in equal_layers(model):
            fully_shard(layer, mesh=mesh, reshard_after_forward=freed, mp_policy=policy)
        self.model, self._freed = fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=policy), freed
        self._watch = None
        if measured and mesh.device_type == "cpu":
            self._watch = Stopwatch(torch.device("cpu"))
            _watch_collectives(self.model, self._watch)

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Whole gradients pile up on every rank; stage 2 keeps the gathered parameters, which do not change."""
        self._synchronise(False)
        try:
            yield
        finally:
            self._synchronise(True)

    def finish(self) -> None:
        """The backward pass has reduced and scattered them already."""
        if self._watch is not None:
            self._watch.end_step()

    def exposed_s(self) -> float | None:
        """The time in collectives on a CPU, where FSDP2 waits for each at once; not known on a GPU."""
        return None if self._watch is None else self._watch.last_step_s()

    def silent(self) -> AbstractContextManager[None] | None:
        """No layer computes without what is gathered."""
        return None

    def _synchronise(self, gradients: bool) -> None:
        self.model.set_requires_gradient_sync(gradients)
        if not self._freed:
            self.model.set_reshard_after_backward(gradients)


def _watch_collectives(model: Any, watch: Stopwatch) -> None:
    from torch import distributed
    from torch.distributed.fsdp import FSDPModule

    # torch 2.13 gives them new names, and warns of the old
    gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
    scatter = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_custom_all_gather(_Watched(gather, watch))
            module.set_custom_reduce_scatter(_Watched(scatter, watch))


class _Watched:
    """A collective of FSDP2 (its interfaces `AllGather` and `ReduceScatter`), timed from call to return."""

    def __init__(self, collective: Callable[..., Any], watch: Stopwatch) -> None:
        self._collective, self._watch = collective, watch

    def allocate(self, size: Sequence[int], *, dtype: Any, device: Any) -> Any:
        """Memory for its result."""
        import torch

        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(self, output_tensor: Any, input_tensor: Any, group: Any, *more: Any, **named: Any) -> Any:
        """Run it; on a CPU it returns when all ranks have done their part."""
        self._watch.begin()
        work = self._collective(output_tensor, input_tensor, *more, group=group, **named)
        self._watch.end()
        return work
