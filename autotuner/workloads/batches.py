"""The inputs of a model: the same for every configuration, and never the same twice in a row."""

from collections.abc import Iterator
from typing import Any

POOL_REQUESTS = 64  # different inputs in turn, so that no step can profit from the one before


class Batches:
    """Takes batches in turn from a fixed pool of inputs on the host."""

    def __init__(self, vocabulary: int, length: int, probe_requests: int, seed: int) -> None:
        self._pool = token_ids(vocabulary, (POOL_REQUESTS, length), seed, stream=0)
        self.probe = token_ids(vocabulary, (probe_requests, length), seed, stream=1)
        self._next = 0

    def take(self, size: int) -> Any:
        """The next `size` inputs [size, length], wrapping around."""
        import torch

        rows = (torch.arange(size) + self._next) % POOL_REQUESTS
        self._next = int(self._next + size) % POOL_REQUESTS
        return self._pool[rows]

    def probe_batches(self, size: int) -> Iterator[tuple[int, Any]]:
        """The probe in batches of exactly `size` rows, with how many of them count; the last one is filled up."""
        import torch

        for start in range(0, len(self.probe), size):
            rows = torch.arange(start, start + size)
            yield min(size, len(self.probe) - start), self.probe[rows % len(self.probe)]


def token_ids(vocabulary: int, shape: tuple[int, int], seed: int, stream: int) -> Any:
    """Token ids [count, length] from 1 up; `stream` keeps what is compared apart from what is timed."""
    import torch

    generator = torch.Generator().manual_seed(1_000_003 * (stream + 1) + seed)
    return torch.randint(1, vocabulary, shape, generator=generator)
