"""Loaders: where the samples of a step come from."""

import os
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from autotuner.types import Config, Metrics
from labelled.part import Part

SAMPLES = 2**20  # an epoch never ends while somebody measures


class Loader(Part):
    """`amount` samples a step from a torch `DataLoader`; what it waits for them is its metric."""

    forks: ClassVar[bool] = True

    def __init__(
        self, device: str, amount: int, what: str = "sleeping", workers: int = 0, unit_s: float = 1e-3
    ) -> None:
        super().__init__(device, amount)
        self._workers, self._dataset = workers, DATASETS[what](unit_s)
        self._resident: Any = None
        self._relieved = False

    @contextmanager
    def opened(self) -> Iterator[None]:
        """One endless epoch; its workers end with it."""
        from torch.utils.data import DataLoader

        kind = getattr(self._dataset, "collate", None)
        loader = DataLoader(
            self._dataset, batch_size=self.amount, num_workers=self._workers, collate_fn=kind, shuffle=False
        )
        self._batches = iter(loader)
        yield
        del self._batches, loader

    def run(self, config: Config) -> Metrics:
        """Take the next batch."""
        if self._relieved:
            return {"input_wait_s": 0.0}
        began_s = time.perf_counter()
        self._resident = next(self._batches)
        return {"input_wait_s": time.perf_counter() - began_s}

    def relieve(self, resource: str) -> AbstractContextManager[float] | None:
        """The batch that is here already, again and again."""
        return self._with_resident_batch() if resource == "input" else None

    @contextmanager
    def _with_resident_batch(self) -> Iterator[float]:
        self._relieved = True
        try:
            yield 0.0
        finally:
            self._relieved = False
            for _ in range(2 * self._workers):  # what was fetched ahead meanwhile must not flatter the next steps
                next(self._batches)


class Dataset:
    """Common to the data sets: how long, and how costly one sample is."""

    def __init__(self, unit_s: float) -> None:
        self.unit_s = unit_s

    def __len__(self) -> int:
        return SAMPLES


class Sleeping(Dataset):
    """Every sample comes late, and nobody computes meanwhile."""

    def __getitem__(self, number: int) -> Any:
        import torch

        time.sleep(self.unit_s)
        return torch.full((16,), float(number))


class Decoding(Dataset):
    """Every sample is decompressed and normalised by numpy."""

    def __init__(self, unit_s: float) -> None:
        import numpy as np

        super().__init__(unit_s)
        noise = np.random.default_rng(0).integers(0, 16, 2**17, dtype=np.uint8)
        self._packed = zlib.compress(noise.tobytes(), 6)

    def __getitem__(self, number: int) -> Any:
        import numpy as np
        import torch

        pixels = np.frombuffer(zlib.decompress(self._packed), dtype=np.uint8).astype(np.float32)
        return torch.from_numpy((pixels[:4096] - pixels.mean()) / 8.0)


class Parsing(Dataset):
    """Every sample is parsed by Python itself."""

    def __getitem__(self, number: int) -> Any:
        import torch

        text = ",".join(str((number + place) % 97) for place in range(600))
        return torch.tensor([float(word) for word in text.split(",")])


class Trickling(Dataset):
    """Every sample is read from a source that delivers so many bytes a second and no more, as a slow disk does."""

    BYTES = 2**14

    def __getitem__(self, number: int) -> Any:
        import torch

        if not hasattr(self, "_source"):
            self._source, sink = os.pipe()
            threading.Thread(target=self._trickle, args=(sink,), daemon=True).start()
        data, missing = bytearray(), self.BYTES
        while missing:
            data += (part := os.read(self._source, missing))
            missing -= len(part)
        return torch.frombuffer(data, dtype=torch.uint8).float()

    def _trickle(self, sink: int) -> None:
        block = bytes(self.BYTES // 4)
        while True:
            time.sleep(self.unit_s / 4)
            os.write(sink, block)


class Scattered(Dataset):
    """Samples are cheap, but each comes as many small pieces that must be put together."""

    def __getitem__(self, number: int) -> Any:
        return [float(number)] * 256

    @staticmethod
    def collate(samples: list[list[float]]) -> Any:
        """One tensor a sample, then one of all."""
        import torch

        pieces = [torch.tensor(sample) for sample in samples]
        return torch.stack([(piece - piece.mean()) / (piece.std() + 1.0) for piece in pieces])


DATASETS: dict[str, type[Dataset]] = {
    "sleeping": Sleeping,
    "decoding": Decoding,
    "parsing": Parsing,
    "trickling": Trickling,
    "scattered": Scattered,
}
