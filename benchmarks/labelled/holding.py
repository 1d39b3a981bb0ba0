"""Memory that grows with the batch, and what a batch saves."""

from autotuner.types import Config, Metrics
from labelled.part import Part


class Batch(Part):
    """Holds `item_bytes` for every item of `batch_size`, and computes on `busy_elements` of each."""

    def __init__(
        self, device: str, amount: int, item_bytes: int = 2**24, busy_elements: int = 2**12, products: int = 0
    ) -> None:
        super().__init__(device, amount)
        self._item_bytes, self._busy, self._products = item_bytes, busy_elements, products
        self._held_for = 0

    def run(self, config: Config) -> Metrics:
        """Make room once for a batch size, then compute on it."""
        import torch

        size = int(config["batch_size"] or 1)
        if size != self._held_for:
            self._held = torch.zeros((size, self._item_bytes // 4), device=self.device)
            self._held_for = size
        items = self._held[:, : self._busy]
        for _ in range(self.amount):
            items.add_(1.0)
        if self._products:
            square = self._held[:, : self._products**2].view(size, self._products, self._products)
            torch.matmul(square, square)
        return {}
