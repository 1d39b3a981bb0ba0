"""Every data rank has the whole model; gradients stay, or are averaged during the backward pass or after it."""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from autotuner.workloads.training.communication import Stopwatch
from autotuner.workloads.training.tensor_parallel import local


class Local:
    """No other rank has a part of the batch; a tensor-parallel model still communicates."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def accumulating(self) -> AbstractContextManager[None]:
        """Nothing to leave out."""
        return nullcontext()

    def finish(self) -> None:
        """Nothing to do."""

    def exposed_s(self) -> float | None:
        """Nothing, or not known."""
        return None

    def silent(self) -> AbstractContextManager[None] | None:
        """Impossible or pointless."""
        return None


class Overlapped:
    """DistributedDataParallel: a bucket of gradients is on its way while earlier layers still compute."""

    def __init__(self, model: Any, group: Any, bucket_bytes: int) -> None:
        from torch.nn.parallel import DistributedDataParallel

        known = inspect.signature(DistributedDataParallel).parameters
        buffers = (
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        )  # before torch 2.13
        self.model = DistributedDataParallel(
            model, process_group=group, bucket_cap_mb=bucket_bytes / 2**20, gradient_as_bucket_view=True,
            init_sync=False, **{buffers: False},
        )  # fmt: skip
        self._watch = Stopwatch(next(model.parameters()).device)
        self.model.register_comm_hook(group, lambda group, bucket: self._reduce(group, bucket))  # DDP reads annotations

    def accumulating(self) -> AbstractContextManager[None]:
        """DDP's `no_sync`."""
        return self.model.no_sync()  # type: ignore[no-any-return]

    def finish(self) -> None:
        """The backward pass has waited for the last bucket already."""
        self._watch.end()
        self._watch.end_step()

    def exposed_s(self) -> float | None:
        """From the last bucket's last gradient to the end of the backward pass."""
        return self._watch.last_step_s()

    def silent(self) -> AbstractContextManager[None] | None:
        """As while accumulating."""
        return self.accumulating()

    def _reduce(self, group: Any, bucket: Any) -> Any:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        if bucket.is_last():
            self._watch.begin()
        return allreduce_hook(group, bucket)


class Afterwards:
    """The gradients are averaged when all are there, a bucket at a time; tensor-parallel ones too."""

    def __init__(self, model: Any, group: Any, bucket_bytes: int, measured: bool) -> None:
        self.model, self._group, self._measured = model, group, measured
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buckets = list(buckets(parameters, bucket_bytes))
        self._watch = Stopwatch(parameters[0].device)
        self._silent = False

    def accumulating(self) -> AbstractContextManager[None]:
        """Nothing is sent before `finish`."""
        return nullcontext()

    def finish(self) -> None:
        """Average them."""
        if not self._silent:
            self._watch.begin()
            for bucket in self._buckets:
                self._average(bucket)
            self._watch.end()
        self._watch.end_step()

    def exposed_s(self) -> float | None:
        """The whole of it."""
        return self._watch.last_step_s() if self._measured else None

    def silent(self) -> AbstractContextManager[None] | None:
        """Leave the averages out; None for a tensor-parallel model, which needs its other collectives."""
        return self._silence() if self._measured else None

    @contextmanager
    def _silence(self) -> Iterator[None]:
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def _average(self, bucket: list[Any]) -> None:
        import torch
        from torch import distributed

        for parameter in bucket:
            if parameter.grad is None:  # another rank may have one
                parameter.grad = torch.zeros_like(parameter)
        gradients = [local(parameter.grad) for parameter in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients]).div_(self._group.size())
        distributed.all_reduce(flat, group=self._group)
        for gradient, average in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(average.view_as(gradient))


def buckets(parameters: list[Any], bucket_bytes: int) -> Iterator[list[Any]]:
    """Parameters of one dtype, from the last to the first, until they are at least so many bytes."""
    bucket: list[Any] = []
    size_bytes = 0
    for parameter in reversed(parameters):
        if bucket and (size_bytes >= bucket_bytes or bucket[0].dtype != parameter.dtype):
            yield bucket
            bucket, size_bytes = [], 0
        bucket.append(parameter)
        size_bytes += local(parameter).numel() * parameter.element_size()
    if bucket:
        yield bucket
