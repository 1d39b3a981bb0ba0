"""The case named in the environment as loadtune's command line wants it; it builds the DataLoader itself."""

import os
from typing import Any

import torch
from loadtune import Workload
from torch import Tensor

from training_cases import load_case
from training_cases.case import step


def get_workload() -> Workload:
    case = load_case(os.environ["TRAINING_CASE"])
    case.prepare()

    def train_step(model: Any, optimizer: torch.optim.Optimizer, batch: Any, _: torch.device) -> Tensor:
        return step(model, optimizer, *batch)

    return Workload(
        name=case.name,
        make_dataset=case.dataset,
        make_model=case.model,
        train_step=train_step,
        make_optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
        default_batch_size=case.baseline["batch_size"],
        collate_fn=case.collate,
    )
