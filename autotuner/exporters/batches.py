"""How a training cuts its global batch, in the words of whoever asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotuner.errors import UsageError
from autotuner.exporters.settings import Settings

MICRO = ("micro_batch", "per_device_train_batch_size", "micro_batch_size", "train_micro_batch_size_per_gpu")


@dataclass(frozen=True, slots=True)
class Batches:
    """Samples of an optimizer step; None where the study does not say.

    Attributes:
        micro: At once, on a rank.
        accumulated: Micro batches of a step, on a rank.
        total: Over all ranks.
    """

    micro: int | None = None
    accumulated: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Processes of a training.

    Attributes:
        data: That share the global batch.
        tensor: That share every layer.
    """

    data: int = 1
    tensor: int = 1

    @property
    def total(self) -> int:
        """Of them all."""
        return self.data * self.tensor


def ranks(settings: Settings) -> Ranks:
    """Take the degrees, or the number of processes, which hold both.

    Raises:
        UsageError: The processes cannot be shared out.
    """
    tensor = int(settings.take("tensor_parallel") or 1)
    data = settings.take("data_parallel")
    if data is not None:
        return Ranks(int(data), tensor)
    processes = int(settings.take("nproc_per_node", "num_processes") or tensor)
    if processes % tensor:
        raise UsageError(f"{processes} processes cannot be shared out to groups of tensor_parallel {tensor}")
    return Ranks(processes // tensor, tensor)


def batches(settings: Settings, section: Mapping[str, Any], data_ranks: int) -> Batches:
    """Take the micro batch and what follows from a fixed global batch, which says nothing without one.

    Args:
        settings: The configuration.
        section: The workload's, which may hold `global_batch`.
        data_ranks: That share the global batch.

    Raises:
        UsageError: The global batch is not made of such micro batches, so the target would train with another.
    """
    micro = _whole(settings.take(*MICRO))
    accumulated = _whole(settings.take("gradient_accumulation_steps"))
    if micro is None:
        return Batches(accumulated=accumulated)
    total = _whole(settings.take("global_batch", "train_batch_size") or section.get("global_batch"))
    if total is None:
        return Batches(micro, accumulated, None if accumulated is None else micro * accumulated * data_ranks)
    if accumulated is None:
        accumulated = max(1, total // (micro * data_ranks))
    if micro * accumulated * data_ranks != total:
        made = f"{accumulated} micro batches of {micro} samples on {data_ranks} ranks"
        raise UsageError(f"{made} are no global batch of {total}", "tune a micro_batch that divides it")
    return Batches(micro, accumulated, total)


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
