"""Training with Lightning, whose Trainer owns the loop: see through noise which digit-like pattern it is.

python examples/lightning_module.py                       # trains
autotune study start search_spaces/my_lightning.yaml      # tunes how it trains
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

DEFAULTS = {"num_workers": 0, "precision": "32-true", "fused": False}
CLASSES, PIXELS, BATCH = 10, 28 * 28, 64


class Classifier(LightningModule):
    """Two hidden layers."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.layers = nn.Sequential(
            nn.Linear(PIXELS, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, CLASSES)
        )

    def training_step(self, batch: Sequence[Tensor], _: int) -> Tensor:
        pixels, classes = batch
        loss = nn.functional.cross_entropy(self.layers(pixels), classes)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=self.fused)


def patterns(size: int) -> TensorDataset:
    """Ten fixed random patterns under noise."""
    draw = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, PIXELS, generator=draw)
    classes = torch.randint(CLASSES, (size,), generator=draw)
    return TensorDataset(means[classes] + 12 * torch.randn(size, PIXELS, generator=draw), classes)


def fit(config: Mapping[str, Any], callbacks: Sequence[Callback] = (), device: str = "auto", **limits: int) -> None:
    """Train as a project would, with the Trainer's own loop."""
    loader = DataLoader(
        patterns(4096), BATCH, shuffle=True, num_workers=config["num_workers"],
        persistent_workers=config["num_workers"] > 0, drop_last=True,
    )  # fmt: skip
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else device, devices=1, precision=config["precision"],
        callbacks=list(callbacks), logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, **limits,
    )  # fmt: skip
    trainer.fit(Classifier(config["fused"]), loader)


# autotune: the adapter
def train(config: Mapping[str, Any], report: Callable[..., None], device: str) -> None:
    """Fit until `report` has seen enough."""

    class Report(Callback):
        def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, batch: Any, _index: int) -> None:
            report(samples=len(batch[0]), loss=outputs["loss"])

    fit(config, [Report()], device, max_epochs=-1)


if __name__ == "__main__":

    class Show(Callback):
        """Prints the loss of an epoch's last step."""

        def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
            print(f"epoch {trainer.current_epoch}: loss {trainer.callback_metrics['loss']:.3f}")

    fit(DEFAULTS, [Show()], max_epochs=2)
