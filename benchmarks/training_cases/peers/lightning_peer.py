"""Lightning's `Tuner.scale_batch_size`: doubles the batch until memory ends, the data set does, or its own 8192.

Both of its modes are run, each an arm of its own: `power`, its default, and `binsearch`, which refines and takes 5 %
off. It measures no speed; everything else stays the baseline's. `max_val` bounds it as every tool is bounded.
"""

import logging
import sys
import tempfile
import warnings
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.tuner import Tuner
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader

from training_cases.case import Case
from training_cases.peers.answer import Found, answer


class Module(LightningModule):
    """The case as Lightning wants it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.batch_size = case, min(case.batch_sizes)
        self.model = case.model()
        self.tried: list[int] = []

    def train_dataloader(self) -> DataLoader[Any]:
        return self.case.loader({**self.case.baseline, "batch_size": self.batch_size})

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        if not self.tried or self.tried[-1] != self.batch_size:
            self.tried.append(self.batch_size)
        inputs, targets = batch
        return cross_entropy(self.model(inputs), targets)

    def configure_optimizers(self) -> Optimizer:
        return AdamW(self.parameters(), lr=1e-3)


def tune(case: Case) -> Found:
    case.prepare()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=-1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        module = Module(case)
        chosen = Tuner(trainer).scale_batch_size(
            module, mode=sys.argv[2], init_val=min(case.batch_sizes), max_val=max(case.batch_sizes)
        )
    return Found({"batch_size": chosen}, len(module.tried), raw={"tried": module.tried, "mode": sys.argv[2]})


if __name__ == "__main__":
    answer("lightning", tune)
