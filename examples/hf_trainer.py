"""Training with the Trainer of transformers: a small GPT-2 learns to write Python, byte by byte.

python examples/hf_trainer.py                             # trains
autotune study start search_spaces/my_trainer.yaml        # tunes how it trains
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, GPT2Config, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

DEFAULTS = {"num_workers": 0, "attention": "eager", "optimizer": "adamw_torch"}
LENGTH, BATCH = 64, 8


class Source(Dataset[dict[str, torch.Tensor]]):
    """The text of Python's own argparse, in pieces."""

    def __init__(self) -> None:
        text = Path(argparse.__file__).read_bytes()
        self.pieces = torch.frombuffer(bytearray(text), dtype=torch.uint8).unfold(0, LENGTH, LENGTH // 4)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        piece = self.pieces[index].long()
        return {"input_ids": piece, "labels": piece}


def fit(config: Mapping[str, Any], callbacks: Sequence[TrainerCallback], **settings: Any) -> None:
    """Train as a project would, with the Trainer's own loop."""
    shape = GPT2Config(
        vocab_size=256, n_positions=LENGTH, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    model = AutoModelForCausalLM.from_config(shape, attn_implementation=config["attention"])
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, dataloader_num_workers=config["num_workers"],
            dataloader_persistent_workers=config["num_workers"] > 0, optim=config["optimizer"], learning_rate=1e-3,
            lr_scheduler_type="constant", report_to=[], save_strategy="no", disable_tqdm=True, **settings,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=Source(), callbacks=list(callbacks))
        trainer.remove_callback(PrinterCallback)
        trainer.train()


# autotune: the adapter
def train(config: Mapping[str, Any], report: Callable[..., None], device: str) -> None:
    """Fit until `report` has seen enough."""

    class Report(TrainerCallback):
        def on_log(self, _args: Any, _state: Any, _control: Any, logs: Mapping[str, float], **_: Any) -> None:
            report(samples=BATCH, loss=logs["loss"], gradient_norm=logs["grad_norm"])

    fit(config, [Report()], use_cpu=device == "cpu", max_steps=1_000_000, logging_steps=1)


if __name__ == "__main__":

    class Show(TrainerCallback):
        """Prints the loss now and then."""

        def on_log(self, _args: Any, state: Any, _control: Any, logs: Mapping[str, float], **_: Any) -> None:
            if "loss" in logs:
                print(f"step {state.global_step}: loss {logs['loss']:.3f}")

    fit(DEFAULTS, [Show()], max_steps=60, logging_steps=10)
