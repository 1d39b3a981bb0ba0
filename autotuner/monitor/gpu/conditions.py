"""What stands between us and a GPU's signals: each bad case by name, in one sentence, with its mend."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner.monitor.gpu import gpm, nvml
from autotuner.monitor.gpu.devices import gpus, visible_uuid

_NVIDIA_PCI_VENDOR = "0x10de"
_DRIVER_MEND = "install NVIDIA's driver, or load it with modprobe nvidia, until nvidia-smi works"
# What a driver of 535 or later can tell, and an older one cannot.
_NEEDED = {
    "nvmlDeviceGetComputeRunningProcesses_v3": "which processes use it",
    "nvmlDeviceGetCurrentClocksEventReasons": "why its clocks are held back",
    "nvmlGpmQueryDeviceSupport": "how busy its SMs and its memory are",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing about a GPU, or about the way to it, that a person should know.

    Attributes:
        name: `no_library`, `no_driver`, `version_mismatch`, `no_permission`, `nvml_failed`, `no_gpu`, `gpu_lost`,
            `reset_required`, `gpu_failed`, `replay`, `mig_slice`, `old_driver`, `gpm_unsupported`,
            `gpm_not_permitted`; from `state` also `ready`.
        sentence: What it is.
        mend: What to do about it; empty when there is nothing to mend.
    """

    name: str
    sentence: str
    mend: str = ""


def conditions() -> tuple[Condition, ...]:
    """Everything that keeps signals away, GPU by GPU, the worst first; empty when all are there. Never raises."""
    with nvml.session() as code:
        if code != nvml.SUCCESS:
            return (_without_nvml(code),)
        count = nvml.ask("nvmlDeviceGetCount") or 0
        handles = [nvml.call("nvmlDeviceGetHandleByIndex", index) for index in range(count)]
        found = [seen for index, (code, card) in enumerate(handles) for seen in _of_card(f"GPU {index}", code, card)]
    return tuple(found) if handles else (Condition("no_gpu", "NVML works and shows no GPU", "give this user a GPU"),)


def state(device: str) -> Condition:
    """The worst condition of one GPU, or `ready`. Never raises.

    Args:
        device: A UUID, of a MIG slice too, or "cuda" or "cuda:N" as CUDA_VISIBLE_DEVICES lets this process see it.
    """
    with nvml.session() as code:
        if code != nvml.SUCCESS:
            return _without_nvml(code)
        uuid = visible_uuid(device) if device.partition(":")[0] == "cuda" else device
        if not uuid:
            hidden = Condition("no_gpu", f"CUDA_VISIBLE_DEVICES names no GPU as {device}", "unset it, or name another")
            return hidden if gpus() else next(iter(conditions()), hidden)
        code, handle = nvml.call("nvmlDeviceGetHandleByUUID", uuid)
        if code == nvml.SUCCESS and uuid.startswith("MIG-"):
            return _slice(f"{uuid} is a MIG slice")
        return next(_of_card(uuid, code, handle), Condition("ready", f"{uuid} answers every question"))


def _without_nvml(code: int) -> Condition:
    match code:
        case nvml.LIBRARY_NOT_FOUND:
            return _without_library()
        case nvml.DRIVER_NOT_LOADED:
            return Condition("no_driver", "NVML is there, but NVIDIA's driver is not loaded", _DRIVER_MEND)
        case nvml.VERSION_MISMATCH:
            text = "NVML's library and the loaded driver are of different versions, as after an update"
            return Condition("version_mismatch", text, "restart the machine, or reload the driver's modules")
        case nvml.NO_PERMISSION:
            text = "this user may not talk to NVIDIA's driver"
            return Condition("no_permission", text, "let it read and write /dev/nvidia*")
    return Condition("nvml_failed", f"NVML does not start: {nvml.message(code)}", _DRIVER_MEND)


def _without_library() -> Condition:
    if Path("/dev/nvidiactl").exists():
        text = "there is a driver, but its library libnvidia-ml.so.1 is not here"
        return Condition("no_library", text, "start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    if _NVIDIA_PCI_VENDOR in _pci_vendors():
        return Condition("no_library", "there is an NVIDIA device, but neither its driver nor NVML", _DRIVER_MEND)
    return Condition("no_library", "there is no NVIDIA GPU and no driver: only the CPU can be tuned")


def _pci_vendors() -> set[str]:
    with suppress(OSError):
        return {path.read_text().strip() for path in Path("/sys/bus/pci/devices").glob("*/vendor")}
    return set()


def _of_card(name: str, code: int, card: Any) -> Iterator[Condition]:
    """What is wrong with one GPU; without an answer from it nothing else can be said."""
    if code == nvml.SUCCESS:
        code, _ = nvml.call("nvmlDeviceGetMemoryInfo", card)  # a handle outlives its GPU
    if code not in (nvml.SUCCESS, nvml.NOT_SUPPORTED):
        yield _silent(name, code)
        return
    product = nvml.ask("nvmlDeviceGetName", card) or "unknown"
    what = f"{name}, {product},"
    if product.endswith("(replay)"):
        yield Condition("replay", f"{what} only plays values back: nothing that it measures may be used",
                        "take the replay library out of LD_LIBRARY_PATH")  # fmt: skip
    mode = nvml.ask("nvmlDeviceGetMigMode", card)
    if mode and mode[0]:
        yield _slice(f"{what} is divided into MIG slices")
    yield from _old_driver(what, card)
    yield from () if mode and mode[0] else _gpm(what, card)


def _silent(name: str, code: int) -> Condition:
    match code:
        case nvml.NOT_FOUND:
            return Condition("no_gpu", f"there is no {name}", "name one that nvidia-smi -L shows")
        case nvml.GPU_IS_LOST:
            text = f"{name} is lost: it fell off the bus, or the driver gave it up"
            return Condition("gpu_lost", text, "look for Xid in dmesg; reset it with nvidia-smi -r, or restart")
        case nvml.RESET_REQUIRED:
            text = f"{name} must be reset before it can be used again"
            return Condition("reset_required", text, "nvidia-smi -r when nobody uses it, or restart the machine")
        case nvml.NO_PERMISSION:
            return Condition("no_permission", f"this user may not use {name}", "let it read and write /dev/nvidia*")
    return Condition("gpu_failed", f"{name} does not answer: {nvml.message(code)}", "see nvidia-smi and dmesg")


def _slice(what: str) -> Condition:
    return Condition("mig_slice", f"{what}: power, energy, PCIe and busy time are the whole card's and left out")


def _old_driver(what: str, card: Any) -> Iterator[Condition]:
    missing = [text for name, text in _NEEDED.items() if nvml.call(name, card)[0] == nvml.FUNCTION_NOT_FOUND]
    if missing:
        driver = nvml.ask("nvmlSystemGetDriverVersion") or "unknown"
        text = f"{what} has a driver, {driver}, that is too old to say {', '.join(missing)}"
        yield Condition("old_driver", text, "install driver 535 or later")


def _gpm(what: str, card: Any) -> Iterator[Condition]:
    match gpm.sample_code(nvml.Device(card, card)):
        case nvml.NOT_SUPPORTED:
            text = f"{what} cannot tell how busy SMs and memory are while it runs: GPM came with Hopper"
            yield Condition("gpm_unsupported", text, "autotune profile asks ncu for it, where that is installed")
        case nvml.NO_PERMISSION:
            text = f"{what} does not tell this user how busy its SMs and its memory are"
            mend = "run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0"
            yield Condition("gpm_not_permitted", text, mend)
