"""An opened training: optimizer steps over a real loader, the same mathematics in every configuration."""

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from autotuner.errors import InvalidConfigError
from autotuner.plugins import Step
from autotuner.types import Binding, Config
from autotuner.workloads.training.feed import Feed, Loading
from autotuner.workloads.training.models import has_dropout, targets_of
from autotuner.workloads.training.noise import squared_norms
from autotuner.workloads.training.parallel import Parallel
from autotuner.workloads.training.samples import Batch, Samples

OTHER_SEEDS = (1, 2)  # with the study's own: the band of three within which a loss curve is the baseline's
_NOISE_STEPS, _NOISE_S = (24, 400), 8.0  # of a noise scale: fewer hardly tell it, more only where they are quick


@dataclass(frozen=True, slots=True)
class Run:
    """One training from its first step: the model on this rank, with its loss; its optimizer; its data."""

    parallel: Parallel
    optimizer: Any
    feed: Feed


class Training:
    """A model in training. The losses and gradient norms of its first steps are its outputs.

    Args:
        begin: Starts a training from the first step, the seed of its data and dropout moved by a number.
        samples: Whose largest batch proves that a configuration fits.
        global_batch: Samples of an optimizer step, over all ranks.
        device: Of this rank.
        chosen: The configuration that it was opened with.
        guard_steps: How many first steps are compared with the baseline's.
    """

    def __init__(
        self, begin: Callable[[int], Run], samples: Samples, global_batch: int, device: str, chosen: Config,
        guard_steps: int,
    ) -> None:  # fmt: skip
        self._begin, self._samples, self._global_batch = begin, samples, global_batch
        self._device, self._chosen, self._guard_steps = device, dict(chosen), guard_steps
        self._steps = 0
        self._curves = Curves()
        self._run: Run | None = begin(0)

    @property
    def _parallel(self) -> Parallel:
        assert self._run is not None
        return self._run.parallel

    @property
    def _feed(self) -> Feed:
        assert self._run is not None
        return self._run.feed

    def step(self, config: Config) -> Step:
        """One optimizer step on the next global batch, in as many micro-batches as it takes."""
        return self._step({**self._chosen, **config}, recorded=self._steps == 0)

    def _step(self, chosen: Config, *, recorded: bool) -> Step:
        """Recorded only in the first step and where outputs are asked for: looking at the gradients takes time."""
        batches = self._feed.take(loading_of(chosen))
        targets = self._parallel.sum(float(sum(map(targets_of, batches))))
        loss = self._gradients(batches, self._parallel.data_ranks / max(1.0, targets), chosen)
        if recorded and chosen == self._chosen:
            self._curves.losses.append(float(self._parallel.sum(float(loss))) / self._parallel.data_ranks)
            self._curves.norms.append(self._parallel.gradient_norm())
        self._end_step()
        self._steps += 1
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
        self._forget_gradients()
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
        begun_s = time.perf_counter()

        def enough(steps: int) -> bool:
            spent_s = self._parallel.sum(time.perf_counter() - begun_s) / self._parallel.data_ranks
            hurry = self._parallel.tensor_ranks > 1 or spent_s > _NOISE_S  # ranks of a layer keep no common clock
            return steps >= _NOISE_STEPS[0 if hurry else 1]

        return squared_norms(
            enough, lambda: self._feed.take(loading_of(chosen)),
            lambda batches, scale: self._gradients(batches, scale, chosen), self._end_step, self._parallel,
        )  # fmt: skip

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Losses and gradient norms [1, guard_steps] of the first steps; nothing where others were taken before."""
        import numpy as np

        if {**self._chosen, **config} != self._chosen or not self._record_first_steps():
            return {}
        others = {} if reference is not None else self._other_seeds()
        dtype = {"none": "float32"}.get(str(self._chosen["autocast"]), str(self._chosen["autocast"]))
        return {
            "losses": np.array([self._curves.losses]),
            "gradient_norms": np.array([self._curves.norms]),
            "_dtype": np.array(dtype),
            **others,
        }

    def _record_first_steps(self) -> bool:
        """Take what is missing of them; False where steps were taken that nobody recorded."""
        while len(self._curves.losses) < self._guard_steps and self._steps == len(self._curves.losses):
            self._step(self._chosen, recorded=True)
        return len(self._curves.losses) >= self._guard_steps

    def _other_seeds(self) -> Mapping[str, Any]:
        """The same [seeds, guard_steps] of other seeds, one training after the other: two would need twice the memory.

        Afterwards this one begins anew, and takes a step so that nothing is cold.
        """
        import numpy as np

        own, others = self._curves, []
        for seed in OTHER_SEEDS:
            self._restart(seed)
            self._record_first_steps()
            others.append(self._curves)
        self._restart(0)
        self._step(self._chosen, recorded=False)
        self._curves = own
        return {
            "_stochastic": np.array(has_dropout(self._parallel.model)),
            "_other_losses": np.array([curves.losses for curves in others]),
            "_other_norms": np.array([curves.norms for curves in others]),
        }

    def _restart(self, seed: int) -> None:
        self.close()
        gc.collect()  # wrapped and compiled models refer to themselves, and two would not fit
        self._steps, self._curves = 0, Curves()
        self._run = self._begin(seed)

    def close(self) -> None:
        """End the loader's processes, and let go of model and optimizer."""
        if self._run is not None:
            self._run.feed.close()
        self._run = None

    def _forget_gradients(self) -> None:
        assert self._run is not None
        self._run.optimizer.zero_grad(set_to_none=True)

    def _end_step(self) -> None:
        assert self._run is not None
        self._run.optimizer.step()
        self._forget_gradients()

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


@dataclass(slots=True)
class Curves:
    """Loss and gradient norm of each of the first steps."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


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
