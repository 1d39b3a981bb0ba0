"""An opened transformers model: a decoder that generates, or an encoder."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from autotuner.caches import last_level_cache_bytes
from autotuner.errors import InvalidConfigError
from autotuner.plugins import Step
from autotuner.types import Binding, Config, Value
from autotuner.workloads.batches import Batches
from autotuner.workloads.transformers_relief import shared_layers

DEFAULTS: Config = {
    "batch_size": 1,
    "dtype": "float32",
    "attention": "sdpa",
    "compile": "none",
    "kv_cache": "dynamic",
    "threads": None,
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What every configuration is asked: lengths in tokens, and the seed of the prompts."""

    prompt_tokens: int
    new_tokens: int
    probe_requests: int
    seed: int

    def batches(self, model: Any) -> Batches:
        """The prompts, for the vocabulary of a model."""
        vocabulary = model.config.get_text_config().vocab_size
        return Batches(vocabulary, self.prompt_tokens, self.probe_requests, self.seed)


class Generator:
    """Greedy generation of a fixed number of tokens."""

    def __init__(self, inputs: Inputs, model: Any, device: str, chosen: Config) -> None:
        self._inputs, self._model, self._device = inputs, model, device
        self._batches = inputs.batches(model)
        self._only = 0  # requests a step while arithmetic is relieved; 0: as configured
        model.generation_config.eos_token_id = None  # every request has its full length, whatever the weights say
        model.generation_config.pad_token_id = 0

    def step(self, config: Config) -> Step:
        """Generate for one batch and bring the tokens to the host."""
        size = self._only or _batch_size(config)
        tokens = self._generate(self._batches.take(size), config).cpu()
        new = tokens.shape[1] - self._inputs.prompt_tokens
        if new != self._inputs.new_tokens:
            raise RuntimeError(f"generated {new} tokens instead of {self._inputs.new_tokens}")
        return Step(work={"tokens": size * new, "requests": size})

    def relieve(self, resource: str, config: Config) -> AbstractContextManager[float] | None:
        """See `relieve`."""
        return relieve(self, self._model, resource, config, self._device)

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Next-token logits [requests x new_tokens, vocabulary] along the reference's tokens.

        The tokens are forced, so that both sides see the same contexts, but they go the candidate's own way: its
        batch size, its cache, its compiled step.
        """
        import numpy as np
        import torch

        size = _batch_size(config)
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
        length = self._inputs.new_tokens
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

    def __init__(self, inputs: Inputs, model: Any, device: str, chosen: Config) -> None:
        import torch

        self._model, self._device, self._dtype = model, device, str(model.dtype).removeprefix("torch.")
        self._batches = inputs.batches(model)
        self._tokens = inputs.prompt_tokens
        self._only = 0  # as Generator's
        mode = chosen["compile"]
        self._forward = model if mode == "none" else torch.compile(model, mode=str(mode))

    def step(self, config: Config) -> Step:
        """Encode one batch and bring the vectors to the host."""
        size = self._only or _batch_size(config)
        self._encode(self._batches.take(size))
        return Step(work={"requests": size, "samples": size, "tokens": size * self._tokens})

    def relieve(self, resource: str, config: Config) -> AbstractContextManager[float] | None:
        """See `relieve`."""
        return relieve(self, self._model, resource, config, self._device)

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Vectors [requests, width] of the probe."""
        import numpy as np

        size = _batch_size(config)
        vectors = [self._encode(batch)[:count].numpy() for count, batch in self._batches.probe_batches(size)]
        return {"embedding": np.concatenate(vectors), "_dtype": np.array(self._dtype)}

    def _encode(self, batch: Any) -> Any:
        import torch

        ids = batch.to(self._device)
        hidden = self._forward(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return hidden.mean(dim=1).float().cpu()


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


def _batch_size(config: Config) -> int:
    return int({**DEFAULTS, **config}["batch_size"] or 1)


def relieve(
    opened: Generator | Encoder, model: Any, resource: str, config: Config, device: str
) -> AbstractContextManager[float] | None:
    """Of arithmetic by a batch of one, of memory by layers that share their weights; None for other resources.

    Both leave the launches as they are. A compiled program keeps its batch: another one would be another program.
    """
    compiled = {**DEFAULTS, **config}["compile"] != "none"
    if resource == Binding.MEMORY_BANDWIDTH and not compiled:
        return shared_layers(model, _cache_bytes(device))
    if resource == Binding.COMPUTE and not compiled:
        return _one_request(opened, _batch_size(config))
    return None


def _cache_bytes(device: str) -> int:
    if device == "cpu":
        return last_level_cache_bytes()
    import torch

    return int(torch.cuda.get_device_properties(device).L2_cache_size)


@contextmanager
def _one_request(opened: Generator | Encoder, size: int) -> Iterator[float]:
    opened._only = 1
    try:
        yield 1 / size
    finally:
        opened._only = 0
