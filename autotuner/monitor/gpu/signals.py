"""What NVML can tell of one GPU: signals of a moment, counters that grow, and what a window makes of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.metrics import median
from autotuner.monitor.gpu import nvml
from autotuner.monitor.gpu.devices import used_bytes

MIN_ENERGY_WINDOW_S = 1.0  # the counter moves every 20 to 100 ms
_POWER_INSTANT, _PCIE_TX_BYTES, _PCIE_RX_BYTES = 186, 197, 198  # fields of nvml.h
_SM_CLOCK, _MEMORY_CLOCK, _GPU_TEMPERATURE = 1, 2, 0
_CORRECTED, _UNCORRECTED, _VOLATILE = 0, 1, 0
_PCIE_TX, _PCIE_RX = 0, 1


@dataclass(frozen=True, slots=True)
class Reason:
    """Why clocks are held back, and how drivers of three ages tell.

    Attributes:
        name: As in `throttle_NAME_ratio`.
        fields: Field values that count nanoseconds; they miss nothing over a window.
        policy: NVML_PERF_POLICY_* of nvmlDeviceGetViolationStatus, nanoseconds too; None if it has none.
        bits: Of nvmlDeviceGetCurrentClocksEventReasons; true of a moment only.
    """

    name: str
    fields: tuple[int, ...]
    policy: int | None
    bits: int


REASONS = (
    Reason("power_cap", (74,), 0, 0x04),
    Reason("sync_boost", (76,), 2, 0x10),
    Reason("thermal", (269, 270), 1, 0x20 | 0x40),  # by software, by hardware: the larger counts, for they overlap
    Reason("brake", (271,), None, 0x80),
)
_COUNTER_FIELDS = (*(number for reason in REASONS for number in reason.fields), _PCIE_TX_BYTES, _PCIE_RX_BYTES)


def present(**signals: float | None) -> dict[str, float]:
    """Those that are known."""
    return {name: float(value) for name, value in signals.items() if value is not None}


def _scaled(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor


def sample(device: nvml.Device) -> dict[str, float]:
    """The signals of a moment, in SI units; power and busy time of a slice are nobody's."""
    seen = present(
        sm_clock_hz=_scaled(device.ask_card("nvmlDeviceGetClockInfo", _SM_CLOCK), 1e6),
        memory_clock_hz=_scaled(device.ask_card("nvmlDeviceGetClockInfo", _MEMORY_CLOCK), 1e6),
        memory_used_bytes=used_bytes(device),
        temperature_celsius=device.ask_card("nvmlDeviceGetTemperature", _GPU_TEMPERATURE),
    )
    if device.is_slice:
        return seen
    power_mw = device.fields(_POWER_INSTANT).get(_POWER_INSTANT) or device.ask("nvmlDeviceGetPowerUsage")
    rates = device.ask("nvmlDeviceGetUtilizationRates")
    return seen | present(power_w=_scaled(power_mw, 1e-3), gpu_busy_ratio=_scaled(rates.gpu if rates else None, 0.01))


def sample_reasons(device: nvml.Device, reasons: tuple[Reason, ...]) -> dict[str, float]:
    """1 for each reason that holds clocks back at this moment, else 0: for drivers that do not count the time."""
    bits = device.ask_card("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:
        bits = device.ask_card("nvmlDeviceGetCurrentClocksThrottleReasons")  # its name before driver 535
    return {} if bits is None else {f"throttle_{r.name}_ratio": float(bool(bits & r.bits)) for r in reasons}


def sample_pcie(device: nvml.Device) -> dict[str, float]:
    """PCIe traffic; the driver measures each direction for 20 ms, so this is for where nothing else tells."""
    if device.is_slice:
        return {}
    return present(
        pcie_tx_bytes_per_s=_scaled(device.ask("nvmlDeviceGetPcieThroughput", _PCIE_TX), 1e3),
        pcie_rx_bytes_per_s=_scaled(device.ask("nvmlDeviceGetPcieThroughput", _PCIE_RX), 1e3),
    )


def counters(device: nvml.Device) -> dict[str, float]:
    """What only grows while the driver runs: seconds by reason (`reason.source`), joules, bytes, memory errors."""
    fields = device.fields(*_COUNTER_FIELDS)
    seen = {key: seconds for reason in REASONS for key, seconds in _spent_s(device, reason, fields).items()}
    seen |= present(
        ecc_corrected_errors=device.ask_card("nvmlDeviceGetTotalEccErrors", _CORRECTED, _VOLATILE),
        ecc_uncorrected_errors=device.ask_card("nvmlDeviceGetTotalEccErrors", _UNCORRECTED, _VOLATILE),
    )
    if device.is_slice:
        return seen
    energy_mj = device.ask("nvmlDeviceGetTotalEnergyConsumption")
    return seen | present(
        energy_j=_scaled(energy_mj, 1e-3), pcie_tx_bytes=fields.get(_PCIE_TX_BYTES),
        pcie_rx_bytes=fields.get(_PCIE_RX_BYTES),
    )  # fmt: skip


def _spent_s(device: nvml.Device, reason: Reason, fields: Mapping[int, float]) -> dict[str, float]:
    """Seconds that a reason has held clocks back, from each field that counts them, else from its policy."""
    counted = {f"{reason.name}.{number}": fields[number] * 1e-9 for number in reason.fields if number in fields}
    if counted or reason.policy is None:
        return counted
    violation = device.ask_card("nvmlDeviceGetViolationStatus", reason.policy)
    return {f"{reason.name}.policy": violation.violationTime * 1e-9} if violation else {}


def uncounted(seen: Mapping[str, float]) -> tuple[Reason, ...]:
    """The reasons whose time these counters do not tell."""
    counted = {name.partition(".")[0] for name in seen}
    return tuple(reason for reason in REASONS if reason.name not in counted)


def window(before: Mapping[str, float], after: Mapping[str, float], wall_s: float) -> dict[str, float]:
    """Counters as signals of the window; what stepped back is left out, for the driver was loaded anew."""
    grown = {name: after[name] - before[name] for name in before.keys() & after.keys() if after[name] >= before[name]}
    spent_s = {r.name: [s for name, s in grown.items() if name.startswith(f"{r.name}.")] for r in REASONS}
    shares = {f"throttle_{name}_ratio": min(1.0, max(times) / wall_s) for name, times in spent_s.items() if times}
    return shares | present(
        gpu_energy_j=grown.get("energy_j") if wall_s >= MIN_ENERGY_WINDOW_S else None,
        pcie_tx_bytes_per_s=_scaled(grown.get("pcie_tx_bytes"), 1 / wall_s),
        pcie_rx_bytes_per_s=_scaled(grown.get("pcie_rx_bytes"), 1 / wall_s),
        ecc_corrected_errors=grown.get("ecc_corrected_errors"),
        ecc_uncorrected_errors=grown.get("ecc_uncorrected_errors"),
    )


def reduce_samples(samples: Mapping[str, list[float]]) -> dict[str, float]:
    """One value a signal: the median of a clock, the largest memory and temperature, the mean of all else."""
    return {name: float(_reduce(name, values)) for name, values in samples.items()}


def _reduce(name: str, values: list[float]) -> float:
    if name.endswith("_hz"):
        return median(values)
    return max(values) if name in ("memory_used_bytes", "temperature_celsius") else sum(values) / len(values)
