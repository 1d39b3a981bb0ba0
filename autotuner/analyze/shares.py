"""How the time of one step divides among the resources that could bind it.

On a CPU every operation ends before the next begins, so that the parts add up: waiting for data, waiting for other
processes, the host's own work (Python between operations, and operations too small to be worth a launch), and large
operations, which the roofline divides into arithmetic and memory. On a GPU the host and the device overlap; there the
floors of the roofline are what the device needs, and the host binds as far as the device was seen to run dry.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.analyze.roofline import floor_times_s
from autotuner.metrics import median
from autotuner.types import Binding, Ceilings, Measurement, Metrics

LEAST_EFFICIENCY = 0.3  # of the roofline: large operations below it are slow for a reason that the roofline cannot see
LARGEST_EFFICIENCY = 1.25  # of a roof: what runs faster than that has another roof
DRAINED_RATIO = 0.5  # of forward passes after which the GPU had run dry: beyond it the host is behind


@dataclass(frozen=True, slots=True)
class Shares:
    """The division.

    Attributes:
        step_s: Median time of a step.
        ratios: Share of that time by resource; they add up to 1 at most.
        floors_s: What the roofline says a step needs, by resource.
        parts_s: Measured parts of a step: `input_wait_s`, `communication_s`, `host_s`, `large_s`.
    """

    step_s: float
    ratios: Mapping[Binding, float]
    floors_s: Mapping[Binding, float]
    parts_s: Metrics

    @property
    def ranked(self) -> list[tuple[Binding, float]]:
        """Resources by share, largest first."""
        return sorted(self.ratios.items(), key=lambda pair: -pair[1])


def divide(measurement: Measurement, ceilings: Ceilings | None) -> Shares | None:
    """Divide the time of a step; None without timed blocks."""
    blocks = measurement.samples.get("block_step_s")
    if not blocks:
        return None
    step_s, seen = median(blocks), measurement.telemetry
    waits_s = {name: _mean(measurement, name) for name in ("input_wait_s", "communication_s")}
    rest_s = max(0.0, step_s - sum(waits_s.values()))
    floors_s = floor_times_s(seen, ceilings, step_s) if ceilings else {}
    on_gpu = "drained_ratio" in seen or "gpu_busy_ratio" in seen
    parts_s = waits_s | ({} if on_gpu else _cpu_parts_s(seen, step_s, rest_s))
    ratios = {
        Binding.INPUT: waits_s["input_wait_s"] / step_s,
        Binding.COMMUNICATION: waits_s["communication_s"] / step_s,
        **(_gpu_ratios(seen, step_s, rest_s, floors_s) if on_gpu else _cpu_ratios(parts_s, step_s, floors_s)),
    }
    return Shares(step_s, {name: min(1.0, ratio) for name, ratio in ratios.items() if ratio > 0}, floors_s, parts_s)


def _mean(measurement: Measurement, name: str) -> float:
    """Mean and not median: a loader with workers makes one batch wait for all."""
    values = measurement.samples.get(name, ())
    return math.fsum(values) / len(values) if values else 0.0


def _cpu_parts_s(seen: Metrics, step_s: float, rest_s: float) -> dict[str, float]:
    """Large operations, whose time is sure, and everything else that keeps the thread busy.

    The time of tiny operations is not: counting them takes as long as they do. A compiled step is shorter than its
    operations counted uncompiled; then all of it is large operations.
    """
    if "step_kernel_s" not in seen:
        return {}
    busy_s = min(rest_s, seen.get("main_thread_busy_ratio", 1.0) * step_s)
    large_s = min(seen["step_kernel_s"] - seen["step_tiny_s"], rest_s)
    return {"host_s": max(0.0, busy_s - large_s), "large_s": large_s}


def _cpu_ratios(parts_s: Metrics, step_s: float, floors_s: Mapping[Binding, float]) -> dict[Binding, float]:
    if "large_s" not in parts_s:
        return {}
    return {Binding.HOST_LAUNCH: parts_s["host_s"] / step_s} | _split(parts_s["large_s"], step_s, floors_s)


def _split(large_s: float, step_s: float, floors_s: Mapping[Binding, float]) -> dict[Binding, float]:
    """Large operations divided in proportion to the two floors; nothing when they run far below both.

    A floor that is longer than what was measured is none: the rate of matrix products in a format that the machine
    lacks does not bound a matrix-vector product.
    """
    roofs = (Binding.COMPUTE, Binding.MEMORY_BANDWIDTH)
    floors = {name: floors_s[name] for name in roofs if 0 < floors_s.get(name, 0.0) <= LARGEST_EFFICIENCY * large_s}
    together_s = sum(floors.values())
    if large_s <= 0 or together_s < LEAST_EFFICIENCY * large_s:
        return {}
    return {name: large_s / step_s * floor_s / together_s for name, floor_s in floors.items()}


def _gpu_ratios(seen: Metrics, step_s: float, rest_s: float, floors_s: Mapping[Binding, float]) -> dict[Binding, float]:
    """The device's counters where it has them, the floors of the roofline where not, and no floor above the step.

    Compiled code is counted uncompiled: what fusion saves makes a floor of bytes longer than the step.
    """
    possible = {name: floor_s / step_s for name, floor_s in floors_s.items() if floor_s <= LARGEST_EFFICIENCY * step_s}
    device = {
        Binding.COMPUTE: max(possible.get(Binding.COMPUTE, 0.0), seen.get("tensor_busy_ratio", 0.0)),
        Binding.MEMORY_BANDWIDTH: max(possible.get(Binding.MEMORY_BANDWIDTH, 0.0), seen.get("dram_busy_ratio", 0.0)),
    }
    idle = rest_s / step_s - max(device.values())
    drained = seen.get("drained_ratio", 0.0)
    return {**device, Binding.HOST_LAUNCH: max(0.0, idle) * drained if drained >= DRAINED_RATIO else 0.0}
