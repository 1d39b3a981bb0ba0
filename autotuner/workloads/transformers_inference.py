"""Inference of a transformers model: text generation with a decoder, or encoding with an encoder.

The model is a hub id, a local folder, or a configuration given inline (random weights, nothing is downloaded).
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from autotuner.errors import InvalidConfigError, UnsupportedError, UsageError
from autotuner.plugins import OpenWorkload, Preload, Step, Trait, Workload
from autotuner.types import Config, Tier, Value
from autotuner.workloads.batches import Batches

logger = logging.getLogger(__name__)

DEFAULTS: Config = {
    "batch_size": 1,
    "dtype": "float32",
    "attention": "sdpa",
    "compile": "none",
    "kv_cache": "dynamic",
    "threads": None,
}


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
        "batch_size": Trait(live=True, memory=True, text="requests answered together"),
        "dtype": Trait(tier=Tier.PRECISION, text="number format of weights and activations"),
        "attention": Trait(text="attention kernel: eager, sdpa, flash_attention_2, …"),
        "compile": Trait(text="torch.compile mode, or none"),
        "kv_cache": Trait(text="key-value cache: dynamic grows, static is allocated once"),
        "threads": Trait(text="intra-op threads of the CPU; null leaves torch's default"),
    }

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.config is None):
            raise ValueError("give either model (a folder or hub id) or config (inline, with random weights)")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("config needs a model_type, for example glm4 or bert")
        return self

    def preload(self) -> Preload:
        """The libraries, and the modelling code when the architecture is known."""
        modules = ["torch", "transformers", "transformers.models.auto.modeling_auto", "transformers.generation.utils"]
        if self.config is not None:
            model_type = str(self.config["model_type"]).replace("-", "_")
            modules.append(f"transformers.models.{model_type}.modeling_{model_type}")
        return tuple(modules)

    def fixed(self, config: Config) -> frozenset[str]:
        """A second batch size would be compiled as a dynamic shape: another program than a fresh process runs."""
        return frozenset() if config.get("compile", "none") == "none" else frozenset({"batch_size"})

    def identity(self) -> Mapping[str, str]:
        """Name and content hash of the model."""
        return self._identity

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        content = json.dumps(self.config, sort_keys=True).encode() if self.config is not None else b""
        folder = Path(self.model or "").expanduser()
        if self.model is not None and folder.is_dir():
            content = _folder_digest(folder)
        elif self.model is not None:
            content = f"{self.model}@{self.revision}".encode()
        name = self.model if self.model is not None else f"{(self.config or {})['model_type']} (random weights)"
        return {"model": Path(name).name, "model_hash": hashlib.sha256(content).hexdigest()[:16]}

    def check(self) -> None:
        """Whether a local model is there and can be read without running its pickles."""
        if self.model is None:
            return
        path = Path(self.model).expanduser()
        looks_local = self.model.startswith((".", "/", "~")) or path.exists()
        if looks_local and not path.exists():
            raise UsageError(f"workload.model: there is no {self.model}", "name a folder with config.json, or a hub id")
        if looks_local and not (path / "config.json").is_file():
            raise UsageError(f"workload.model: {self.model} holds no transformers model", "a folder with config.json")
        if looks_local and not any(path.glob("*.safetensors")):
            raise UsageError(f"workload.model: {self.model} holds no *.safetensors", "pickled weights are not opened")

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
            yield Generator(self, model, device) if self.task == "generate" else Encoder(self, model, device, chosen)

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
                source = str(Path(str(self.model)).expanduser()) if Path(str(self.model)).exists() else self.model
                model = auto.from_pretrained(source, dtype=dtype, revision=self.revision, **options).to(device)
        except ImportError as error:  # an attention kernel or quantiser that is not installed
            raise UnsupportedError(_sentence(error)) from error
        except OSError as error:
            raise InvalidConfigError(f"the model {self.model} cannot be loaded: {_sentence(error)}") from error
        except ValueError as error:
            if "attention" in str(error).lower() or "attn" in str(error).lower():
                raise UnsupportedError(_sentence(error)) from error
            raise
        return model.eval()


class Generator:
    """Greedy generation of a fixed number of tokens."""

    def __init__(self, workload: TransformersInference, model: Any, device: str) -> None:
        self._workload, self._model, self._device = workload, model, device
        self._batches = _batches(workload, model)
        model.generation_config.eos_token_id = None  # every request has its full length, whatever the weights say
        model.generation_config.pad_token_id = 0

    def step(self, config: Config) -> Step:
        """Generate for one batch and bring the tokens to the host."""
        size = int({**DEFAULTS, **config}["batch_size"] or 1)
        tokens = self._generate(self._batches.take(size), config).cpu()
        new = tokens.shape[1] - self._workload.prompt_tokens
        if new != self._workload.new_tokens:
            raise RuntimeError(f"generated {new} tokens instead of {self._workload.new_tokens}")
        return Step(work={"tokens": size * new, "requests": size})

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Next-token logits [requests x new_tokens, vocabulary] along the reference's tokens.

        The tokens are forced, so that both sides see the same contexts, but they go the candidate's own way: its
        batch size, its cache, its compiled step.
        """
        import numpy as np
        import torch

        size = int({**DEFAULTS, **config}["batch_size"] or 1)
        forced = None if reference is None else torch.from_numpy(reference["_tokens"])
        logits, tokens, start = [], [], 0
        for count, prompts in self._batches.probe_batches(size):
            rows = torch.arange(start, start + size) % len(self._batches.probe)
            processors = [] if forced is None else [ForcedTokens(forced[rows].to(self._device), prompts.shape[1])]
            found = self._generate(
                prompts, config, logits_processor=processors, output_logits=True, return_dict_in_generate=True
            )
            logits.append(torch.stack(found.logits, dim=1)[:count].float().cpu().numpy())
            tokens.append(found.sequences[:count, prompts.shape[1] :].cpu().numpy())
            start += size
        stacked = np.concatenate(logits)
        dtype = str(self._model.dtype).removeprefix("torch.")
        return {
            "logits": stacked.reshape(-1, stacked.shape[-1]),
            "_tokens": np.concatenate(tokens),
            "_dtype": np.array(dtype),
        }

    def _generate(self, prompts: Any, config: Config, **more: Any) -> Any:
        import torch

        ids = prompts.to(self._device)
        options = _generation_options({**DEFAULTS, **config})
        length = self._workload.new_tokens
        return self._model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length, min_new_tokens=length,
            **options, **more,
        )  # fmt: skip


class ForcedTokens:
    """A logits processor that lets nothing but the given tokens [batch, new] follow the prompt."""

    def __init__(self, tokens: Any, prompt_tokens: int) -> None:
        self._tokens, self._prompt_tokens = tokens, prompt_tokens

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores that are zero at the forced token and minus infinity elsewhere."""
        position = input_ids.shape[1] - self._prompt_tokens
        only = scores.new_full(scores.shape, float("-inf"))
        return only.scatter(1, self._tokens[:, position : position + 1], 0.0)


class Encoder:
    """One forward pass of an encoder; an answer is the mean of the last hidden states."""

    def __init__(self, workload: TransformersInference, model: Any, device: str, chosen: Mapping[str, Value]) -> None:
        import torch

        self._device, self._dtype = device, str(model.dtype).removeprefix("torch.")
        self._batches = _batches(workload, model)
        self._tokens = workload.prompt_tokens
        mode = chosen["compile"]
        self._forward = model if mode == "none" else torch.compile(model, mode=str(mode))

    def step(self, config: Config) -> Step:
        """Encode one batch and bring the vectors to the host."""
        size = int({**DEFAULTS, **config}["batch_size"] or 1)
        self._encode(self._batches.take(size))
        return Step(work={"requests": size, "samples": size, "tokens": size * self._tokens})

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Vectors [requests, width] of the probe."""
        import numpy as np

        size = int({**DEFAULTS, **config}["batch_size"] or 1)
        vectors = [self._encode(batch)[:count].numpy() for count, batch in self._batches.probe_batches(size)]
        return {"embedding": np.concatenate(vectors), "_dtype": np.array(self._dtype)}

    def _encode(self, batch: Any) -> Any:
        import torch

        ids = batch.to(self._device)
        hidden = self._forward(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return hidden.mean(dim=1).float().cpu()


def _batches(workload: TransformersInference, model: Any) -> Batches:
    vocabulary = model.config.get_text_config().vocab_size
    return Batches(vocabulary, workload.prompt_tokens, workload.probe_requests, workload.seed)


def _generation_options(chosen: Mapping[str, Value]) -> dict[str, Any]:
    """Arguments of `generate` for cache and compilation."""
    from transformers import CompileConfig

    options: dict[str, Any] = {"cache_implementation": chosen["kv_cache"]}
    if chosen["compile"] == "none":
        return {**options, "disable_compile": True}
    if chosen["kv_cache"] != "static":
        raise InvalidConfigError("compiling needs kv_cache static: a growing cache would recompile at every length")
    compilation = CompileConfig(mode=str(chosen["compile"]), fullgraph=False)
    compilation._compile_all_devices = True  # without it, generate() compiles on accelerators only
    return {**options, "compile_config": compilation}


def _dtype(name: Value) -> Any:
    import torch

    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype):
        raise InvalidConfigError(f"unknown dtype {name!r}: use float32, bfloat16 or float16")
    return dtype


def _sentence(error: BaseException) -> str:
    """The first sentence of a library's long message."""
    return " ".join(str(error).split()).split(". ")[0][:200]


def _folder_digest(folder: Path) -> bytes:
    """Configuration in full; of weights the name, the size and the header, which lists every tensor's place."""
    digest = hashlib.sha256((folder / "config.json").read_bytes() if (folder / "config.json").is_file() else b"")
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{path.stat().st_size}".encode() + file.read(1 << 16))
    return digest.digest()
