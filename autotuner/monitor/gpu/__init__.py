"""NVIDIA GPUs through NVML: what there is, who uses it, and what they did during a window. The only door to pynvml.

NVML answers for each signal on its own: a signal that this GPU, driver, MIG slice or container does not offer is
absent, and a GPU that is lost in the middle stops answering. Nothing here raises because of a device.

NVML counts GPUs in the order of the PCI bus, CUDA only with CUDA_DEVICE_ORDER=PCI_BUS_ID: name unlike GPUs by UUID.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from autotuner.metrics import median
from autotuner.monitor.host import family
from autotuner.plugins import Probe
from autotuner.types import Metrics

SAMPLING_PERIOD_S = 0.2
MIN_ENERGY_WINDOW_S = 1.0  # the counter moves every 20 to 100 ms
_DRIVER_BYTES = 512 * 2**20  # more than a driver keeps for itself: somebody is there
_JOIN_LIMIT_S = 2.0  # a wedged driver must not hold the worker; the thread is a daemon

# Fields of nvml.h. The throttle counters (ns) miss nothing over a window; polling the bit mask would.
_POWER_CAP, _SW_THERMAL, _HW_THERMAL, _POWER_BRAKE, _POWER_INSTANT = 74, 269, 270, 271, 186
_FIELD_TYPES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by nvmlValueType_t


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


def _ask(function: Callable[..., Any], *arguments: object) -> Any:
    """What NVML answers, or None: not supported, not permitted, not in this library, GPU lost."""
    import pynvml

    try:
        return function(*arguments)
    except pynvml.NVMLError:
        return None


@contextmanager
def _session() -> Iterator[bool]:
    """NVML initialised for the block; False without its library, a loaded driver or the permission."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        _ask(pynvml.nvmlShutdown)


@contextmanager
def _handle(uuid: str) -> Iterator[Any]:
    """NVML's handle of a GPU or MIG slice; None if there is no such device now."""
    import pynvml

    with _session() as ready:
        yield _ask(pynvml.nvmlDeviceGetHandleByUUID, uuid) if ready and uuid else None


def gpus() -> tuple[Gpu, ...]:
    """Every GPU that NVML shows; empty without library, driver, GPU or permission. Never raises."""
    import pynvml

    with _session() as ready:
        count = _ask(pynvml.nvmlDeviceGetCount) if ready else 0
        return tuple(gpu for index in range(count or 0) if (gpu := _describe(index)))


def _describe(index: int) -> Gpu | None:
    import pynvml

    handle = _ask(pynvml.nvmlDeviceGetHandleByIndex, index)
    uuid = handle and _ask(pynvml.nvmlDeviceGetUUID, handle)
    if not uuid:
        return None
    name = _ask(pynvml.nvmlDeviceGetName, handle) or "unknown"
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    driver = _ask(pynvml.nvmlSystemGetDriverVersion) or "unknown"
    return Gpu(index, uuid, name, memory.total if memory else 0, driver, name.endswith("(replay)"))


def visible_gpus() -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES names by index, (part of a) UUID or MIG slice; like CUDA, up to a wrong name."""
    known = gpus()
    if (wanted := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return known
    named = (_named(name.strip(), known) for name in wanted.split(","))
    return tuple(dict.fromkeys(filter(None, takewhile(bool, named))))


def _named(name: str, known: tuple[Gpu, ...]) -> Gpu | None:
    if name.startswith("MIG-") and known:
        return replace(known[0], uuid=name, name="MIG slice", memory_bytes=0)
    return next((gpu for gpu in known if name and (name == str(gpu.index) or gpu.uuid.startswith(name))), None)


def visible_uuid(device: str) -> str:
    """The UUID of "cuda" or "cuda:N" as CUDA_VISIBLE_DEVICES lets this process see it; empty if there is none."""
    kind, _, ordinal = device.partition(":")
    found = visible_gpus()[int(ordinal or 0) :] if kind == "cuda" else ()
    return found[0].uuid if found else ""


def used_memory_bytes(uuid: str) -> int | None:
    """Memory in use on a GPU by whomever, without what the driver reserves where it can tell; None if unknown."""
    with _handle(uuid) as handle:
        return _used_memory_bytes(handle) if handle else None


def _used_memory_bytes(handle: Any) -> int | None:
    import pynvml

    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    memory = memory or _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return int(memory.used) if memory else None


def processes(uuid: str) -> tuple[int, ...] | None:
    """Process ids that compute on a GPU; None if that cannot be known from here.

    NVML names processes as the host counts them. In a container the list may be empty although memory is in use, or
    name processes that do not exist here: unknown then, which is not nobody.
    """
    with _handle(uuid) as handle:
        return _processes(handle) if handle else None


def _processes(handle: Any) -> tuple[int, ...] | None:
    import pynvml

    listed = _ask(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    used_bytes = _used_memory_bytes(handle)
    if listed is None or (not listed and (used_bytes is None or used_bytes > _DRIVER_BYTES)):
        return None
    pids = tuple(sorted(process.pid for process in listed))
    return pids if all(Path(f"/proc/{pid}").exists() for pid in pids) else None


def _foreign_processes(handle: Any) -> int | None:
    """How many others compute on the GPU; unknown unless one of ours is listed, under the number that we know."""
    listed = set(_processes(handle) or ())
    foreign = listed - family()
    return len(foreign) if len(foreign) < len(listed) else None


def _fields(handle: Any, *numbers: int) -> dict[int, float]:
    """Those of the field values that this GPU has."""
    import pynvml

    values = _ask(pynvml.nvmlDeviceGetFieldValues, handle, list(numbers)) or ()
    return {v.fieldId: float(getattr(v.value, _FIELD_TYPES[v.valueType])) for v in values if v.nvmlReturn == 0}


def _present(**signals: float | None) -> dict[str, float]:
    return {name: value for name, value in signals.items() if value is not None}


def _scaled(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor


def _sample(handle: Any) -> dict[str, float]:
    """The signals that only exist at a moment."""
    import pynvml

    power_mw = _fields(handle, _POWER_INSTANT).get(_POWER_INSTANT) or _ask(pynvml.nvmlDeviceGetPowerUsage, handle)
    return _present(
        power_w=_scaled(power_mw, 1e-3),
        sm_clock_hz=_scaled(_ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM), 1e6),
        memory_used_bytes=_used_memory_bytes(handle),
        temperature_celsius=_ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
    )


def _counters(handle: Any) -> dict[str, float]:
    """The signals that grow: seconds throttled by reason, joules since the driver was loaded."""
    import pynvml

    spent_ns = _fields(handle, _POWER_CAP, _SW_THERMAL, _HW_THERMAL, _POWER_BRAKE)
    return {f"throttled_{number}_s": value * 1e-9 for number, value in spent_ns.items()} | _present(
        energy_j=_scaled(_ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle), 1e-3)
    )


def _window(before: Mapping[str, float], after: Mapping[str, float], wall_s: float) -> dict[str, float]:
    """Counters as signals of the window; what stepped back is left out, for the driver was loaded anew."""
    grown = {name: after[name] - before[name] for name in before.keys() & after.keys() if after[name] >= before[name]}
    shares = {name: min(1.0, seconds / wall_s) for name, seconds in grown.items() if name.startswith("throttled")}
    thermal = [shares[name] for name in (f"throttled_{n}_s" for n in (_SW_THERMAL, _HW_THERMAL)) if name in shares]
    return _present(
        throttle_power_cap_ratio=shares.get(f"throttled_{_POWER_CAP}_s"),
        throttle_thermal_ratio=max(thermal, default=None),
        throttle_brake_ratio=shares.get(f"throttled_{_POWER_BRAKE}_s"),
        gpu_energy_j=grown.get("energy_j") if wall_s >= MIN_ENERGY_WINDOW_S else None,
    )


class GpuReader:
    """Signals of one GPU between the last read, or the opening, and now; `sample` belongs to its thread."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._at_s, self._before = time.monotonic(), _counters(handle)

    def sample(self, stop: threading.Event) -> None:
        """Sample until `stop` is set."""
        while not stop.wait(SAMPLING_PERIOD_S):
            seen = _sample(self._handle)
            with self._lock:
                for name, value in seen.items():
                    self._samples[name].append(value)

    def read(self) -> Metrics:
        """Mean `power_w`, median `sm_clock_hz`, largest `memory_used_bytes` and `temperature_celsius`.

        Shares of the window in which clocks were held back: `throttle_power_cap_ratio` (normal under load),
        `throttle_thermal_ratio` (the larger of software's and hardware's), `throttle_brake_ratio`. `gpu_energy_j`
        over windows of at least a second. `gpu_foreign_processes`: others that compute on it, if that can be known.
        """
        with self._lock:
            samples, self._samples = self._samples, defaultdict(list)
        before, began_s = self._before, self._at_s
        self._at_s, self._before = time.monotonic(), _counters(self._handle)
        reductions = {"power_w": lambda seen: sum(seen) / len(seen), "sm_clock_hz": median}
        sampled = {name: float(reductions.get(name, max)(values)) for name, values in samples.items()}
        window = _window(before, self._before, max(self._at_s - began_s, 1e-9))
        return sampled | window | _present(gpu_foreign_processes=_foreign_processes(self._handle))


class _NothingToSee:
    """The reader where there is no GPU."""

    def read(self) -> Metrics:
        return {}


class GpuProbe(Probe):
    """Observes the first visible GPU: counters over the window, and a thread at 5 Hz for the rest."""

    kind: Literal["gpu"] = "gpu"

    @contextmanager
    def open(self, device: str) -> Iterator[GpuReader | _NothingToSee]:
        """Start observing `device`; on a CPU, or without NVML, there is nothing to see."""
        uuid = visible_uuid(device)
        with _handle(uuid) as handle:
            if handle is None:
                yield _NothingToSee()
                return
            reader, stop = GpuReader(handle), threading.Event()
            thread = threading.Thread(target=reader.sample, args=(stop,), name="autotune-gpu", daemon=True)
            thread.start()
            try:
                yield reader
            finally:
                stop.set()
                thread.join(_JOIN_LIMIT_S)


def throttling(metrics: Metrics) -> str:
    """One sentence on why the GPU could not do what it can; empty when nothing held it back but its power limit."""
    reasons = {"thermal": "the GPU was too hot for its clocks", "brake": "the power supply slowed the GPU down"}
    for name, text in reasons.items():
        if (ratio := metrics.get(f"throttle_{name}_ratio", 0.0)) > 0:
            return f"{text} {ratio:.1%} of the time"
    if foreign := int(metrics.get("gpu_foreign_processes", 0)):
        return f"{foreign} other {'process' if foreign == 1 else 'processes'} used the GPU"
    return ""
