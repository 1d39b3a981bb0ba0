"""A trace of a real device: every answer of NVML and GPM as it came, with its return code, for tests to replay.

JSON lines. The first is the header: device, versions, date, and the answers that do not change. Each further one is a
moment: `{"at_s": seconds since the start, "answers": {question: [return code, value…]}}`. A question is the function's
name and, after colons, its arguments; values stand in the order of NVML's structure. What identifies a device or its
owner, such as the UUID, is left out.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from autotuner.errors import MachineError
from autotuner.monitor.gpu import gpm, nvml
from autotuner.monitor.gpu.devices import Gpu

TRACE_FORMAT = "autotune-nvml-trace/1"
MIN_PERIOD_S = gpm.MIN_PERIOD_S
Answer = list[int | float]
Question = tuple[str, tuple[int, ...]]

_FIXED: tuple[Question, ...] = (
    ("nvmlDeviceGetMigMode", ()),
    ("nvmlGpmQueryDeviceSupport", ()),
    ("nvmlDeviceGetCudaComputeCapability", ()),
    ("nvmlDeviceGetEnforcedPowerLimit", ()),
    ("nvmlDeviceGetMaxClockInfo", (1,)),
    ("nvmlDeviceGetMaxClockInfo", (2,)),
)
_MOMENTARY: tuple[Question, ...] = (
    ("nvmlDeviceGetMemoryInfo", ()),
    ("nvmlDeviceGetPowerUsage", ()),
    ("nvmlDeviceGetClockInfo", (1,)),
    ("nvmlDeviceGetClockInfo", (2,)),
    ("nvmlDeviceGetTemperature", (0,)),
    ("nvmlDeviceGetUtilizationRates", ()),
    ("nvmlDeviceGetPcieThroughput", (0,)),
    ("nvmlDeviceGetPcieThroughput", (1,)),
    ("nvmlDeviceGetTotalEnergyConsumption", ()),
    ("nvmlDeviceGetCurrentClocksEventReasons", ()),
    ("nvmlDeviceGetViolationStatus", (0,)),
    ("nvmlDeviceGetViolationStatus", (1,)),
    ("nvmlDeviceGetViolationStatus", (2,)),
    ("nvmlDeviceGetTotalEccErrors", (0, 0)),
    ("nvmlDeviceGetTotalEccErrors", (1, 0)),
    ("nvmlDeviceGetComputeRunningProcesses_v3", ()),
)
_FIELDS = (74, 76, 269, 270, 271, 186, 197, 198)


def record(gpu: Gpu, seconds: float, period_s: float = MIN_PERIOD_S, load: str = "") -> Iterator[dict[str, Any]]:
    """The lines of a trace as they come: the header, then a moment each period, also of a GPU that is lost meanwhile.

    Args:
        gpu: A whole one; a slice has no power, clocks or links of its own.
        seconds: How long.
        period_s: At least 0.1 s; GPM says nothing valid on less.
        load: What runs meanwhile, for the header.

    Raises:
        MachineError: The GPU is not there any more.
    """
    if period_s < MIN_PERIOD_S or seconds <= 0:
        raise ValueError(f"{seconds} s every {period_s} s")
    with nvml.device(gpu.uuid) as device:
        if device is None or device.is_slice:
            raise MachineError(f"{gpu.name} cannot be recorded now", "name a whole GPU that nvidia-smi shows")
        yield _header(gpu, device, period_s, load)
        with gpm.opened(device) as counted:
            begun_s = time.monotonic()
            for turn in range(max(1, round(seconds / period_s))):
                time.sleep(max(0.0, begun_s + turn * period_s - time.monotonic()))
                yield {"at_s": round(time.monotonic() - begun_s, 6), "answers": _moment(device.handle, counted)}


def _header(gpu: Gpu, device: nvml.Device, period_s: float, load: str) -> dict[str, Any]:
    return {
        "format": TRACE_FORMAT,
        "name": gpu.name,
        "driver": gpu.driver,
        "nvml": nvml.ask("nvmlSystemGetNVMLVersion") or "unknown",
        "autotune": version("autotune-loop"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "period_s": period_s,
        "load": load,
        "replay": gpu.is_replay,
        "synthetic": "(synthetic)" in gpu.name,
        "answers": {_key(question): _answer(device.handle, question) for question in _FIXED},
    }


def _moment(handle: Any, counted: gpm.Gpm | None) -> dict[str, Answer]:
    code, memory = nvml.memory_v2(handle)
    answers: dict[str, Answer] = {"nvmlDeviceGetMemoryInfo_v2": [code, *_values(memory)]}
    answers |= {_key(question): _answer(handle, question) for question in _MOMENTARY}
    code, fields = nvml.fields(handle, _FIELDS)
    answers["nvmlDeviceGetFieldValues"] = [code]
    answers |= {f"nvmlDeviceGetFieldValues:{number}": [*answer] for number, answer in fields.items()}
    if counted:
        code, compared, metrics = counted.answers()
        answers["nvmlGpmSampleGet"] = [code]
        if compared is not None:
            answers["nvmlGpmMetricsGet"] = [compared]
        answers |= {f"nvmlGpmMetricsGet:{metric}": [*answer] for metric, answer in metrics.items()}
    return answers


def _key(question: Question) -> str:
    return ":".join([question[0], *map(str, question[1])])


def _answer(handle: Any, question: Question) -> Answer:
    code, value = nvml.call(question[0], handle, *question[1])
    return [code, *_values(value)]


def _values(value: Any) -> Answer:
    """The numbers of an answer: itself, those of a list, or those of NVML's structure (not available is 2^64 - 1)."""
    if value is None:
        return []
    if isinstance(value, int | float):
        return [value]
    if isinstance(value, list | tuple):
        return [number for item in value for number in _values(item)]
    names = [name for name, *_ in value._fields_] if hasattr(value, "_fields_") else list(vars(value))
    return [2**64 - 1 if (number := getattr(value, name)) is None else number for name in names]
