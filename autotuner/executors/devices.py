"""Which GPU a study may have to itself: one that nobody computes on, held by a lock that dies with its holder."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autotuner.errors import MachineError
from autotuner.monitor import gpu

IDLE_MEMORY_BYTES = 2**30  # more than any driver keeps for itself


@contextmanager
def reserved_gpu() -> Iterator[gpu.Gpu]:
    """Hold the first idle GPU, and hide the others from the workers that start meanwhile.

    Raises:
        MachineError: There is none, or every one is in use; the hint says by whom.
    """
    busy: list[str] = []
    for device in _visible():
        if user := _user(device):
            busy.append(f"GPU {device.index} is used by {user}")
            continue
        with _lock(device.uuid).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy.append(f"GPU {device.index} is held by another study")
                continue
            with _only(device.uuid):
                yield device
            return
    raise MachineError("no GPU is free: " + "; ".join(busy or ["there is none"]), "wait for it, or set device: cpu")


def _user(device: gpu.Gpu) -> str:
    """Who computes on a GPU; empty for nobody. Containers may hide the processes, but not the memory they hold."""
    pids = gpu.processes(device.uuid)
    if pids:
        return f"process {', '.join(map(str, pids))}"
    used_bytes = gpu.used_memory_bytes(device.uuid) or 0
    hidden = pids is None and used_bytes > IDLE_MEMORY_BYTES
    return f"somebody who holds {used_bytes / 2**30:.1f} GiB of it" if hidden else ""


def _visible() -> list[gpu.Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, by index or UUID."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = list(gpu.gpus())
    if wanted is None:
        return every
    names = [name.strip() for name in wanted.split(",")]
    return [device for device in every if str(device.index) in names or device.uuid in names]


def _lock(uuid: str) -> Path:
    """One file a GPU and machine; never removed, or two holders could lock two files of one name."""
    folder = Path(tempfile.gettempdir()) / "autotune-locks"
    folder.mkdir(mode=0o1777, exist_ok=True)
    return folder / f"gpu-{uuid}.lock"


@contextmanager
def _only(uuid: str) -> Iterator[None]:
    """CUDA_VISIBLE_DEVICES for this process and its children to come."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = uuid
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
