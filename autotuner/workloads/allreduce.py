"""All-reduce between two processes of this host: gloo over the loopback on a CPU, NCCL between two GPUs.

This module is also the second process: `python -m autotuner.workloads.allreduce BACKEND STORE`, which sums up what it
is told to on its standard input, a line "BYTES COUNT" at a time, until that is closed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from autotuner.errors import UnsupportedError
from autotuner.plugins import Step
from autotuner.types import Config
from autotuner.workloads.operation import Run

_JOIN_LIMIT_S = 60  # the other process imports torch first
_END_LIMIT_S = 10
_BATCH_BYTES, _LARGEST_BATCH = 2**22, 50  # small messages in batches, so that the word to begin costs nothing


@contextmanager
def between_two(device: str) -> Iterator[Run]:
    """Sum up messages of `message_bytes` over two processes; counts operations, and the bytes of the messages.

    Raises:
        UnsupportedError: A GPU that has no second one beside it.
    """
    backend = _backend(device)
    with tempfile.TemporaryDirectory(prefix="autotune-allreduce-") as folder, _on_the_loopback():
        store = Path(folder) / "store"
        with _other_process(backend, store) as orders:
            messages = _join(0, backend, store)
            try:
                yield lambda config: _step(messages, orders, config)
            finally:
                orders.close()  # first: NCCL's end waits for the other's
                _leave()


def _step(messages: "Messages", orders: IO[bytes], config: Config) -> Step:
    message_bytes = int(config.get("message_bytes") or 8)
    count = min(max(1, _BATCH_BYTES // message_bytes), _LARGEST_BATCH)
    orders.write(f"{message_bytes} {count}\n".encode())
    messages.reduce(message_bytes, count)
    return Step(work={"operations": float(count), "bytes": float(count * message_bytes)})


def _backend(device: str) -> str:
    import torch

    if device.partition(":")[0] != "cuda":
        return "gloo"
    if torch.cuda.device_count() < 2:
        raise UnsupportedError("an all-reduce between GPUs needs two of them")
    return "nccl"


@contextmanager
def _on_the_loopback() -> Iterator[None]:
    """Let gloo use the loopback: by itself it asks for the address of this host's name, which may have none."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        yield
    finally:
        if before is None:
            del os.environ["GLOO_SOCKET_IFNAME"]


@contextmanager
def _other_process(backend: str, store: Path) -> Iterator[IO[bytes]]:
    """A fresh interpreter: this process may have threads, and a GPU, that do not survive a fork."""
    argv = [sys.executable, "-m", "autotuner.workloads.allreduce", backend, str(store)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment, bufsize=0) as process:
        assert process.stdin is not None
        try:
            yield process.stdin
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_LIMIT_S)
        finally:
            process.kill()  # nothing to a process that has ended


class Messages:
    """Zeros of any size, on this process's device; their sum stays zero however often it is taken."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._known: dict[int, Any] = {}

    def reduce(self, message_bytes: int, count: int) -> None:
        """Sum up one message `count` times, and wait for the last."""
        import torch
        from torch import distributed

        if message_bytes not in self._known:
            self._known = {message_bytes: torch.zeros(max(1, message_bytes // 4), device=self._device)}
        for _ in range(count):
            distributed.all_reduce(self._known[message_bytes])
        if self._device != "cpu":
            torch.cuda.synchronize(self._device)


def _join(rank: int, backend: str, store: Path) -> Messages:
    import torch
    from torch import distributed

    if backend == "nccl":
        torch.cuda.set_device(rank)
    limit = timedelta(seconds=_JOIN_LIMIT_S)
    distributed.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=2, timeout=limit)
    return Messages("cpu" if backend == "gloo" else f"cuda:{rank}")


def _leave() -> None:
    from torch import distributed

    distributed.destroy_process_group()


def _serve(backend: str, store: Path) -> None:
    """The second process."""
    messages = _join(1, backend, store)
    for order in sys.stdin:
        message_bytes, count = map(int, order.split())
        messages.reduce(message_bytes, count)
    _leave()


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
