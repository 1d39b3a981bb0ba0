"""Which GPUs a study may have to itself: such that nobody computes on, held by a lock that dies with its holder."""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from autotuner.errors import MachineError
from autotuner.monitor import gpu

IDLE_MEMORY_BYTES = 2**30  # more than any driver keeps for itself


@contextmanager
def reserved_gpus(count: int = 1) -> Iterator[Sequence[gpu.Gpu]]:
    """Hold the first idle GPUs, and hide the others from the workers that start meanwhile.

    Raises:
        MachineError: There are not so many, or they are in use; the hint says by whom.
    """
    held: list[gpu.Gpu] = []
    busy: list[str] = []
    with ExitStack() as locks:
        for device in gpu.visible_gpus():
            if len(held) == count:
                break
            if user := _user(device):
                busy.append(f"GPU {device.index} is used by {user}")
            elif locks.enter_context(_locked(device.uuid)):
                held.append(device)
            else:
                busy.append(f"GPU {device.index} is held by another study")
        if len(held) < count:
            needed = "no GPU is free" if count == 1 else f"{count} GPUs are needed, {len(held)} are free"
            raise MachineError(f"{needed}: " + "; ".join(busy or ["there is none"]), "wait for it, or set device: cpu")
        with _only([device.uuid for device in held]):
            yield held


@contextmanager
def _locked(uuid: str) -> Iterator[bool]:
    """Whether the lock of a GPU could be had."""
    with _lock_file(uuid) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _user(device: gpu.Gpu) -> str:
    """Who computes on a GPU; empty for nobody. Containers may hide the processes, but not the memory they hold."""
    pids = gpu.processes(device.uuid)
    if pids:
        return f"process {', '.join(map(str, pids))}"
    used_bytes = gpu.used_memory_bytes(device.uuid) or 0
    hidden = pids is None and used_bytes > IDLE_MEMORY_BYTES
    return f"somebody who holds {used_bytes / 2**30:.1f} GiB of it" if hidden else ""


@contextmanager
def _lock_file(uuid: str) -> Iterator[int]:
    """One file a GPU and machine, for all users; never removed, or two holders could lock two files of one name.

    Raises:
        MachineError: It cannot be opened.
    """
    path = Path(tempfile.gettempdir()) / "autotune-locks" / f"gpu-{uuid}.lock"
    try:
        descriptor = _open_for_all(path)
    except OSError as error:
        hint = f"let everybody read and write in {path.parent}"
        raise MachineError(f"cannot open {path}: {error.strerror}", hint) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_for_all(path: Path) -> int:
    """Open a file that any user may lock; the modes are set after creating, for the umask narrows them before."""
    with suppress(FileExistsError):
        path.parent.mkdir()
        path.parent.chmod(0o1777)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except PermissionError:  # another user's; the kernel may protect it whatever its mode, and reading suffices
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with suppress(PermissionError):  # it has its mode from the user who created it
        os.fchmod(descriptor, 0o666)
    return descriptor


@contextmanager
def _only(uuids: Sequence[str]) -> Iterator[None]:
    """CUDA_VISIBLE_DEVICES for this process and its children to come."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuids)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
