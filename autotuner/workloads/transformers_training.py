"""Training of a transformers model: a causal language model or a classifier, on data from this machine.

The global batch is fixed, so that no configuration changes what is learnt: a smaller micro-batch accumulates more, more
ranks take smaller parts of the same samples. It may change only where a file makes it a parameter.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from autotuner.errors import InvalidConfigError
from autotuner.plugins import OpenWorkload, Preload, Trait, Workload
from autotuner.types import Binding, Config, Tier
from autotuner.workloads import transformers_source as source
from autotuner.workloads.training.data import Data
from autotuner.workloads.training.parallel import Degrees, refusal

CAPACITY, COMMUNICATION, COMPUTE = Binding.CAPACITY, Binding.COMMUNICATION, Binding.COMPUTE
HOST, INPUT, MEMORY = Binding.HOST_LAUNCH, Binding.INPUT, Binding.MEMORY_BANDWIDTH

DEFAULTS: Config = {
    "micro_batch": 1, "workers": 0, "prefetch_factor": 2, "persistent_workers": False, "pin_memory": False,
    "non_blocking": False, "collate": "sample", "autocast": "none", "tf32": False, "compile": "none",
    "attention": "sdpa", "optimizer_kernel": "auto", "memory_format": "contiguous", "activation_checkpointing": False,
    "loss_chunk": 0, "threads": None, "data_parallel": 1, "tensor_parallel": 1, "sharding": "none",
    "bucket_bytes": 25 * 2**20, "overlap": True, "global_batch": None,
}  # fmt: skip
NCCL = ("NCCL_SOCKET_IFNAME", "NCCL_IB_HCA", "NCCL_ALGO", "NCCL_PROTO")


def _loader(text: str, *, needs_gpu: bool = False) -> Trait:
    return Trait(live=True, tier=Tier.EXACT, acts_on=(INPUT,), needs_gpu=needs_gpu, text=text)


def _several(text: str, tier: Tier = Tier.ROUNDING) -> Trait:
    return Trait(tier=tier, acts_on=(COMMUNICATION, COMPUTE, CAPACITY), text=text)


class TransformersTraining(Workload):
    """Takes optimizer steps on real data, and waits for each as a training loop does."""

    kind: Literal["transformers-training"] = "transformers-training"
    model: str | None = Field(None, description="A local folder or a hub id.")
    config: Mapping[str, Any] | None = Field(None, description="A transformers configuration: random weights.")
    revision: str | None = Field(None, description="Of the hub model.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the model.")
    data: Data = Field(description="What it learns from.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    global_batch: int = Field(16, ge=1, description="Samples of an optimizer step, over all ranks; a parameter wins.")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    guard_steps: int = Field(20, ge=2, description="First steps whose losses are compared with the baseline's.")
    seed: int = Field(0, ge=0, description="Of weights, dropout and the order of the data.")

    traits: ClassVar[Mapping[str, Trait]] = {
        "micro_batch": Trait(live=True, memory=True, acts_on=(HOST, MEMORY, CAPACITY), text="samples at once, a rank"),
        "workers": _loader("processes that load data; 0 loads between the steps"),
        "prefetch_factor": _loader("micro-batches that each worker keeps ready"),
        "persistent_workers": _loader("workers outlive an epoch"),
        "pin_memory": _loader("load into pages that a GPU can copy from", needs_gpu=True),
        "non_blocking": _loader("copy to the GPU while it computes", needs_gpu=True),
        "collate": _loader("sample: one by one; batch: tokenised or decoded at once"),
        "autocast": Trait(tier=Tier.PRECISION, acts_on=(MEMORY, COMPUTE, CAPACITY), text="none or bfloat16"),
        "tf32": Trait(tier=Tier.PRECISION, acts_on=(COMPUTE,), needs_gpu=True, text="float32 products with 10 bits"),
        "compile": Trait(acts_on=(HOST, MEMORY), text="torch.compile mode, or none"),
        "attention": Trait(acts_on=(MEMORY, COMPUTE, HOST, CAPACITY), text="eager, sdpa, flash_attention_2, …"),
        "optimizer_kernel": Trait(acts_on=(HOST, MEMORY), text="auto, loop, foreach or fused"),
        "memory_format": Trait(acts_on=(MEMORY, COMPUTE), text="contiguous or channels_last, of images"),
        "activation_checkpointing": Trait(acts_on=(CAPACITY, COMPUTE), text="compute activations again"),
        "loss_chunk": Trait(acts_on=(CAPACITY, MEMORY), text="tokens whose logits exist at once; 0 is all"),
        "threads": Trait(
            acts_on=(COMPUTE, MEMORY, HOST), text="intra-op threads of the CPU, a rank; null is torch's default"
        ),
        "data_parallel": _several("ranks that share the global batch"),
        "tensor_parallel": _several("ranks that share every layer"),
        "sharding": _several("none (DDP), zero2 or zero3 (FSDP2)"),
        "bucket_bytes": Trait(acts_on=(COMMUNICATION,), text="gradients that DDP reduces at once"),
        "overlap": Trait(acts_on=(COMMUNICATION,), text="reduce gradients during the backward pass"),
        "global_batch": Trait(
            tier=Tier.FREE, acts_on=(HOST, MEMORY, COMMUNICATION), text="samples of an optimizer step: learns otherwise"
        ),
        **dict.fromkeys(
            NCCL, Trait(acts_on=(COMMUNICATION,), needs_gpu=True, text="NCCL's variable; null leaves it alone")
        ),
    }

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        source.check_source(self.model, self.config)
        return self

    @property
    def sized(self) -> bool:
        """Texts have lengths; and the proof is worth its seconds where all are alike."""
        return True

    def preload(self) -> Preload:
        """The libraries, and the modelling code when the architecture is known."""
        modules = ("torch", "torch._dynamo", "torch.utils.flop_counter", "torch.distributed", "transformers")
        return (*modules, *source.modelling_modules(self.config))

    def fixed(self, config: Config) -> frozenset[str]:
        """A second micro-batch would be compiled as a dynamic shape: another program than a fresh process runs."""
        return frozenset() if config.get("compile", "none") == "none" else frozenset({"micro_batch"})

    def ranks(self, config: Config) -> int:
        """Data times tensor ranks."""
        return _degrees({**DEFAULTS, **config}).ranks

    def refuses(self, config: Config) -> str:
        """A batch that cannot be cut so, or degrees that do not go together."""
        chosen = {**DEFAULTS, **config}
        degrees, batch = _degrees(chosen), self._global_batch(chosen)
        piece = degrees.data * int(chosen["micro_batch"] or 1)
        if batch % piece:
            return f"a global batch of {batch} is no multiple of {piece}, micro_batch times data_parallel"
        if not chosen["workers"] and chosen["persistent_workers"]:
            return "without workers there are none to persist"
        if chosen["compile"] != "none" and degrees.data > 1 and degrees.bucket_bytes < 2**20:
            return "compiled for several ranks, buckets must be at least 1 MiB: torch's DDPOptimizer asserts it"
        return refusal(degrees, degrees.ranks, self._shape)

    @cached_property
    def _shape(self) -> Mapping[str, Any]:
        """The model's configuration, as far as it lies here."""
        if self.config is not None or self.model is None:
            return self.config or {}
        try:
            found = json.loads((Path(self.model) / "config.json").read_text())
        except (OSError, ValueError):  # a hub id, or a folder that `check` will speak of
            return {}
        return found if isinstance(found, dict) else {}

    def identity(self) -> Mapping[str, str]:
        """Name and hash of the model and of the data."""
        return self._identity

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        return {**source.identity(self.model, self.config, self.revision), **self.data.identity()}

    def check(self) -> None:
        """Whether the data and a local model are there."""
        self.data.check()
        source.check_folder(self.model)

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Join the other ranks, load model and data, and make an optimizer."""
        import torch

        from autotuner.workloads.training.opening import Recipe, opened
        from autotuner.workloads.training.parallel import joined

        unknown = config.keys() - self.traits.keys()
        if unknown:
            raise InvalidConfigError(f"transformers-training has no parameter {min(unknown)!r}")
        chosen = {**DEFAULTS, **config}
        os.environ.update({name: str(chosen[name]) for name in NCCL if chosen.get(name) is not None})
        if chosen["threads"] is not None:
            share = torch.get_num_threads() if self.ranks(chosen) > 1 else math.inf  # ranks have shared the cores
            torch.set_num_threads(int(min(int(chosen["threads"]), share)))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = bool(chosen["tf32"])
        given = {name: getattr(self, name) for name in Recipe.__slots__}
        recipe = Recipe(**{**given, "global_batch": self._global_batch(chosen)})
        with joined(self.ranks(chosen), device), opened(recipe, _degrees(chosen), chosen, device) as training:
            yield training

    def _global_batch(self, chosen: Config) -> int:
        return int(chosen["global_batch"] or self.global_batch)


def _degrees(chosen: Config) -> Degrees:
    return Degrees(
        data=int(chosen["data_parallel"] or 1),
        tensor=int(chosen["tensor_parallel"] or 1),
        sharding=str(chosen["sharding"]),  # type: ignore[arg-type]  # anything else is refused
        bucket_bytes=int(chosen["bucket_bytes"] or 1),
        overlap=bool(chosen["overlap"]),
    )
