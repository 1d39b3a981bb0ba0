"""A GPU's signals as metrics, under the names of OpenTelemetry's conventions for hardware."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from autotuner import telemetry
from autotuner.monitor.gpu import Gpu
from autotuner.telemetry import Attributes
from autotuner.types import Measurement

Instrument: TypeAlias = Callable[..., None]


@dataclass(frozen=True, slots=True)
class _Signal:
    """How a signal of the GPU's probe leaves the house; rates leave as amounts, over the timed window."""

    record: Instrument
    name: str
    unit: str
    attributes: Attributes = field(default_factory=dict)


_GPU: Attributes = {"hw.type": "gpu"}
_SIGNALS: Mapping[str, _Signal] = {
    "power_w": _Signal(telemetry.gauge, "hw.power", "W", _GPU),
    "gpu_energy_j": _Signal(telemetry.count, "hw.energy", "J", _GPU),
    "temperature_celsius": _Signal(telemetry.gauge, "hw.temperature", "Cel", _GPU),
    "ecc_corrected_errors": _Signal(telemetry.count, "hw.errors", "{error}", {**_GPU, "error.type": "corrected"}),
    "ecc_uncorrected_errors": _Signal(telemetry.count, "hw.errors", "{error}", {**_GPU, "error.type": "uncorrected"}),
    "memory_used_bytes": _Signal(telemetry.level, "hw.gpu.memory.usage", "By"),
    "gpu_busy_ratio": _Signal(telemetry.gauge, "hw.gpu.utilization", "1", {"hw.gpu.task": "general"}),
    "pcie_tx_bytes_per_s": _Signal(telemetry.count, "hw.gpu.io", "By", {"network.io.direction": "transmit"}),
    "pcie_rx_bytes_per_s": _Signal(telemetry.count, "hw.gpu.io", "By", {"network.io.direction": "receive"}),
    "nvlink_tx_bytes_per_s": _Signal(
        telemetry.count, "autotune.gpu.nvlink.io", "By", {"network.io.direction": "transmit"}
    ),
    "nvlink_rx_bytes_per_s": _Signal(
        telemetry.count, "autotune.gpu.nvlink.io", "By", {"network.io.direction": "receive"}
    ),
    "sm_occupancy_ratio": _Signal(telemetry.gauge, "autotune.gpu.occupancy", "1"),
    **{
        f"{unit}_busy_ratio": _Signal(telemetry.gauge, "autotune.gpu.utilization", "1", {"autotune.gpu.unit": unit})
        for unit in ("sm", "tensor", "dram", "fp32", "fp16")
    },
    **{
        f"{unit}_clock_hz": _Signal(telemetry.gauge, "autotune.gpu.clock", "Hz", {"autotune.gpu.unit": unit})
        for unit in ("sm", "memory")
    },
    **{
        f"throttle_{reason}_ratio": _Signal(
            telemetry.gauge, "autotune.gpu.throttled", "1", {"autotune.gpu.throttle.reason": reason}
        )
        for reason in ("power_cap", "sync_boost", "thermal", "brake")
    },
}


def record_gpu(measured: Measurement, find: Callable[[], Gpu | None]) -> None:
    """What the probes saw of the GPU in the timed window; nothing when they saw none, or nobody knows which it was."""
    seen = {name: value for name, value in measured.telemetry.items() if name in _SIGNALS}
    if not seen or (gpu := find()) is None:
        return
    identity: Attributes = {
        "hw.id": gpu.uuid, "hw.name": gpu.name, "hw.vendor": "NVIDIA", "hw.driver_version": gpu.driver,
    }  # fmt: skip
    for name, value in seen.items():
        signal = _SIGNALS[name]
        amount = value * measured.duration_s if name.endswith("_bytes_per_s") else value
        signal.record(signal.name, amount, unit=signal.unit, attributes={**identity, **signal.attributes})
    lost = bool(measured.telemetry.get("gpu_lost"))
    for state, holds in (("ok", not lost), ("failed", lost)):
        telemetry.level("hw.status", float(holds), "1", {**identity, **_GPU, "hw.state": state})
    if gpu.memory_bytes:
        telemetry.level("hw.gpu.memory.limit", gpu.memory_bytes, "By", identity)
        used_bytes = seen.get("memory_used_bytes", math.nan)
        telemetry.gauge("hw.gpu.memory.utilization", used_bytes / gpu.memory_bytes, "1", identity)
