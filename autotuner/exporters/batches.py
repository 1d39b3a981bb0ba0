"""How a training cuts its global batch, in the words of whoever asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotuner.exporters.settings import Settings

MICRO = ("micro_batch", "per_device_train_batch_size", "micro_batch_size", "train_micro_batch_size_per_gpu")


@dataclass(frozen=True, slots=True)
class Batches:
    """Samples of an optimizer step.

    Attributes:
        micro: At once, on a rank; None where the study does not say.
        accumulated: Micro batches of a step, on a rank; None where the study does not say.
        total: Over all ranks.
    """

    micro: int | None
    accumulated: int | None
    total: int | None


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
    """Take the degrees."""
    data = settings.take("data_parallel", "nproc_per_node", "num_processes")
    return Ranks(int(data or 1), int(settings.take("tensor_parallel") or 1))


def batches(settings: Settings, section: Mapping[str, Any], data_ranks: int) -> Batches:
    """Take the micro batch and what follows from a fixed global batch.

    Args:
        settings: The configuration.
        section: The workload's, which may hold `global_batch`.
        data_ranks: That share the global batch.
    """
    micro = settings.take(*MICRO)
    total = settings.take("global_batch", "train_batch_size") or section.get("global_batch")
    accumulated = settings.take("gradient_accumulation_steps")
    if accumulated is None and micro and total:
        accumulated = int(total) // (int(micro) * data_ranks)
    if total is None and micro and accumulated:
        total = int(micro) * int(accumulated) * data_ranks
    return Batches(*(None if value is None else int(value) for value in (micro, accumulated, total)))
