"""Inference of a transformers model: text generation with a decoder, or encoding with an encoder.

The model is a hub id, a local folder, or a configuration given inline (random weights, nothing is downloaded).
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from autotuner.errors import InvalidConfigError, UnsupportedError
from autotuner.plugins import OpenWorkload, Preload, Trait, Workload
from autotuner.types import Binding, Config, Tier, Value
from autotuner.workloads import transformers_source as source
from autotuner.workloads.transformers_models import DEFAULTS, Encoder, Generator, Inputs

logger = logging.getLogger(__name__)

CAPACITY, COMPUTE, HOST, MEMORY = Binding.CAPACITY, Binding.COMPUTE, Binding.HOST_LAUNCH, Binding.MEMORY_BANDWIDTH


class TransformersInference(Workload):
    """Answers a batch of requests a step, and waits for the answers on the host as a client would."""

    kind: Literal["transformers-inference"] = "transformers-inference"
    task: Literal["generate", "encode"] = Field("generate", description="What a request asks for.")
    model: str | None = Field(None, description="A local folder or a hub id.")
    config: Mapping[str, Any] | None = Field(None, description="A transformers configuration: random weights.")
    revision: str | None = Field(None, description="Of the hub model.")
    trust_remote_code: bool = Field(False, description="Run code that comes with the model.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    prompt_tokens: int = Field(64, ge=1, description="Length of every input.")
    new_tokens: int = Field(32, ge=1, description="Tokens to generate for each request.")
    weights_dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Random weights are drawn in this format, then cast, so that all formats share them."
    )
    probe_requests: int = Field(8, ge=1, description="Requests whose outputs are compared with the baseline's.")
    seed: int = Field(0, ge=0, description="Of weights and inputs.")

    traits: ClassVar[Mapping[str, Trait]] = {
        "batch_size": Trait(
            live=True, memory=True, acts_on=(HOST, MEMORY, CAPACITY), text="requests answered together"
        ),
        "dtype": Trait(
            tier=Tier.PRECISION, acts_on=(MEMORY, COMPUTE, CAPACITY), text="number format of weights and activations"
        ),
        "attention": Trait(
            acts_on=(MEMORY, COMPUTE, HOST, CAPACITY), text="attention kernel: eager, sdpa, flash_attention_2, …"
        ),
        "compile": Trait(acts_on=(HOST, MEMORY), text="torch.compile mode, or none"),
        "kv_cache": Trait(acts_on=(HOST, MEMORY, CAPACITY), text="key-value cache: dynamic grows, static is whole"),
        "threads": Trait(acts_on=(COMPUTE, MEMORY, HOST), text="intra-op threads of the CPU; null is torch's default"),
    }

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        source.check_source(self.model, self.config)
        return self

    def preload(self) -> Preload:
        """The libraries, and the modelling code when the architecture is known."""
        modules = ("torch", "torch._dynamo", "torch.utils.flop_counter")  # the second to compile, the third to count
        return (*modules, "transformers", "transformers.generation.utils", *source.modelling_modules(self.config))

    def fixed(self, config: Config) -> frozenset[str]:
        """A second batch size would be compiled as a dynamic shape: another program than a fresh process runs."""
        return frozenset() if config.get("compile", "none") == "none" else frozenset({"batch_size"})

    def identity(self) -> Mapping[str, str]:
        """Name and content hash of the model."""
        return self._identity

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        return source.identity(self.model, self.config, self.revision)

    def check(self) -> None:
        """Whether a local model is there and can be read without running its pickles."""
        source.check_folder(self.model)

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Load the model in the configuration's format and with its kernels."""
        import torch

        unknown = config.keys() - self.traits.keys()
        if unknown:
            raise InvalidConfigError(f"transformers-inference has no parameter {min(unknown)!r}")
        chosen = {**DEFAULTS, **config}
        if chosen["threads"] is not None:
            torch.set_num_threads(int(chosen["threads"]))
        with torch.inference_mode():
            model = self._load(chosen, device)
            inputs = Inputs(self.prompt_tokens, self.new_tokens, self.probe_requests, self.seed)
            opened = Generator if self.task == "generate" else Encoder
            yield opened(inputs, model, device, chosen)

    def _load(self, chosen: Mapping[str, Value], device: str) -> Any:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        dtype = _dtype(chosen["dtype"])
        auto = transformers.AutoModelForCausalLM if self.task == "generate" else transformers.AutoModel
        options: dict[str, Any] = {"attn_implementation": chosen["attention"]}
        try:
            if self.config is not None:
                torch.manual_seed(self.seed)
                shape = transformers.AutoConfig.for_model(**self.config)
                with torch.device(device):
                    model = auto.from_config(shape, dtype=_dtype(self.weights_dtype), **options).to(dtype)
            else:
                options |= {"use_safetensors": True, "trust_remote_code": self.trust_remote_code}
                named = source.resolved(str(self.model))
                model = auto.from_pretrained(named, dtype=dtype, revision=self.revision, **options).to(device)
        except ImportError as error:  # an attention kernel or quantiser that is not installed
            raise UnsupportedError(source.first_sentence(error)) from error
        except OSError as error:
            reason = source.first_sentence(error)
            raise InvalidConfigError(f"the model {self.model} cannot be loaded: {reason}") from error
        except ValueError as error:
            if "attention" in str(error).lower() or "attn" in str(error).lower():
                raise UnsupportedError(source.first_sentence(error)) from error
            raise
        return model.eval()


def _dtype(name: Value) -> Any:
    import torch

    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype):
        raise InvalidConfigError(f"unknown dtype {name!r}: use float32, bfloat16 or float16")
    return dtype
