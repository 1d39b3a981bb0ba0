"""Input-bound: JPEG files are decoded and resized in the data set, for a small convolutional net.

Two cores leave little room for decoding in parallel. So each file also costs a wait of `STORAGE_WAIT_S`, a sleep that
stands for a network disk: that is what more workers than cores can hide, and the report names it.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from training_cases.case import Case, Settings
from training_cases.case import train as train_case

IMAGES, WIDTH, HEIGHT, SIZE, CLASSES = 512, 320, 240, 64, 10
STORAGE_WAIT_S = 0.004
CACHE = Path.home() / ".cache" / "autotune-benchmarks"


class Images(Dataset[tuple[Tensor, int]]):
    """A folder of JPEG files, decoded when asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        import numpy
        from PIL import Image

        time.sleep(STORAGE_WAIT_S)
        with Image.open(self.paths[index]) as image:
            small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(numpy.array(small)).permute(2, 0, 1)
        return pixels.float().div_(255), index % CLASSES


def folder() -> Path:
    """The files, made at the first call: coloured noise, smoothed, so that they cost what photographs do."""
    home = Path(os.environ.get("TRAINING_DATA", CACHE)) / f"jpeg-{IMAGES}-{WIDTH}x{HEIGHT}"
    if not home.is_dir():
        partial = home.with_name(f"{home.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        for number in range(IMAGES):
            write_image(partial / f"{number:04}.jpg", number)
        partial.rename(home)
    return home


def write_image(path: Path, seed: int) -> None:
    from PIL import Image

    coarse = random.Random(seed).randbytes(40 * 30 * 3)
    image = Image.frombytes("RGB", (40, 30), coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    image.save(path, quality=90)


def net() -> nn.Module:
    def stage(into: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(into, out, 3, stride=2, padding=1), nn.BatchNorm2d(out), nn.ReLU()]

    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*stage(3, 16), *stage(16, 32), *stage(32, 64), *head)


CASE = Case(
    name="input_bound",
    text=f"{IMAGES} JPEG files, decoded and resized; {STORAGE_WAIT_S * 1e3:.0f} ms of sleep a file stand for a network "
    "disk; a small convolutional net",
    baseline={
        "batch_size": 16, "num_workers": 0, "pin_memory": False, "prefetch_factor": 2, "persistent_workers": False,
        "precision": "float32", "compile": "none", "channels_last": False, "threads": 0,
    },
    batch_sizes=(16, 32, 64, 128),
    dataset=lambda: Images(folder()),
    model=net,
)  # fmt: skip


def train(config: Settings) -> Iterator[dict[str, float]]:
    yield from train_case(CASE, {**CASE.baseline, **config})
