"""ZeRO's model states against real shards on two gloo ranks: plain, ZeroRedundancyOptimizer and FSDP2's fully_shard.

Everything is float32 (4 + 4 + 8 bytes an element: Adam's two moments), but in stage 2, `fully_shard` without freeing
what it gathered: there the whole parameters are bfloat16, and their sharded float32 copy is counted with the optimizer,
as the paper does (2 + 4 + 12).
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from autotuner.analyze.memory_model import Stage, zero_bytes
from model_checks.collectives import free_port
from model_checks.memory import tiny_llama
from model_checks.points import Point

PROCESSES = 2


def local_bytes(tensors: Iterable[Any]) -> int:
    """What this rank holds of them."""
    locals_ = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors if tensor is not None]
    return sum(tensor.numel() * tensor.element_size() for tensor in locals_)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    return local_bytes(value for state in optimizer.state.values() for name, value in state.items() if name != "step")


def backward(model: torch.nn.Module) -> None:
    prompt = torch.ones(2, 8, dtype=torch.long)
    model(prompt, labels=prompt).loss.backward()


def plain(stage: Stage) -> dict[str, int]:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = tiny_llama(4, 2)
    parameters = list(model.parameters())
    optimizer = ZeroRedundancyOptimizer(parameters, torch.optim.AdamW) if stage == 1 else torch.optim.AdamW(parameters)
    backward(model)
    optimizer.step()
    inner = optimizer.optim if stage == 1 else optimizer
    return {
        "parameters_bytes": local_bytes(parameters),
        "gradients_bytes": local_bytes(parameter.grad for parameter in parameters),
        "optimizer_bytes": optimizer_bytes(inner),
    }


def sharded(stage: Stage) -> dict[str, int]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = tiny_llama(4, 2)
    computing = torch.bfloat16 if stage == 2 else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=computing, reduce_dtype=torch.float32)
    wrapped = fully_shard(model, mesh=init_device_mesh("cpu", (PROCESSES,)), mp_policy=policy)
    wrapped.set_reshard_after_backward(stage == 3)
    optimizer = torch.optim.AdamW(model.parameters())
    backward(model)
    whole_bytes = sum(parameter.untyped_storage().nbytes() for parameter in model.parameters()) if stage == 2 else 0
    wrapped.reshard()
    parameters = list(model.parameters())
    optimizer.step()
    shard_bytes = local_bytes(parameters)
    return {
        "parameters_bytes": whole_bytes if stage == 2 else shard_bytes,
        "gradients_bytes": local_bytes(parameter.grad for parameter in parameters),
        "optimizer_bytes": optimizer_bytes(optimizer) + (shard_bytes if stage == 2 else 0),
    }


def run_rank(rank: int, port: int, results: "mp.SimpleQueue[object]") -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    results.put({stage: plain(stage) if stage < 2 else sharded(stage) for stage in (0, 1, 2, 3)})
    dist.barrier()
    dist.destroy_process_group()


def check() -> list[Point]:
    """The fullest rank, each stage and each kind of state."""
    elements = sum(parameter.numel() for parameter in tiny_llama(4, 2).parameters())
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(run_rank, (free_port(), results), nprocs=PROCESSES)
    ranks = [results.get() for _ in range(PROCESSES)]
    points = []
    for stage in (0, 1, 2, 3):
        kept, held = (2, 12) if stage == 2 else (4, 8)
        states = zero_bytes(elements, PROCESSES, stage, parameter_bytes=kept, gradient_bytes=4, optimizer_bytes=held)
        for name in ("parameters_bytes", "gradients_bytes", "optimizer_bytes"):
            fullest = max(rank[stage][name] for rank in ranks)
            points.append(Point("ZeRO", f"stage {stage}, {name}", getattr(states, name), fullest, "bytes"))
    return points
