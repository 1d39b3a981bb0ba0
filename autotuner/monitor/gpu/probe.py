"""The probe of a GPU: counters and GPM over the window, and a thread at 5 Hz for what exists only at a moment."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Literal

from autotuner.monitor.gpu import gpm, nvml, signals
from autotuner.monitor.gpu.devices import foreign_processes, visible_uuid
from autotuner.plugins import Probe
from autotuner.types import Metrics

SAMPLING_PERIOD_S = 0.2
_PCIE_EVERY = 5  # samples: it blocks its thread for 40 ms
_JOIN_LIMIT_S = 2.0  # a wedged driver must not hold the worker; the thread is a daemon


class GpuReader:
    """Signals of one GPU between the last read, or the opening, and now; `sample` belongs to its thread."""

    def __init__(self, device: nvml.Device, counted_by_gpm: gpm.Gpm | None) -> None:
        self._device, self._gpm = device, counted_by_gpm
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        if self._gpm:
            self._gpm.read()
        self._at_s, self._before = time.monotonic(), signals.counters(device)
        self._uncounted = signals.uncounted(self._before)
        self._asks_pcie = self._gpm is None and "pcie_tx_bytes" not in self._before

    def sample(self, stop: threading.Event) -> None:
        """Sample until `stop` is set."""
        for turn in count():
            if stop.wait(SAMPLING_PERIOD_S):
                return
            seen = signals.sample(self._device)
            if self._uncounted:
                seen |= signals.sample_reasons(self._device, self._uncounted)
            if self._asks_pcie and turn % _PCIE_EVERY == 0:
                seen |= signals.sample_pcie(self._device)
            with self._lock:
                for name, value in seen.items():
                    self._samples[name].append(value)

    def read(self) -> Metrics:
        """The window's signals by name, as docs/signals.md explains them; `gpu_lost` = 1 once the GPU has gone."""
        with self._lock:
            samples, self._samples = self._samples, defaultdict(list)
        busy = self._gpm.read() if self._gpm else {}
        before, began_s = self._before, self._at_s
        self._at_s, self._before = time.monotonic(), signals.counters(self._device)
        window = signals.window(before, self._before, max(self._at_s - began_s, 1e-9))
        rest = signals.present(
            gpu_foreign_processes=foreign_processes(self._device), gpu_lost=1.0 if self._device.lost else None
        )
        return signals.reduce_samples(samples) | window | busy | rest


class _NothingToSee:
    """The reader where there is no GPU."""

    def read(self) -> Metrics:
        return {}


class GpuProbe(Probe):
    """Observes the first visible GPU: counters and GPM over the window, and a thread at 5 Hz for the rest."""

    kind: Literal["gpu"] = "gpu"

    @contextmanager
    def open(self, device: str) -> Iterator[GpuReader | _NothingToSee]:
        """Start observing `device`; on a CPU, or without NVML, there is nothing to see."""
        with nvml.device(visible_uuid(device)) as opened:
            if opened is None:
                yield _NothingToSee()
                return
            with gpm.opened(opened) as counted_by_gpm:
                reader, stop = GpuReader(opened, counted_by_gpm), threading.Event()
                thread = threading.Thread(target=reader.sample, args=(stop,), name="autotune-gpu", daemon=True)
                thread.start()
                try:
                    yield reader
                finally:
                    stop.set()
                    thread.join(_JOIN_LIMIT_S)


def throttling(metrics: Metrics) -> str:
    """One sentence on why the GPU could not do what it can; empty when nothing held it back but its power limit."""
    if metrics.get("gpu_lost", 0.0) > 0:
        return "the GPU was lost in the middle of it"
    if errors := int(metrics.get("ecc_uncorrected_errors", 0)):
        return f"the GPU's memory had {errors} uncorrected {'error' if errors == 1 else 'errors'}"
    reasons = {"thermal": "the GPU was too hot for its clocks", "brake": "the power supply slowed the GPU down"}
    for name, text in reasons.items():
        if (ratio := metrics.get(f"throttle_{name}_ratio", 0.0)) > 0:
            return f"{text} {ratio:.1%} of the time"
    if foreign := int(metrics.get("gpu_foreign_processes", 0)):
        return f"{foreign} other {'process' if foreign == 1 else 'processes'} used the GPU"
    return ""
