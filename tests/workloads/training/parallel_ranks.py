"""What every rank does, as a program: `parallel_ranks.py FOLDER PORT,PORT... CHECK...`, with WORLD_SIZE.

One process imports torch and forks the ranks. The last line of `FOLDER/rank` is what that rank found, in JSON.
"""

import copy
import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import distributed
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, Qwen3Config

from autotuner.errors import InvalidConfigError, UnsupportedError
from autotuner.workloads.training.parallel import Degrees, joined, parallelize

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES),
    "phi3": Phi3Config(**{name: value for name, value in SIZES.items() if name != "head_dim"}),
}
BATCH, TOKENS = 8, 12
LIMIT_S = 100
RANKS = int(os.environ["WORLD_SIZE"])


class WithLoss(torch.nn.Module):
    """All of a step's arithmetic in one `forward`, as a training workload has it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        """Summed loss of the tokens that are not padding; how many differs from row to row."""
        logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=0, reduction="sum"
        )


def build(name="llama", **more):
    torch.manual_seed(int(os.environ["RANK"]))  # ranks differ until they are joined
    config = copy.deepcopy(CONFIGS[name])
    config.update(more)
    return WithLoss(AutoModelForCausalLM.from_config(config))


def whole_batch():
    ids = torch.randint(1, 128, (BATCH, TOKENS), generator=torch.Generator().manual_seed(5))
    for row in range(BATCH):
        ids[row, TOKENS - row :] = 0
    return ids


def tokens_of(ids):
    return int((ids[:, 1:] != 0).sum())


def step(parallel, accumulation):
    """One step on this rank's slice of the batch; the loss of the whole batch."""
    batch = whole_batch()
    mine = batch.chunk(parallel.data_ranks)[parallel.data_rank].chunk(accumulation)
    total, loss_sum = parallel.sum(tokens_of(torch.cat(mine))), 0.0
    assert parallel._silent or total == tokens_of(batch)
    for micro in mine[:-1]:
        with parallel.accumulating():
            loss_sum += backward(parallel, micro, total)
    loss_sum += backward(parallel, mine[-1], total)
    parallel.finish_gradients()
    return parallel.sum(loss_sum) / parallel.data_ranks


def backward(parallel, micro, total):
    loss = parallel.model(micro) * parallel.data_ranks / total
    loss.backward()
    return loss.item()


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def clear(model):
    for parameter in model.parameters():
        parameter.grad = None


def reference(model):
    """Gradients and loss of one process, with rank 0's weights."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        distributed.broadcast(parameter.data, 0)
    batch = whole_batch()
    loss = model(batch) / tokens_of(batch)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}, loss.item()


def compare(degrees, accumulation=1, name="llama", steps=2):
    """How far gradients, loss and gradient norm are from one process's, relative to their size; and what was exposed.

    Two steps: buckets are rebuilt after the first, and what is kept between steps must not leak.
    """
    model = build(name)
    gradients, loss = reference(model)
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    parallel = parallelize(model, degrees, "cpu")
    for _ in range(steps):
        clear(model)
        begun_s = time.perf_counter()
        found_loss = step(parallel, accumulation)
        step_s = time.perf_counter() - begun_s
    off = max(
        ((whole(parameter.grad) - gradients[key]).norm() / gradients[key].norm()).item()
        for key, parameter in model.named_parameters()
    )
    return {
        "gradient": off,
        "loss": abs(found_loss - loss) / loss,
        "norm": abs(parallel.gradient_norm() - norm) / norm,
        "step_s": step_s,
        "exposed_s": parallel.exposed_communication_s,
        "data_rank": parallel.data_rank,
    }


def collectives(parallel, accumulation=1):
    """Names of the collectives of a step, as the profiler sees them."""
    clear(parallel.model)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(parallel, accumulation)
    return [event.name for event in profile.events() if event.name.startswith("gloo:")]


def gradients_of(degrees):
    return {
        f"{label}, accumulation {accumulation}": compare(degrees(**fields), accumulation, name)
        for accumulation in (1, 2)
        for label, fields, name in (
            ("ddp", {"bucket_bytes": 2**14}, "llama"),
            ("ddp tied", {}, "tied"),
            ("after the backward", {"overlap": False, "bucket_bytes": 2**14}, "llama"),
            ("zero2", {"sharding": "zero2"}, "llama"),
            ("zero3", {"sharding": "zero3"}, "llama"),
            ("zero3 tied", {"sharding": "zero3"}, "tied"),
        )
    }


def data():
    """Everything that two data ranks can show."""

    def degrees(**fields):
        return Degrees(data=2, **fields)

    found = {"modes": gradients_of(degrees)}
    found["all_reduces"] = {}
    for label, fields in (
        ("large", {}), ("small", {"bucket_bytes": 2**13}), ("large after", {"overlap": False}),
        ("small after", {"overlap": False, "bucket_bytes": 2**13}),
    ):  # fmt: skip
        model = build()
        parallel = parallelize(model, degrees(**fields), "cpu")
        for _ in range(2):  # DDP rebuilds its buckets, and says so to the others, before the second
            clear(model)
            step(parallel, 1)
        plain, accumulated = collectives(parallel), collectives(parallel, 2)
        with parallel.without_communication() as left:
            silent = collectives(parallel)
            waited_s = parallel.exposed_communication_s
            for parameter in model.parameters():
                parameter.data += int(os.environ["RANK"])
        again = collectives(parallel)
        weights = [whole(parameter).sum().item() for parameter in model.parameters()]
        everybodys = [None, None]
        distributed.all_gather_object(everybodys, weights)
        found["all_reduces"][label] = {
            "plain": len(plain), "accumulated": len(accumulated), "silent": len(silent), "again": len(again),
            "left": left, "silent_exposed_s": waited_s, "same_weights": everybodys[0] == everybodys[1],
        }  # fmt: skip
    found["gathered"] = {}
    for sharding in ("zero2", "zero3"):
        parallel = parallelize(build(), degrees(sharding=sharding), "cpu")
        found["gathered"][sharding] = sum("gather" in name for name in collectives(parallel, 2))
        assert parallel.without_communication() is None
    halves = parallelize(build(), degrees(sharding="zero3"), "cpu", gathered_dtype="bfloat16")
    step(halves, 1)
    found["bfloat16 gradients are"] = str(next(halves.model.parameters()).grad.dtype)
    return found


def tensor():
    """Everything that two tensor ranks can show."""
    found = {
        f"{name}, accumulation {accumulation}": compare(Degrees(tensor=2), accumulation, name)
        for name in ("llama", "qwen3", "phi3")
        for accumulation in (1, 2)
    }
    assert parallelize(build(), Degrees(tensor=2), "cpu").without_communication() is None
    return {"modes": found, "unsupported": list(unsupported())}


def both():
    """Two data ranks of two tensor ranks each."""
    fields = ({"sharding": "zero3"}, {"overlap": False, "bucket_bytes": 2**13})
    return {"modes": {str(each): compare(Degrees(data=2, tensor=2, **each), 2, "qwen3") for each in fields}}


def unsupported():
    """Models that have no plan, or one with a style that is not known."""
    strange = LlamaConfig(**SIZES)
    strange.base_model_tp_plan = {"layers.*.mlp.gate_proj": "sideways"}
    for model in (AutoModelForCausalLM.from_config(strange), torch.nn.Linear(4, 4)):
        try:
            parallelize(model, Degrees(tensor=2), "cpu")
        except UnsupportedError as error:
            yield error.message
    try:
        parallelize(build(num_key_value_heads=1), Degrees(tensor=2), "cpu")
    except InvalidConfigError as error:
        yield error.message


def die():
    """The process of rank 1 ends during a step, without a word."""
    parallel = parallelize(build(), Degrees(data=2), "cpu")
    step(parallel, 1)
    if os.environ["RANK"] == "1":
        os._exit(7)
    step(parallel, 1)


def run(check, port):
    os.environ["MASTER_PORT"] = port
    try:
        with joined(RANKS, "cpu", LIMIT_S):
            return check()
    except RuntimeError as error:
        return {"error": str(error)}


def be(rank, folder, ports, names):
    """Run the checks as a rank."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    checks = {each.__name__: each for each in (data, tensor, both, die)}
    found = {}
    with Path(folder, str(rank)).open("w") as answer:
        for port, name in zip(ports.split(","), names, strict=True):
            print(json.dumps(found), file=answer, flush=True)  # the last word of a rank that dies
            found[name] = run(checks[name], port)
        print(json.dumps(found), file=answer)


if __name__ == "__main__":
    for rank in range(RANKS):
        if os.fork() == 0:
            be(rank, sys.argv[1], sys.argv[2], sys.argv[3:])
            break
    else:
        for _ in range(RANKS):
            os.wait()
