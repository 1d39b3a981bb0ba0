"""GPM: what the SMs, the tensor cores, the memory and the links of a Hopper or later GPU did between two samples.

Own counters of the hardware: no daemon, and no conflict with Nsight or CUPTI (as DCGM's profiling metrics have before
Hopper). Two samples closer than 0.1 s say nothing valid.
"""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from autotuner.monitor.gpu import nvml

MIN_PERIOD_S = 0.1
_PERCENT, _MEBIBYTE = 0.01, float(2**20)
# NVML_GPM_METRIC_*: signal and factor to SI.
METRICS: dict[int, tuple[str, float]] = {
    2: ("sm_busy_ratio", _PERCENT),
    3: ("sm_occupancy_ratio", _PERCENT),
    5: ("tensor_busy_ratio", _PERCENT),
    10: ("dram_busy_ratio", _PERCENT),
    11: ("fp64_busy_ratio", _PERCENT),
    12: ("fp32_busy_ratio", _PERCENT),
    13: ("fp16_busy_ratio", _PERCENT),
    20: ("pcie_tx_bytes_per_s", _MEBIBYTE),
    21: ("pcie_rx_bytes_per_s", _MEBIBYTE),
    60: ("nvlink_rx_bytes_per_s", _MEBIBYTE),
    61: ("nvlink_tx_bytes_per_s", _MEBIBYTE),
}
Answers = dict[int, tuple[int, float]]  # return code and raw value by metric


class Gpm:
    """Two samples of one GPU or MIG slice, of which the older is always replaced."""

    def __init__(self, device: nvml.Device, first: Any, second: Any) -> None:
        self._device = device
        self._samples = (first, second)
        self._requests = tuple(
            nvml.gpm_request(older, newer, tuple(METRICS)) for older, newer in ((second, first), (first, second))
        )
        self._next = 0
        self._taken_s = -math.inf
        self._has_older = False

    def take(self) -> int:
        """Take a sample; the return code."""
        code = _take(self._device, self._samples[self._next])
        self._device.lost |= code in nvml.GONE
        self._taken_s = time.monotonic()
        return code

    def read(self) -> dict[str, float]:
        """The signals since the last read, means over that time; empty if that was just now, or nothing answers."""
        if time.monotonic() - self._taken_s < MIN_PERIOD_S:
            return {}  # the older sample is that of just now: a window begins at most so much too early
        answers = self.answers()[2]
        return {METRICS[metric][0]: _scaled(metric, value) for metric, (code, value) in answers.items() if code == 0}

    def answers(self) -> tuple[int, int | None, Answers]:
        """Take a sample: its return code, that of comparing it with the one before, and every metric as it came.

        The first time there is nothing to compare with: None, and no metrics.
        """
        had_older, request, code = self._has_older, self._requests[self._next], self.take()
        self._has_older = code == nvml.SUCCESS
        if code != nvml.SUCCESS:
            return code, None, {}
        self._next = 1 - self._next
        if not had_older:
            return code, None, {}
        compared, found = nvml.call("nvmlGpmMetricsGet", request)
        self._device.lost |= compared in nvml.GONE
        rows = found.metrics[: len(METRICS)] if found else ()
        return code, compared, {row.metricId: _answer(row) for row in rows}


def _answer(row: Any) -> tuple[int, float]:
    finite = row.nvmlReturn == nvml.SUCCESS and math.isfinite(row.value)
    return (nvml.SUCCESS, row.value) if finite else (row.nvmlReturn or nvml.NOT_SUPPORTED, 0.0)


def _scaled(metric: int, value: float) -> float:
    name, factor = METRICS[metric]
    scaled = max(0.0, value * factor)
    return min(1.0, scaled) if name.endswith("_ratio") else scaled


def _take(device: nvml.Device, sample: Any) -> int:
    if device.instance is not None:
        return nvml.call("nvmlGpmMigSampleGet", device.card, device.instance, sample)[0]
    return nvml.call("nvmlGpmSampleGet", device.handle, sample)[0]


@contextmanager
def opened(device: nvml.Device) -> Iterator[Gpm | None]:
    """GPM of a device; None where it has none."""
    support = device.ask_card("nvmlGpmQueryDeviceSupport")
    with ExitStack() as samples:
        if not support or not support.isSupportedDevice:
            yield None
            return
        pair = [nvml.ask("nvmlGpmSampleAlloc") for _ in range(2)]
        for sample in filter(None, pair):
            samples.callback(nvml.ask, "nvmlGpmSampleFree", sample)
        yield Gpm(device, *pair) if all(pair) else None


def sample_code(device: nvml.Device) -> int:
    """The return code of taking one sample: whether GPM is permitted here."""
    with opened(device) as gpm:
        return nvml.NOT_SUPPORTED if gpm is None else gpm.take()
