"""An opened training: optimizer steps over a real loader, the same mathematics in every configuration."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from autotuner.errors import InvalidConfigError
from autotuner.plugins import Step
from autotuner.types import Binding, Config
from autotuner.workloads.training.feed import Feed, Loading
from autotuner.workloads.training.models import targets_of
from autotuner.workloads.training.noise import squared_norms
from autotuner.workloads.training.parallel import Parallel
from autotuner.workloads.training.samples import Batch, Samples

_NOISE_STEPS = 24  # of a noise scale: fewer hardly tell it


class Training:
    """One model in training. The losses and gradient norms of its first steps are kept: they are its outputs.

    Args:
        parallel: The model, with its loss, on this rank.
        optimizer: Of its parameters.
        feed: Of this rank.
        samples: Whose largest batch proves that a configuration fits.
        global_batch: Samples of an optimizer step, over all ranks.
        device: Of this rank.
        chosen: The configuration that it was opened with.
        guard_steps: How many first steps are compared with the baseline's.
        other_losses: Trains the baseline anew with other seeds; gives the loss curves [seeds, guard_steps].
    """

    def __init__(
        self, parallel: Parallel, optimizer: Any, feed: Feed, samples: Samples, global_batch: int, device: str,
        chosen: Config, guard_steps: int, other_losses: Callable[[], Any],
    ) -> None:  # fmt: skip
        self._parallel, self._optimizer, self._feed, self._samples = parallel, optimizer, feed, samples
        self._global_batch, self._device, self._chosen = global_batch, device, dict(chosen)
        self._guard_steps, self._other_losses = guard_steps, other_losses
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._changed = False  # a live parameter, before the first steps were over

    def step(self, config: Config) -> Step:
        """One optimizer step on the next global batch, in as many micro-batches as it takes."""
        chosen = {**self._chosen, **config}
        guarded = len(self._losses) < self._guard_steps
        self._changed |= guarded and chosen != self._chosen
        batches = self._feed.take(loading_of(chosen))
        targets = self._parallel.sum(float(sum(map(targets_of, batches))))
        loss = self._gradients(batches, self._parallel.data_ranks / max(1.0, targets), chosen)
        if guarded:
            self._losses.append(float(self._parallel.sum(float(loss))) / self._parallel.data_ranks)
            self._norms.append(self._parallel.gradient_norm())
        self._end_step()
        work = {"samples": float(self._global_batch)}
        if batches[0]["labels"].dim() > 1:
            work["tokens"] = targets
        exposed_s = self._parallel.exposed_communication_s
        communication = {} if exposed_s is None else {"communication_s": exposed_s}
        return Step(work, {"input_wait_s": self._feed.waited_s, **communication})

    def worst_step(self, config: Config) -> Step:
        """Forward and backward of micro-batches of full length, beside the optimizer's states; it trains nothing."""
        chosen = {**self._chosen, **config}
        size = loading_of(chosen).micro_batch
        count = min(2, self._global_batch // self._parallel.data_ranks // size)  # gradients lie there at the second
        self._gradients([self._samples.worst_batch(size) for _ in range(count)], 1.0 / size, chosen)
        self._optimizer.zero_grad(set_to_none=True)
        return Step({"samples": float(size * count)})

    def cycle_steps(self, config: Config) -> int:
        """Loader workers finish together: after so many steps all of them have been waited for.

        An epoch so short that its start matters is a cycle of its own.
        """
        loading = loading_of({**self._chosen, **config})
        short = self._feed.steps_per_epoch
        if short <= 2 * max(1, loading.workers):
            return short
        micro_batches = self._global_batch // self._parallel.data_ranks // loading.micro_batch
        return max(1, -(-loading.workers // micro_batches))

    def idle(self) -> None:
        """Stop loading ahead."""
        self._feed.idle()

    def relieve(self, resource: str, config: Config) -> AbstractContextManager[float] | None:
        """Of data by batches that are there already, of communication by sending nothing."""
        if resource == Binding.INPUT:
            return self._resident()
        return self._parallel.without_communication() if resource == Binding.COMMUNICATION else None

    def characteristics(self, config: Config) -> Mapping[str, Sequence[float]]:
        """How much gradients differ, where the file lets the global batch change: see `squared_norms`."""
        chosen = {**self._chosen, **config}
        if chosen["global_batch"] is None:
            return {}
        return squared_norms(
            max(_NOISE_STEPS, self._guard_steps), lambda: self._feed.take(loading_of(chosen)),
            lambda batches, scale: self._gradients(batches, scale, chosen), self._end_step, self._parallel,
        )  # fmt: skip

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Losses and gradient norms [1, guard_steps] of the first steps; nothing if a live parameter has changed."""
        import numpy as np

        while len(self._losses) < self._guard_steps:
            self.step(config)
        if self._changed or {**self._chosen, **config} != self._chosen:
            return {}
        others = {} if reference is not None else {"_other_losses": np.array(self._other_losses())}
        dtype = {"none": "float32"}.get(str(self._chosen["autocast"]), str(self._chosen["autocast"]))
        return {
            "losses": np.array([self._losses]),
            "gradient_norms": np.array([self._norms]),
            "_dtype": np.array(dtype),
            **others,
        }

    def _end_step(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _gradients(self, batches: list[Batch], scale: float, chosen: Config) -> Any:
        """Forward and backward of all micro-batches; their summed loss."""
        total: Any = 0.0
        for number, batch in enumerate(batches, 1):
            with self._parallel.accumulating() if number < len(batches) else nullcontext():
                with self._autocast(chosen):
                    loss = self._parallel.model(self._moved(batch, chosen), scale)
                loss.backward()
            total = total + loss.detach()
        self._parallel.finish_gradients()
        return total

    def _moved(self, batch: Batch, chosen: Config) -> Batch:
        import torch

        moved = {
            name: value.to(self._device, non_blocking=bool(chosen["non_blocking"])) for name, value in batch.items()
        }
        if chosen["memory_format"] == "channels_last" and "pixel_values" in moved:
            moved["pixel_values"] = moved["pixel_values"].contiguous(memory_format=torch.channels_last)
        return moved

    def _autocast(self, chosen: Config) -> AbstractContextManager[Any]:
        import torch

        if chosen["autocast"] == "none":
            return nullcontext()
        if chosen["autocast"] != "bfloat16":
            raise InvalidConfigError(f"unknown autocast {chosen['autocast']!r}: use none or bfloat16")
        context: AbstractContextManager[Any] = torch.autocast(self._device.partition(":")[0], torch.bfloat16)
        return context

    @contextmanager
    def _resident(self) -> Iterator[float]:
        with self._feed.resident():
            yield 0.0


def loading_of(chosen: Config) -> Loading:
    """What a configuration says of the loader."""
    return Loading(
        micro_batch=int(chosen["micro_batch"] or 1),
        workers=int(chosen["workers"] or 0),
        prefetch_factor=int(chosen["prefetch_factor"] or 2),
        persistent_workers=bool(chosen["persistent_workers"]),
        pin_memory=bool(chosen["pin_memory"]),
        collate="batch" if chosen["collate"] == "batch" else "sample",
    )
