"""Memory-capped: short texts and a few long ones, padded to the longest of a batch, under a limit of the process.

A batch with a long text needs many times what a typical one does, and a few steps seldom meet one.
"""

import random

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from training_cases.blocks import Classifier
from training_cases.case import Case, Settings
from training_cases.case import train as train_case

SAMPLES, SHORT, LONG, LONG_SAMPLES = 1024, (8, 32), 256, 2
VOCABULARY, CLASSES = 16_000, 10
HEADROOM_BYTES = 192 * 2**20


class Texts(Dataset[tuple[Tensor, int]]):
    """Tokens of different lengths; the same on every machine."""

    def __init__(self) -> None:
        source = random.Random(0)
        lengths = [source.randint(*SHORT) for _ in range(SAMPLES - LONG_SAMPLES)] + [LONG] * LONG_SAMPLES
        seeded = torch.Generator().manual_seed(0)
        self.texts = [torch.randint(1, VOCABULARY, (length,), generator=seeded) for length in lengths]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.texts[index], index % CLASSES


def padded(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    texts, labels = zip(*samples, strict=True)
    return pad_sequence(list(texts), batch_first=True), torch.tensor(labels)


CASE = Case(
    name="memory_capped",
    text=f"texts of {SHORT[0]} to {SHORT[1]} tokens, {LONG_SAMPLES} of {SAMPLES} with {LONG}; RLIMIT_DATA "
    f"{HEADROOM_BYTES >> 20} MiB above what the process has when training begins; one thread. Only ours has a "
    "place to say which text is the longest (`worst_step`)",
    baseline={
        "batch_size": 8, "num_workers": 0, "pin_memory": False, "prefetch_factor": 2, "persistent_workers": False,
        "precision": "float32", "compile": "none", "channels_last": False, "threads": 1,
    },
    batch_sizes=(8, 16, 24, 32, 48, 64, 96, 128, 192, 256),
    dataset=Texts,
    model=lambda: Classifier(VOCABULARY, width=64, layers=1, classes=CLASSES),
    collate=padded,
    shapes_vary=True,
    headroom_bytes=HEADROOM_BYTES,
)  # fmt: skip


class Training:
    """The same training a step at a time, and on request a step on as many of the longest texts as a batch may hold.

    Peers have no place for that knowledge; accelerate meets the longest in an epoch by itself.
    """

    def __init__(self, config: Settings) -> None:
        self.steps = train_case(CASE, {**CASE.baseline, **config})
        self.batch_size = int(config["batch_size"])
        self.longest = max(Texts().texts, key=len)

    def step(self) -> dict[str, float]:
        return next(self.steps)

    def worst_step(self) -> dict[str, float]:
        return self.steps.send(padded([(self.longest, 0)] * self.batch_size))

    def close(self) -> None:
        self.steps.close()
