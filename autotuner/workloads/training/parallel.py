"""Training in several processes: data, sharded-data and tensor parallelism behind one door.

The mathematics is that of one process. Every rank's loss must be the sum of its token losses, times the number of data
ranks, over the tokens of the whole global batch: the ranks' gradients are averaged.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol

from autotuner.errors import InvalidConfigError
from autotuner.workloads.training import tensor_parallel
from autotuner.workloads.training.replication import Afterwards, Local, Overlapped
from autotuner.workloads.training.sharding import Sharded
from autotuner.workloads.training.tensor_parallel import local

Sharding = Literal["none", "zero2", "zero3"]


@dataclass(frozen=True, slots=True)
class Degrees:
    """How the processes share the work; `data * tensor` of them.

    Attributes:
        data: Ranks that each take a part of the global batch.
        tensor: Ranks that each hold a part of every layer.
        sharding: What the data ranks share out: nothing (DDP), optimizer states and gradients (`zero2`), or the
            parameters too (`zero3`), both by FSDP2.
        bucket_bytes: Gradients that are reduced at once, with sharding "none".
        overlap: Whether that happens during the backward pass, or after it.
    """

    data: int = 1
    tensor: int = 1
    sharding: Sharding = "none"
    bucket_bytes: int = 25 * 2**20
    overlap: bool = True

    @property
    def ranks(self) -> int:
        """Processes that take part."""
        return self.data * self.tensor


def refusal(degrees: Degrees, ranks: int, shape: Mapping[str, Any]) -> str:
    """Why degrees can never work for a model, in one line; empty if nothing speaks against them.

    Args:
        degrees: What is asked for.
        ranks: Processes that there are.
        shape: The model's configuration as transformers names it: `num_attention_heads`, `num_key_value_heads`,
            `intermediate_size`; what is missing is not checked.
    """
    if degrees.data < 1 or degrees.tensor < 1 or degrees.bucket_bytes < 1:
        return "parallel degrees and the bucket are at least 1"
    if degrees.ranks != ranks:
        return f"data {degrees.data} x tensor {degrees.tensor} needs {degrees.ranks} processes, not {ranks}"
    if degrees.data == 1 and degrees.sharding != "none":
        return f"{degrees.sharding} shards over data ranks, and there is one"
    if degrees.tensor > 1 and degrees.data > 1 and degrees.sharding == "none" and degrees.overlap:
        return "DDP cannot overlap the gradients of a tensor-parallel model: shard them, or overlap false"
    for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        count = shape.get(name)
        if isinstance(count, int) and count % degrees.tensor:
            return f"tensor {degrees.tensor} does not divide {name} {count}"
    return ""


@contextmanager
def joined(ranks: int, device: str, limit_s: float = 300.0) -> Iterator[None]:
    """Be one of several processes, whose address and rank the environment says as torchrun does.

    When one process ends, a collective of the others raises at once. One that fails must therefore end: what it still
    refers to, a model for one, keeps its connections open, and the others would wait for `limit_s`.

    Args:
        ranks: Processes; one alone joins nothing.
        device: `cpu` (gloo) or a GPU (NCCL), which is bound to this process: by its index, or else `LOCAL_RANK`.
        limit_s: How long a collective waits for the others, before it raises.
    """
    from torch import distributed

    if ranks == 1:
        yield
        return
    backend, bound = _backend(device)
    with _on_the_loopback():
        distributed.init_process_group(
            backend, world_size=ranks, rank=int(os.environ["RANK"]), timeout=timedelta(seconds=limit_s), device_id=bound
        )
    together = False
    try:
        yield
        together = True
    finally:
        if together or backend == "gloo":  # gloo closes its sockets, which tells the others; NCCL would wait for them
            distributed.destroy_process_group()


def _backend(device: str) -> tuple[str, Any]:
    import torch

    if device.partition(":")[0] != "cuda":
        return "gloo", None
    named = torch.device(device).index
    index = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count() if named is None else named
    torch.cuda.set_device(index)
    return "nccl", torch.device("cuda", index)


@contextmanager
def _on_the_loopback() -> Iterator[None]:
    """Let gloo use the loopback: by itself it asks for the address of this host's name, which may have none."""
    chosen = "GLOO_SOCKET_IFNAME" in os.environ
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        yield
    finally:
        if not chosen:
            del os.environ["GLOO_SOCKET_IFNAME"]


class Reduction(Protocol):
    """How the gradients of the data ranks become one."""

    model: Any

    def accumulating(self) -> AbstractContextManager[None]:
        """Leave gradients as this rank has them."""

    def finish(self) -> None:
        """Make them those of the whole batch."""

    def exposed_s(self) -> float | None:
        """Seconds of the last step that nothing but communication filled; None where that is not known."""

    def silent(self) -> AbstractContextManager[None] | None:
        """Do the same work and send nothing; None where the work needs what is sent."""


def parallelize(model: Any, degrees: Degrees, device: str, gathered_dtype: str | None = None) -> "Parallel":
    """Spread a model, the same on every rank and on its device, over the processes that joined.

    Rank 0's weights become everybody's. All that a step computes must happen in the model's `forward`, the loss too.

    Args:
        model: Any module; for tensor parallelism, one that contains a transformers model.
        degrees: Their product is the number of processes.
        device: As given to `joined`.
        gathered_dtype: In which FSDP2 gathers parameters and computes, such as "bfloat16"; as they are if None.
            Gradients are reduced in float32 then.

    Raises:
        InvalidConfigError: Degrees that can never work.
        UnsupportedError: A model without a plan for tensor parallelism, or with one that is not known here.
    """
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    present = distributed.get_world_size() if distributed.is_initialized() else 1
    if reason := refusal(degrees, present, _shape(model)):
        raise InvalidConfigError(reason)
    if degrees.ranks == 1:
        return Parallel(Local(model), degrees, None)
    mesh = init_device_mesh(device.partition(":")[0], (degrees.data, degrees.tensor), mesh_dim_names=("data", "tensor"))
    _share_weights(model)
    if degrees.tensor > 1:
        tensor_parallel.apply(model, mesh["tensor"])
    return Parallel(_reduction(model, degrees, mesh["data"], gathered_dtype), degrees, mesh)


def _shape(model: Any) -> dict[str, Any]:
    inner = tensor_parallel.transformer(model)
    return inner.config.get_text_config().to_dict() if inner is not None else {}


def _share_weights(model: Any) -> None:
    from torch import distributed

    for tensor in (*model.parameters(), *model.buffers()):
        distributed.broadcast(tensor.data, src=0)


def _reduction(model: Any, degrees: Degrees, mesh: Any, gathered_dtype: str | None) -> Reduction:
    if degrees.data == 1:
        return Local(model)
    measured = degrees.tensor == 1  # DTensor waits for its own collectives out of sight
    if degrees.sharding != "none":
        return Sharded(model, mesh, degrees.sharding == "zero3", gathered_dtype, measured)
    if degrees.overlap:
        return Overlapped(model, mesh.get_group(), degrees.bucket_bytes)
    return Afterwards(model, mesh.get_group(), degrees.bucket_bytes, measured)


class Parallel:
    """A model on several processes. All ranks call the same methods in the same order: most are collectives.

    Attributes:
        model: What to call `forward` on.
        data_ranks: Into how many slices the global batch falls.
        data_rank: Which of them is this process's; the ranks of a tensor-parallel group take the same.
        tensor_ranks: How many hold a part of every layer.
    """

    def __init__(self, reduction: Reduction, degrees: Degrees, mesh: Any) -> None:
        self.model, self._reduction, self._mesh = reduction.model, reduction, mesh
        self.data_ranks = degrees.data
        self.data_rank: int = mesh["data"].get_local_rank() if mesh is not None else 0
        self.tensor_ranks, self._silent = degrees.tensor, False

    def accumulating(self) -> AbstractContextManager[None]:
        """Leave gradients unsynchronised: around forward and backward of all micro-batches but the last."""
        return self._reduction.accumulating()

    def finish_gradients(self) -> None:
        """Make the gradients those of the global batch: after the last backward, before anything reads them."""
        if self.tensor_ranks > 1:
            tensor_parallel.settle(self.model)
        self._reduction.finish()

    def sum(self, value: Any) -> Any:
        """A number or a tensor, summed over the data ranks; a number stays a float."""
        import torch
        from torch import distributed

        if self.data_ranks == 1 or self._silent:
            return value * self.data_ranks
        total = torch.as_tensor(value, dtype=None if isinstance(value, torch.Tensor) else torch.float64).clone()
        total = total.to(next(self.model.parameters()).device)
        distributed.all_reduce(total, group=self._mesh.get_group("data"))
        return total if isinstance(value, torch.Tensor) else total.item()

    def gradient_norm(self) -> float:
        """The L2 norm of the whole gradient, wherever its parts lie."""
        import torch
        from torch import distributed

        device = next(self.model.parameters()).device
        squares: dict[tuple[str, ...], Any] = {}
        for parameter in self.model.parameters():
            if not parameter.requires_grad:
                continue
            over = tensor_parallel.split_over(parameter)  # of the parameter: every rank has it, gradient or not
            square = squares.setdefault(over, torch.zeros((), device=device))
            if parameter.grad is not None:
                square += torch.linalg.vector_norm(local(parameter.grad), dtype=torch.float32) ** 2
        for over in sorted(squares):
            for dimension in over:
                distributed.all_reduce(squares[over], group=self._mesh.get_group(dimension))
        return float(torch.stack(list(squares.values())).sum().sqrt())

    @property
    def exposed_communication_s(self) -> float | None:
        """Seconds of the last step in which nothing but communication went on; None where that is not known.

        Waiting for a slower rank is part of it. Read it when the device is synchronised.
        """
        return self._reduction.exposed_s()

    def without_communication(self) -> AbstractContextManager[float] | None:
        """Steps that send nothing while it lasts, and so train nothing sensible; None where that is impossible.

        Yields 0.0, the share of the communication that is left. `sum` answers as if all ranks had the same. Afterwards
        all ranks have rank 0's weights again, but not its optimizer's states.
        """
        silent = self._reduction.silent()
        return None if silent is None else self._silence(silent)

    @contextmanager
    def _silence(self, silent: AbstractContextManager[None]) -> Iterator[float]:
        self._silent = True
        try:
            with silent:
                yield 0.0
        finally:
            self._silent = False
        _share_weights(self.model)  # not after an exception: the others may not have had it
