"""A training loop in plain PyTorch: hear a pitch in noise.

python examples/plain_pytorch.py                          # trains
autotune study start search_spaces/my_loop.yaml           # tunes how it trains
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

DEFAULTS = {"micro_batch": 4, "num_workers": 0, "pin_memory": False, "precision": "float32"}
PITCHES, SECOND, BATCH = 16, 16_000, 32


class Tones(Dataset[tuple[Tensor, int]]):
    """Noisy tones as spectrograms [64, 64]; the same for the same index, whichever process makes them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        draw, pitch = np.random.default_rng(index), index % PITCHES
        times = np.arange(SECOND // 2) / SECOND
        sound = np.sin(2 * np.pi * 220 * 2 ** (pitch / 12) * times) + draw.normal(0, 2, times.size)
        frames = np.lib.stride_tricks.sliding_window_view(sound, 512)[::116][:64] * np.hanning(512)
        loudness = np.log1p(np.abs(np.fft.rfft(frames, axis=1)[:, :64]))
        return torch.from_numpy(loudness.astype(np.float32)), pitch


def make_model() -> nn.Module:
    """A small convolutional network."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 64)), nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 13 * 13, PITCHES),
    )  # fmt: skip


def train(config: Mapping[str, Any], device: str = "cpu", epochs: int | None = None) -> Iterator[dict[str, Any]]:
    """Train with AdamW; without `epochs` it goes on until it is stopped."""
    model = make_model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader = DataLoader(
        Tones(1024), BATCH, shuffle=True, num_workers=config["num_workers"],
        pin_memory=config["pin_memory"], persistent_workers=config["num_workers"] > 0, drop_last=True,
    )  # fmt: skip
    for _ in count() if epochs is None else range(epochs):
        for spectrograms, pitches in loader:
            inputs, targets = (batch.to(device, non_blocking=True) for batch in (spectrograms, pitches))
            optimizer.zero_grad()
            total = torch.zeros((), device=device)
            for part, wanted in zip(*(batch.split(config["micro_batch"]) for batch in (inputs, targets)), strict=True):
                with torch.autocast(device, torch.bfloat16, enabled=config["precision"] == "bfloat16"):
                    loss = nn.functional.cross_entropy(model(part), wanted) * len(part) / BATCH
                loss.backward()
                total += loss.detach()
            optimizer.step()
            yield {"samples": BATCH, "loss": total}  # autotune: the one line that it needs


if __name__ == "__main__":
    torch.manual_seed(0)
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    for step, done in enumerate(train(DEFAULTS, chosen, epochs=2)):
        if step % 16 == 0:
            print(f"step {step}: loss {done['loss'].item():.3f}")
