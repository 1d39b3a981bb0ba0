"""GPUs, their driver against torch's CUDA, and the network between machines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from autotuner.doctor.cpu import ROOT, read
from autotuner.doctor.finding import Finding, Level
from autotuner.monitor import gpu
from autotuner.monitor.gpu import Condition, nvml

# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes, "minimum driver version for minor version compatibility".
_OLDEST_DRIVER: Mapping[int, tuple[int, ...]] = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580, 65, 6)}
_OUT_OF_ORDER = {"version_mismatch", "no_permission", "nvml_failed", "gpu_lost", "reset_required", "gpu_failed"}
_HELD_BACK = (  # NVML_CLOCKS_EVENT_REASON_*
    (0x20 | 0x40, "it is too hot", "check its fans and the air in front of it, and measure again"),
    (0x80, "its power supply asks for it", "check power cables and supply"),
)
_ABSENT = {"no_library", "no_driver", "no_gpu"}


def gpus(found: Sequence[Condition], device: str) -> Iterator[Finding]:
    """What keeps a GPU, or its signals, away; it stops measuring only where the GPU is to be measured.

    Args:
        found: What `monitor.gpu.conditions` says.
        device: "cpu" or "cuda".
    """
    for condition in found:
        if condition.name in _OUT_OF_ORDER:
            level = Level.STOPS if device != "cpu" else Level.ADVICE
        elif condition.name in _ABSENT and device != "cpu":
            level = Level.STOPS
        else:
            level = Level.ADVICE if condition.mend else Level.INFO
        yield Finding(level, condition.name, condition.sentence, condition.mend)


@dataclass(frozen=True, slots=True)
class Card:
    """What a GPU is set to; None where it does not say.

    Attributes:
        name: `GPU 0`.
        is_persistent: The driver keeps it initialised when nobody uses it.
        event_reasons: NVML's bits of why its clocks are held back at this moment.
        power_limit_w: What it may draw.
        default_power_limit_w: What it may draw as it was sold.
    """

    name: str
    is_persistent: bool | None
    event_reasons: int | None
    power_limit_w: float | None
    default_power_limit_w: float | None


def cards() -> tuple[Card, ...]:
    """Every GPU that this process may see. Never raises."""
    found = []
    for each in gpu.visible_gpus():
        with nvml.device(each.uuid) as device:
            if device is not None:
                found.append(_card(f"GPU {each.index}", device))
    return tuple(found)


def _card(name: str, device: nvml.Device) -> Card:
    persistent = device.ask_card("nvmlDeviceGetPersistenceMode")
    limits_mw = [device.ask_card(f"nvmlDeviceGetPowerManagement{which}Limit") for which in ("", "Default")]
    return Card(
        name,
        None if persistent is None else bool(persistent),
        device.ask_card("nvmlDeviceGetCurrentClocksEventReasons"),
        *(None if limit is None else limit / 1e3 for limit in limits_mw),
    )


def settings(card: Card) -> Iterator[Finding]:
    """A GPU that is not kept ready, is held back now, or may draw less than it could."""
    if card.is_persistent is False:
        text = f"{card.name} is not in persistence mode: the first process after a pause waits for the driver"
        yield Finding(Level.ADVICE, "persistence", text, "sudo nvidia-smi -pm 1, or run nvidia-persistenced")
    for bits, text, mend in _HELD_BACK:
        if (card.event_reasons or 0) & bits:
            yield Finding(Level.ADVICE, "throttled", f"{card.name} is held back now: {text}", mend)
    limit_w, default_w = card.power_limit_w, card.default_power_limit_w
    if limit_w and default_w and limit_w < 0.99 * default_w:
        text = f"{card.name} may draw {limit_w:.0f} W of the {default_w:.0f} W that it was sold with"
        yield Finding(Level.INFO, "power_limit", text)


def driver(environment: Mapping[str, str], has_gpu: bool, device: str) -> Iterator[Finding]:
    """A driver that is too old for the CUDA that torch was built with, or a torch without CUDA beside a GPU.

    Args:
        environment: The fingerprint: `driver` and `cuda`.
        has_gpu: There is one.
        device: "cpu" or "cuda".
    """
    level = Level.STOPS if device != "cpu" else Level.ADVICE
    if not has_gpu:
        return
    if "cuda" not in environment:
        text = f"torch {environment.get('torch', '')} was built without CUDA: the GPU stays idle"
        yield Finding(level, "torch_without_cuda", text, "install torch's build for CUDA, see pytorch.org")
        return
    oldest = _OLDEST_DRIVER.get(int(environment["cuda"].partition(".")[0]))
    installed = environment.get("driver", "")
    if oldest and installed[:1].isdigit() and _version(installed) < oldest:
        needed = ".".join(map(str, oldest))
        text = f"driver {installed} is too old for torch's CUDA {environment['cuda']}, which needs {needed}"
        yield Finding(level, "driver", text, f"install driver {needed} or later, or torch for an older CUDA")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def fabric(root: Path = ROOT) -> Iterator[Finding]:
    """InfiniBand and RoCE ports, and which of them are up."""
    for port in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        state, rate = read(port / "state"), read(port / "rate")
        name = f"{port.parent.parent.name} port {port.name}"
        text = f"RDMA: {name} is {state.rpartition(': ')[2].lower() or 'unknown'}, {rate or 'of unknown rate'}"
        yield Finding(Level.INFO, "rdma", text)


def telemetry(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Where traces and metrics go; of the address only what is no secret."""
    if endpoint := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        parts = urlsplit(endpoint)
        where = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
        yield Finding(Level.INFO, "telemetry", f"traces, metrics and logs go to {where}")
