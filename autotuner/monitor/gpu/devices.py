"""Which GPUs there are, which of them this process may see, and who uses them."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from autotuner.monitor.gpu import nvml
from autotuner.monitor.host import family

_DRIVER_BYTES = 512 * 2**20  # more than a driver keeps for itself: somebody is there
_REPLAY = "(replay)"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine.

    Attributes:
        index: NVML's, in the order of the PCI bus.
        uuid: Its identity, for locks and `CUDA_VISIBLE_DEVICES`.
        memory_bytes: All of it; 0 if the driver does not say.
        is_replay: No device but a stand-in that plays values back; nothing measured on it is worth anything.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    driver: str
    is_replay: bool


def made_on_replay(environment: Mapping[str, str]) -> bool:
    """Whether a fingerprint names a stand-in for a GPU: what was measured there must never be handed on."""
    return environment.get("gpu", "").endswith(_REPLAY)


def gpus() -> tuple[Gpu, ...]:
    """Every GPU that NVML shows; empty without library, driver, GPU or permission. Never raises."""
    with nvml.session() as code:
        count = nvml.ask("nvmlDeviceGetCount") if code == nvml.SUCCESS else 0
        return tuple(gpu for index in range(count or 0) if (gpu := _describe(index)))


def _describe(index: int) -> Gpu | None:
    handle = nvml.ask("nvmlDeviceGetHandleByIndex", index)
    uuid = handle and nvml.ask("nvmlDeviceGetUUID", handle)
    if not uuid:
        return None
    name = nvml.ask("nvmlDeviceGetName", handle) or "unknown"
    memory = nvml.ask("nvmlDeviceGetMemoryInfo", handle)
    driver = nvml.ask("nvmlSystemGetDriverVersion") or "unknown"
    return Gpu(index, uuid, name, memory.total if memory else 0, driver, name.endswith(_REPLAY))


def visible_gpus() -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES names by index, (part of a) UUID or MIG slice; like CUDA, up to a wrong name."""
    known = gpus()
    if (wanted := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return known
    named = (_named(name.strip(), known) for name in wanted.split(","))
    return tuple(dict.fromkeys(filter(None, takewhile(bool, named))))


def _named(name: str, known: tuple[Gpu, ...]) -> Gpu | None:
    if name.startswith("MIG-") and known:
        what = f"MIG slice {_REPLAY}" if known[0].is_replay else "MIG slice"
        return replace(known[0], uuid=name, name=what, memory_bytes=0)
    return next((gpu for gpu in known if name and (name == str(gpu.index) or gpu.uuid.startswith(name))), None)


def visible_gpu(device: str) -> Gpu | None:
    """The GPU that "cuda" or "cuda:N" is as CUDA_VISIBLE_DEVICES lets this process see it; None if there is none."""
    kind, _, ordinal = device.partition(":")
    found = visible_gpus()[int(ordinal or 0) :] if kind == "cuda" else ()
    return found[0] if found else None


def visible_uuid(device: str) -> str:
    """The UUID of `visible_gpu`; empty if there is none."""
    found = visible_gpu(device)
    return found.uuid if found else ""


def used_memory_bytes(uuid: str) -> int | None:
    """Memory in use on a GPU by whomever, without what the driver reserves where it can tell; None if unknown."""
    with nvml.device(uuid) as device:
        return used_bytes(device) if device else None


def used_bytes(device: nvml.Device) -> int | None:
    """The same of an opened device."""
    code, memory = nvml.memory_v2(device.handle)
    device.lost |= code in nvml.GONE
    memory = memory or device.ask("nvmlDeviceGetMemoryInfo")
    return int(memory.used) if memory else None


def memory_bytes_of(pids: Collection[int]) -> int:
    """What some processes hold of the GPU of which they hold most; 0 without a GPU.

    Where NVML does not know them, as in a container, it is all that is in use there: others must not be on it.
    """
    return max((_memory_bytes_of(gpu.uuid, pids) for gpu in visible_gpus()), default=0)


def _memory_bytes_of(uuid: str, pids: Collection[int]) -> int:
    with nvml.device(uuid) as device:
        if not device:
            return 0
        listed = device.ask("nvmlDeviceGetComputeRunningProcesses_v3") or ()
        own = [process.usedGpuMemory for process in listed if process.pid in pids]
        return sum(own) if own and None not in own else used_bytes(device) or 0


def processes(uuid: str) -> tuple[int, ...] | None:
    """Process ids that compute on a GPU; None if that cannot be known from here.

    NVML names processes as the host counts them. In a container the list may be empty although memory is in use, or
    name processes that do not exist here: unknown then, which is not nobody.
    """
    with nvml.device(uuid) as device:
        return _processes(device) if device else None


def _processes(device: nvml.Device) -> tuple[int, ...] | None:
    listed = device.ask("nvmlDeviceGetComputeRunningProcesses_v3")
    in_use = used_bytes(device)
    if listed is None or (not listed and (in_use is None or in_use > _DRIVER_BYTES)):
        return None
    pids = tuple(sorted(process.pid for process in listed))
    return pids if all(Path(f"/proc/{pid}").exists() for pid in pids) else None


def foreign_processes(device: nvml.Device) -> int | None:
    """How many others compute on the GPU; unknown unless one of ours is listed, under the number that we know."""
    listed = set(_processes(device) or ())
    if not listed:
        return None
    foreign = listed - family()
    return len(foreign) if len(foreign) < len(listed) else None
