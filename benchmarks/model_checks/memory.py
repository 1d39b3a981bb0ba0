"""KV-cache and activation bytes against what torch really keeps, and a line in the batch against unseen batches."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from autotuner.analyze.memory_model import Recompute, activation_bytes, fit_memory, kv_cache_bytes
from model_checks.points import Point

LAYERS, HIDDEN, HEADS = 3, 128, 4


def tiny_llama(layers: int, kv_heads: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=256, num_hidden_layers=layers, num_attention_heads=8,
        num_key_value_heads=kv_heads, vocab_size=512, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(dtype)


def cache_bytes(cache: object) -> int:
    return sum(
        tensor.numel() * tensor.element_size() for layer in cache.layers for tensor in (layer.keys, layer.values)
    )


def check_cache() -> list[Point]:
    """`DynamicCache` after a prompt, `StaticCache` at its full length."""
    from transformers import DynamicCache, StaticCache

    points = []
    for layers, kv_heads, tokens, sequences, dtype in (
        (2, 8, 7, 1, torch.float32), (3, 2, 64, 4, torch.bfloat16), (4, 1, 129, 3, torch.float32),
    ):  # fmt: skip
        model = tiny_llama(layers, kv_heads, dtype)
        prompt = torch.ones(sequences, tokens, dtype=torch.long)
        caches = {
            "DynamicCache": (DynamicCache(config=model.config), tokens),
            "StaticCache": (StaticCache(config=model.config, max_cache_len=2 * tokens), 2 * tokens),
        }
        for name, (cache, length) in caches.items():
            with torch.no_grad():
                model(prompt, past_key_values=cache, use_cache=True)
            predicted = kv_cache_bytes(layers, kv_heads, HIDDEN // 8, length, sequences, dtype.itemsize)
            case = f"{name}, {layers} layers, {kv_heads} heads, {sequences} x {length} tokens"
            points.append(Point("KV cache", case, predicted, cache_bytes(cache), "bytes"))
    return points


class Layer(nn.Module):
    """The layer of Korthikanti et al., figure 2, with byte masks as CUDA's dropout keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

    def scores(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(query @ key.transpose(-1, -2), dim=-1)
        return torch.native_dropout(weights, 0.1, True)[0] @ value

    def forward(self, x: torch.Tensor, recompute_scores: bool) -> torch.Tensor:
        batch, tokens, _ = x.shape
        split = self.qkv(self.before(x)).view(batch, tokens, 3, HEADS, HIDDEN // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = (part.contiguous() for part in split)
        mixed = (
            checkpoint(self.scores, query, key, value, use_reentrant=True)
            if recompute_scores
            else self.scores(query, key, value)
        )
        mixed = mixed.transpose(1, 2).reshape(batch, tokens, HIDDEN)
        x = x + torch.native_dropout(self.out(mixed), 0.1, True)[0]
        fed = self.down(nn.functional.gelu(self.up(self.between(x))))
        return x + torch.native_dropout(fed, 0.1, True)[0]


def saved_bytes(run: Callable[[], torch.Tensor], parameters: Sequence[torch.Tensor]) -> int:
    """Bytes of the distinct storages that a forward pass keeps for its backward pass, parameters left out.

    The tensors are held until the end, so that no storage is reused and counted once for two.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    assert result.requires_grad
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in known)


def run_layers(layers: Sequence[Layer], x: torch.Tensor, recompute: Recompute) -> torch.Tensor:
    for layer in layers:
        if recompute == "everything":
            x = checkpoint(layer, x, False, use_reentrant=True)
        else:
            x = layer(x, recompute == "attention")
    return x


def check_activations() -> list[Point]:
    """The paper's formula, three ways of recomputing, two types."""
    points = []
    for dtype in (torch.bfloat16, torch.float32):
        layers = [Layer().to(dtype) for _ in range(LAYERS)]
        parameters = [parameter for layer in layers for parameter in layer.parameters()]
        for recompute in ("nothing", "attention", "everything"):
            for tokens, batch in ((32, 1), (64, 4), (256, 2)):
                x = torch.randn(batch, tokens, HIDDEN, dtype=dtype, requires_grad=True)
                measured = saved_bytes(lambda: run_layers(layers, x, recompute), parameters)  # noqa: B023
                predicted = activation_bytes(
                    LAYERS, HIDDEN, HEADS, tokens, batch, recompute=recompute, element_bytes=dtype.itemsize
                )
                case = f"recompute {recompute}, {dtype}, {batch} x {tokens} tokens"
                points.append(Point("activations", case, predicted, measured, "bytes"))
    return points


def check_line() -> list[Point]:
    """A decoder that the formula was not made for: weights and saved tensors at three batches, predicted at others."""
    model = tiny_llama(3, 2)
    parameters = list(model.parameters())
    weights = sum(parameter.numel() * parameter.element_size() for parameter in parameters)

    def total(batch: int) -> int:
        prompt = torch.ones(batch, 48, dtype=torch.long)
        return weights + saved_bytes(lambda: model(prompt, labels=prompt).loss, parameters)

    line = fit_memory({batch: total(batch) for batch in (1, 2, 4)})
    assert line is not None
    return [
        Point("memory line", f"batch {batch}", line.bytes_at(batch).value, total(batch), "bytes")
        for batch in (3, 8, 16, 24)
    ]


def check() -> list[Point]:
    return [*check_cache(), *check_activations(), *check_line()]
