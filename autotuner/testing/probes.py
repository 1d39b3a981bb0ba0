"""The contract of a probe, as a check that any test runner can call."""

import math
import threading
import time

from autotuner.plugins import Probe
from autotuner.testing.options import check_options
from autotuner.types import Metrics

READS_PER_S = 10.0
ABSENT_DEVICE = "cuda:63"


def check_probe(probe: Probe, device: str = "cpu", max_cost_ratio: float = 0.05) -> None:
    """Check that a probe gives finite numbers or none, on a device that is there and on one that is not.

    Args:
        probe: With any options.
        device: One that is there.
        max_cost_ratio: Largest share of a core that reading ten times a second may take. The contract says 0.01; the
            default leaves room for a slow or busy machine.

    Raises:
        AssertionError: It breaks the contract; says how.
    """
    check_options(probe, "probes")
    threads = threading.active_count()
    for seen_device in (device, device, ABSENT_DEVICE):
        _check_reads(probe, seen_device)
        assert threading.active_count() <= threads, "closing a probe must end its threads"
    _check_cost(probe, device, max_cost_ratio)


def _check_reads(probe: Probe, device: str) -> None:
    opening = probe.open(device)
    with opening as reader:
        _check_metrics(reader.read(), device)
        time.sleep(0.02)
        _check_metrics(reader.read(), device)
    opening.__exit__(None, None, None)  # closing twice is fine


def _check_metrics(metrics: Metrics, device: str) -> None:
    for name, value in metrics.items():
        assert isinstance(name, str), f"{name!r} is no name"
        assert isinstance(value, float), f"{name} on {device} is a {type(value).__name__}, not a float"
        assert math.isfinite(value), f"{name} on {device} is {value}"


def _check_cost(probe: Probe, device: str, max_cost_ratio: float) -> None:
    """The cheapest of twenty reads, in CPU time of this thread, so that neighbours do not count."""
    costs_s = []
    with probe.open(device) as reader:
        for _ in range(20):
            begun_s = time.thread_time()
            reader.read()
            costs_s.append(time.thread_time() - begun_s)
    cost_ratio = min(costs_s) * READS_PER_S
    assert cost_ratio <= max_cost_ratio, f"ten reads a second take {cost_ratio:.1%} of a core"
