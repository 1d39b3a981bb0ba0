"""The model of a training, with its loss inside of `forward`: what data and sharded parallelism can wrap."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotuner.errors import InvalidConfigError, UnsupportedError
from autotuner.types import Config
from autotuner.workloads.training.samples import IGNORED
from autotuner.workloads.transformers_relief import equal_layers
from autotuner.workloads.transformers_source import first_sentence, resolved


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: an inline configuration with random weights, or a folder or hub id.

    Attributes:
        classes: Of a classifier; None for a causal language model.
        images: The inputs are pixels.
    """

    config: Mapping[str, Any] | None
    model: str | None
    revision: str | None
    trust_remote_code: bool
    seed: int
    classes: int | None = None
    images: bool = False


def load(source: Source, chosen: Config, device: str) -> Any:
    """A transformers model in training mode on `device`, its weights in float32.

    Raises:
        UnsupportedError: An attention kernel that is not installed here.
        InvalidConfigError: No such model, or one that cannot be trained so.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    auto = _auto(source)
    options: dict[str, Any] = {"attn_implementation": chosen["attention"]}
    labels = {} if source.classes is None else {"num_labels": source.classes}
    try:
        if source.config is not None:
            torch.manual_seed(source.seed)
            shape = transformers.AutoConfig.for_model(**{**source.config, **labels})
            with torch.device(device):
                model = auto.from_config(shape, dtype=torch.float32, **options)
        else:
            more = {"revision": source.revision, "trust_remote_code": source.trust_remote_code, "use_safetensors": True}
            named = resolved(str(source.model))
            torch.manual_seed(source.seed)  # of a classifier's new head
            model = auto.from_pretrained(named, dtype=torch.float32, **labels, **more, **options).to(device)
    except ImportError as error:
        raise UnsupportedError(first_sentence(error)) from error
    except OSError as error:
        raise InvalidConfigError(f"the model {source.model} cannot be loaded: {first_sentence(error)}") from error
    model.config.use_cache = False
    return model.train()


def prepare(model: Any, chosen: Config, *, whole: bool) -> None:
    """Set up memory format, activation checkpointing and compilation.

    Args:
        model: As loaded.
        chosen: The configuration.
        whole: Compile the whole model; else each layer, as wrappers of several processes need it.
    """
    import torch

    if chosen["memory_format"] == "channels_last":
        model.to(memory_format=torch.channels_last)
    if chosen["activation_checkpointing"]:
        if not model.supports_gradient_checkpointing:
            raise InvalidConfigError(f"{type(model).__name__} cannot checkpoint its activations")
        renamed = getattr(model, "activation_checkpointing_enable", None)  # newer transformers deprecate the old name
        (renamed or model.gradient_checkpointing_enable)({"use_reentrant": False})
    if chosen["compile"] != "none":
        all_of_it = model.base_model if chosen["loss_chunk"] else model  # with_loss calls the head by itself then
        for part in [all_of_it] if whole else equal_layers(model):
            part.compile(mode=str(chosen["compile"]))


def with_loss(model: Any, loss_chunk: int) -> Any:
    """A module whose `forward(batch, scale)` is the sum of the losses of a micro-batch, times `scale`.

    Args:
        model: A classifier, or a causal language model.
        loss_chunk: Tokens whose logits exist at once, computed again in the backward pass; 0 for all at once. Most of
            the memory of a small model with a large vocabulary is logits.
    """
    import torch

    class WithLoss(torch.nn.Module):  # type: ignore[misc]  # here, for torch is imported in functions only
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, batch: Mapping[str, Any], scale: float) -> Any:
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            labels = batch["labels"]
            if labels.dim() == 1:
                return scale * _cross_entropy(self.model(**inputs).logits, labels)
            targets = labels[:, 1:].reshape(-1)
            if loss_chunk:
                hidden = self.model.base_model(**inputs).last_hidden_state[:, :-1]
                head = self.model.get_output_embeddings()
                return scale * _in_chunks(hidden.reshape(-1, hidden.shape[-1]), targets, head, loss_chunk)
            logits = self.model(**inputs).logits[:, :-1]
            return scale * _cross_entropy(logits.reshape(-1, logits.shape[-1]), targets)

    return WithLoss()


def has_dropout(model: Any) -> bool:
    """Whether chance plays a part in every step, so that another cut of the batch draws other masks."""
    configs = [module.config.to_dict() for module in model.modules() if hasattr(module, "config")]
    named = [value for config in configs for name, value in config.items() if "drop" in name]
    return any(isinstance(value, float) and value > 0 for value in named)


def targets_of(batch: Mapping[str, Any]) -> int:
    """How many losses a micro-batch sums up: samples of a classifier, tokens that have a predecessor of a language."""
    labels = batch["labels"]
    return len(labels) if labels.dim() == 1 else int((labels[:, 1:] != IGNORED).sum())


def _cross_entropy(logits: Any, targets: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")


def _in_chunks(hidden: Any, targets: Any, head: Any, chunk: int) -> Any:
    from torch.utils.checkpoint import checkpoint

    def loss_of(part: Any, goals: Any) -> Any:
        return _cross_entropy(head(part), goals)

    parts = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    return sum(checkpoint(loss_of, part, goals, use_reentrant=False) for part, goals in parts)


def _auto(source: Source) -> Any:
    import transformers

    if source.classes is None:
        return transformers.AutoModelForCausalLM
    return (
        transformers.AutoModelForImageClassification
        if source.images
        else transformers.AutoModelForSequenceClassification
    )
