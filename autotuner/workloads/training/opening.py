"""Opens a training: model, data and optimizer on one rank."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from autotuner.errors import InvalidConfigError
from autotuner.types import Config
from autotuner.workloads.training.data import Data
from autotuner.workloads.training.feed import Feed
from autotuner.workloads.training.models import Source, load, prepare, with_loss
from autotuner.workloads.training.parallel import Degrees, Parallel, parallelize
from autotuner.workloads.training.samples import Samples, open_samples
from autotuner.workloads.training.steps import Run, Training


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is trained and how, the same in every configuration; the fields are the workload's options."""

    config: Mapping[str, Any] | None
    model: str | None
    revision: str | None
    trust_remote_code: bool
    data: Data
    global_batch: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    guard_steps: int
    seed: int


@contextmanager
def opened(recipe: Recipe, degrees: Degrees, chosen: Config, device: str) -> Iterator[Training]:
    """A training at its first step."""
    samples = _samples(recipe)

    def begin(seed: int) -> Run:
        return _begin(recipe, degrees, chosen, device, samples, seed)

    with closing(Training(begin, samples, recipe.global_batch, device, chosen, recipe.guard_steps)) as training:
        yield training


def _begin(recipe: Recipe, degrees: Degrees, chosen: Config, device: str, samples: Samples, seed: int) -> Run:
    """The same weights whatever the seed, which is added to that of dropout and the order of the data."""
    import torch

    source = Source(
        recipe.config, recipe.model, recipe.revision, recipe.trust_remote_code, recipe.seed, samples.classes,
        recipe.data.locate()[0] == "images",
    )  # fmt: skip
    model = load(source, chosen, device)
    prepare(model, chosen, whole=degrees.ranks == 1)
    parallel = parallelize(with_loss(model, int(chosen["loss_chunk"] or 0)), degrees, device)
    torch.manual_seed(recipe.seed + seed + 1000 * parallel.data_rank)
    optimizer = _optimizer(recipe, parallel, str(chosen["optimizer_kernel"]))
    feed = Feed(samples, recipe.global_batch, recipe.seed + seed, parallel.data_rank, parallel.data_ranks)
    return Run(parallel, optimizer, feed)


def _samples(recipe: Recipe) -> Samples:
    vocabulary = None if recipe.config is None else recipe.config.get("vocab_size")
    return open_samples(
        recipe.data, vocabulary=vocabulary, model=recipe.model, revision=recipe.revision,
        trust_remote_code=recipe.trust_remote_code,
    )  # fmt: skip


def _optimizer(recipe: Recipe, parallel: Parallel, kernel: str) -> Any:
    import torch

    kernels: dict[str, dict[str, bool]] = {
        "auto": {}, "loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}
    }  # fmt: skip
    if kernel not in kernels:
        raise InvalidConfigError(f"unknown optimizer_kernel {kernel!r}: use {', '.join(kernels)}")
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[recipe.optimizer]
    return kind(
        parallel.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, **kernels[kernel]
    )
