"""Feeds a training: the same global batches in the same order, however they are cut, loaded and shared among ranks."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from autotuner.errors import AutotuneError, InvalidConfigError, UsageError
from autotuner.workloads.training.samples import Batch, Row, Samples

PARALLEL_TOKENIZERS = "TOKENIZERS_PARALLELISM"


@dataclass(frozen=True, slots=True)
class Loading:
    """How micro-batches are loaded; none of it changes what is in them but how many samples.

    Attributes:
        micro_batch: Samples that pass the model at once, on one rank.
        workers: Processes that load; 0 loads in this one, while the model waits.
        prefetch_factor: Micro-batches that each worker keeps ready.
        persistent_workers: Workers outlive an epoch.
        pin_memory: Into pages that a GPU can copy from by itself; without a GPU it does nothing.
        collate: Whether a worker makes one sample at a time, or a batch at once.
    """

    micro_batch: int
    workers: int = 0
    prefetch_factor: int = 2
    persistent_workers: bool = False
    pin_memory: bool = False
    collate: Literal["sample", "batch"] = "sample"


class GlobalBatches:
    """Which samples the k-th step learns from: every epoch shuffled anew, its incomplete last batch dropped."""

    def __init__(self, samples: int, global_batch: int, seed: int) -> None:
        if samples < global_batch:
            less = f"the data has {samples} samples, less than one global batch of {global_batch}"
            raise UsageError(less, "give more data, a smaller global_batch or shorter samples")
        self.steps_per_epoch = samples // global_batch
        self._samples, self._global_batch, self._seed = samples, global_batch, seed
        self._shuffled: tuple[int, NDArray[np.int64]] = -1, np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> NDArray[np.int64]:
        """The samples of the global batch of `step`, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._shuffled[0] != epoch:
            self._shuffled = epoch, np.random.default_rng((self._seed, epoch)).permutation(self._samples)
        return self._shuffled[1][place * self._global_batch : (place + 1) * self._global_batch]


class _MicroBatches:
    """The batch sampler: a rank's micro-batches from `step` to the end of its epoch; none where `step` is None."""

    def __init__(self, batches: GlobalBatches, rank: slice, micro_batch: int) -> None:
        self.step: int | None = None
        self._batches, self._rank, self._micro_batch = batches, rank, micro_batch

    def __iter__(self) -> Iterator[list[int]]:
        if self.step is None:
            return
        per_epoch = self._batches.steps_per_epoch
        for step in range(self.step, (self.step // per_epoch + 1) * per_epoch):
            mine = self._batches.indices(step)[self._rank]
            for start in range(0, len(mine), self._micro_batch):
                yield mine[start : start + self._micro_batch].tolist()


class _BySample:
    """What the loader's processes see of the samples, one by one.

    An error comes back as a value: torch would raise it anew with the worker's whole traceback as its message.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Row | AutotuneError:
        try:
            return self._samples[index]
        except AutotuneError as error:
            return error

    def collate(self, rows: Sequence[Row | AutotuneError]) -> Batch | AutotuneError:
        """The batch, or the first error."""
        good = [row for row in rows if not isinstance(row, AutotuneError)]
        return next((row for row in rows if isinstance(row, AutotuneError)), None) or self._samples.collate(good)


class _ByBatch(_BySample):
    """The same, a whole batch at once: torch asks for it where this method exists."""

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Row | AutotuneError]:
        try:
            return self._samples.__getitems__(indices)
        except AutotuneError as error:
            return [error]


class Feed:
    """Micro-batches of one rank, from a real `DataLoader` with real epochs.

    Attributes:
        step: Optimizer steps that were fed since the last reset.
        steps_per_epoch: After so many the loader's iterator ends, and a new one begins.
        waited_s: How long the last `take` waited for the loader, in seconds.
    """

    def __init__(self, samples: Samples, global_batch: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        if global_batch % ranks:
            raise InvalidConfigError(f"a global batch of {global_batch} cannot be shared by {ranks} ranks equally")
        self._samples, self._global_batch = samples, global_batch
        self._per_rank = global_batch // ranks
        self._rank = slice(rank * self._per_rank, (rank + 1) * self._per_rank)
        self._loading: Loading | None = None
        self._loader: Any = None
        self._iterator: Any = None
        self._kept: list[Batch] = []
        self._resident = False
        self.waited_s = 0.0
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin again with the first global batch, in the order of `seed`."""
        self.close()
        self._seed, self.step = seed, 0
        self._batches = GlobalBatches(len(self._samples), self._global_batch, seed)
        self.steps_per_epoch = self._batches.steps_per_epoch

    def take(self, loading: Loading) -> list[Batch]:
        """The micro-batches of the next optimizer step, on the host.

        Raises:
            InvalidConfigError: The global batch cannot be cut so, or a sample is broken.
        """
        begun_s = time.perf_counter()
        if loading != self._loading:
            self._rebuild(loading)
        if not (self._resident and self._kept):
            self._kept = [self._next() for _ in range(self._per_rank // loading.micro_batch)]
            self.step += 1
        self.waited_s = time.perf_counter() - begun_s
        return list(self._kept)

    def idle(self) -> None:
        """Stop loading ahead, and drop what is loaded; the next `take` goes on at the right place."""
        if self._iterator is None:
            return
        if self._loader.persistent_workers:  # the workers stay: an empty epoch takes everything back from them
            self._loader.batch_sampler.step = None
            iter(self._loader)
        else:
            _end(self._iterator)
        self._iterator = None

    def close(self) -> None:
        """End the worker processes."""
        if self._loader is not None:
            _end(self._iterator)
            _end(self._loader._iterator)  # that of persistent workers, which idle() keeps
        self._loader = self._iterator = self._loading = None
        self._kept = []

    @contextmanager
    def resident(self) -> Iterator[None]:
        """While it lasts, `take` returns the micro-batches of the last step again, and the loader is left alone."""
        self._resident = True
        try:
            yield
        finally:
            self._resident = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rebuild(self, loading: Loading) -> None:
        import torch

        if loading.micro_batch < 1 or self._per_rank % loading.micro_batch:
            share = f"{self._per_rank} samples of a rank's global batch"
            raise InvalidConfigError(f"{share} cannot be cut in micro-batches of {loading.micro_batch}")
        self.close()
        seen = _BySample(self._samples) if loading.collate == "sample" else _ByBatch(self._samples)
        processes: dict[str, Any] = {}
        if loading.workers:
            processes = {
                "num_workers": loading.workers,
                "prefetch_factor": loading.prefetch_factor,
                "persistent_workers": loading.persistent_workers,
                "multiprocessing_context": "fork",
            }
        self._loader = torch.utils.data.DataLoader(
            seen,
            batch_sampler=_MicroBatches(self._batches, self._rank, loading.micro_batch),
            collate_fn=seen.collate,
            pin_memory=loading.pin_memory and torch.accelerator.is_available(),  # torch would warn
            generator=torch.Generator().manual_seed(self._seed),  # its own, or every epoch draws from the model's
            **processes,
        )
        self._loading = loading

    def _next(self) -> Batch:
        batch = next(self._iterator, None) if self._iterator is not None else None
        if batch is None:  # nothing has begun, or the epoch is over
            self._loader.batch_sampler.step = self.step
            with _serial_tokenizers_in_children():
                self._iterator = iter(self._loader)
            batch = next(self._iterator)
        if isinstance(batch, AutotuneError):
            raise batch
        return dict(batch)


def _end(iterator: Any) -> None:
    """End the processes of a loader's iterator, now and not when it is collected.

    With persistent workers and pinned memory torch itself holds a reference to it until the program ends.
    """
    if shutdown := getattr(iterator, "_shutdown_workers", None):  # the iterator without processes has none
        shutdown()


@contextmanager
def _serial_tokenizers_in_children() -> Iterator[None]:
    """Fast tokenizers have threads, which a fork loses: the child would warn, or wait for them for ever."""
    before = os.environ.get(PARALLEL_TOKENIZERS)
    os.environ[PARALLEL_TOKENIZERS] = "false"
    try:
        yield
    finally:
        os.environ.pop(PARALLEL_TOKENIZERS)
        if before is not None:
            os.environ[PARALLEL_TOKENIZERS] = before
