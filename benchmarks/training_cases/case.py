"""What a case is, and the one training loop that measures every tool's configuration."""

import os
import resource
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Settings = Mapping[str, Any]
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Case:
    """A training to tune.

    Attributes:
        name: Of its module.
        text: What it stands for, and what is artificial in it.
        baseline: What its user runs today: every setting that any of the tools can change.
        batch_sizes: What any tool may choose from, or search between.
        dataset: Makes the data set.
        model: Makes the model; weights depend on torch's seed alone.
        collate: As a DataLoader takes it.
        shapes_vary: Batches differ in shape.
        headroom_bytes: Memory that a process may allocate beyond what it has when the training begins; None: no limit.
    """

    name: str
    text: str
    baseline: Settings
    batch_sizes: Sequence[int]
    dataset: Callable[[], Dataset[Any]]
    model: Callable[[], nn.Module]
    collate: Callable[[list[Any]], Any] | None = None
    shapes_vary: bool = False
    headroom_bytes: int | None = None

    def loader(self, config: Settings, seed: int = 0) -> DataLoader[Any]:
        """The data in batches, reshuffled each epoch. Where shapes are fixed a last, smaller batch is dropped."""
        workers = int(config["num_workers"])
        only_with_workers = {
            "prefetch_factor": config["prefetch_factor"], "persistent_workers": config["persistent_workers"],
        }  # fmt: skip
        return DataLoader(
            self.dataset(),
            batch_size=int(config["batch_size"]),
            shuffle=True,
            num_workers=workers,
            pin_memory=bool(config["pin_memory"]),
            collate_fn=self.collate,
            drop_last=not self.shapes_vary,
            generator=torch.Generator().manual_seed(seed),
            **(only_with_workers if workers else {}),
        )

    def prepare(self) -> None:
        """Set what holds for a whole process: the baseline's threads, and the memory limit."""
        if self.baseline["threads"]:
            torch.set_num_threads(int(self.baseline["threads"]))
        self.limit_memory()

    def limit_memory(self) -> None:
        """Cap this process, once: torch then raises "can't allocate memory", as it does on a full machine.

        oneDNN is left out there: short of memory it says "could not create a primitive", which no tool understands.
        """
        if self.headroom_bytes is None or resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY:
            return
        status = Path("/proc/self/status").read_text()
        used_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
        limit = used_kib * 1024 + self.headroom_bytes
        torch.backends.mkldnn.enabled = False
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


Batch = tuple[Tensor, Tensor]


def train(case: Case, config: Settings) -> Generator[dict[str, float], Batch | None, None]:
    """Train for ever; after each optimizer step, how many samples it had and its loss. A batch that is sent comes next.

    What a setting does is written here once, for every tool.
    """
    case.prepare()
    if config["threads"]:
        torch.set_num_threads(int(config["threads"]))
    torch.manual_seed(0)
    model = case.model()
    layout = torch.channels_last if config["channels_last"] else torch.contiguous_format
    model = model.to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    compiled = None if config["compile"] == "none" else str(config["compile"])
    run = model if compiled is None else torch.compile(model, mode=compiled)
    scaler = torch.amp.GradScaler("cpu", enabled=config["precision"] == "float16")
    loader = case.loader(config, int(os.environ.get("TRAINING_SEED", "0")))
    while True:
        for batch in loader:
            following: Batch | None = batch
            while following is not None:
                inputs, targets = following
                placed = inputs.to(memory_format=layout) if inputs.dim() == 4 else inputs
                loss = step(run, optimizer, placed, targets, str(config["precision"]), scaler)
                following = yield {"samples": len(targets), "loss": float(loss.detach())}


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    targets: Tensor,
    precision: str = "float32",
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """One optimizer step on one batch; its loss."""
    optimizer.zero_grad(set_to_none=True)
    with autocast(precision):
        loss = nn.functional.cross_entropy(model(inputs), targets)
    if scaler is not None and scaler.is_enabled():
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    else:
        loss.backward()
        optimizer.step()
    return loss


def autocast(precision: str) -> AbstractContextManager[Any]:
    """Forward in this precision."""
    return nullcontext() if precision == "float32" else torch.autocast("cpu", dtype=DTYPES[precision])
