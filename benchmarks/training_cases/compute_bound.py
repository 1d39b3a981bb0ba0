"""Compute-bound: a small transformer on short sequences of one length, all in memory."""

from collections.abc import Iterator

import torch
from torch.utils.data import TensorDataset

from training_cases.blocks import Classifier
from training_cases.case import Case, Settings
from training_cases.case import train as train_case

SAMPLES, LENGTH, VOCABULARY, CLASSES = 2048, 64, 1000, 10


def data() -> TensorDataset:
    seeded = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, VOCABULARY, (SAMPLES, LENGTH), generator=seeded)
    return TensorDataset(tokens, tokens[:, 0] % CLASSES)


CASE = Case(
    name="compute_bound",
    text=f"a transformer of 2 layers on {LENGTH} tokens; one loader worker and batches of 8 today",
    baseline={
        "batch_size": 8, "num_workers": 1, "pin_memory": False, "prefetch_factor": 2, "persistent_workers": False,
        "precision": "float32", "compile": "none", "channels_last": False, "threads": 0,
    },
    batch_sizes=(8, 16, 32, 64, 128),
    dataset=data,
    model=lambda: Classifier(VOCABULARY, width=128, layers=2, classes=CLASSES),
)  # fmt: skip


def train(config: Settings) -> Iterator[dict[str, float]]:
    yield from train_case(CASE, {**CASE.baseline, **config})
