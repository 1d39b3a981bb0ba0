"""How fast a step could be: what it asks of the machine, divided by what the machine can do.

Williams, Waterman & Patterson, Roofline: an insightful visual performance model, CACM 52 (2009), with one roof more:
the operations that the host must launch one after the other. Ceilings are measured on this machine (`autotune doctor`),
never taken from a data sheet.
"""

import math
from collections.abc import Mapping

from autotuner.types import Binding, Ceilings, Metrics

IMPOSSIBLE_RATIO = 1.2  # of a step's time: a floor above it was refuted by the step itself


def floor_times_s(signals: Metrics, ceilings: Ceilings, step_s: float = math.inf) -> Mapping[Binding, float]:
    """The shortest time in which this machine could do what one step asks of each resource.

    Args:
        signals: `step_flops_<dtype>`, `step_bytes`, `step_operations`, as the worker counted them.
        ceilings: Of this machine.
        step_s: How long a step takes: products that were faster than their format's ceiling are held against the
            fastest format, as a CPU without bfloat16 units multiplies matrices slowly and vectors quickly.

    Returns:
        Seconds for `compute`, `memory_bandwidth` and `host_launch`, as far as both sides are known.
    """
    floors: dict[Binding, float] = {}
    if (compute_s := _compute_floor_s(signals, ceilings, step_s)) is not None:
        floors[Binding.COMPUTE] = compute_s
    if (bandwidth := memory_bytes_per_s(ceilings)) and "step_bytes" in signals:
        floors[Binding.MEMORY_BANDWIDTH] = signals["step_bytes"] / bandwidth
    if (launch_s := ceilings.value("launch_s")) and "step_operations" in signals:
        floors[Binding.HOST_LAUNCH] = signals["step_operations"] * launch_s
    return floors


def _compute_floor_s(signals: Metrics, ceilings: Ceilings, step_s: float) -> float | None:
    """A format whose ceiling nobody measured is held against the fastest: a floor all the same."""
    products = {name: n for name, n in signals.items() if name.startswith("step_flops_")}
    known = [each.value for name, each in ceilings.values.items() if name.startswith("matmul_")]
    if not products or not known:
        return None
    rates = {name: ceilings.value(f"matmul_{name.removeprefix('step_flops_')}_flops_per_s") for name in products}
    floor_s = sum(flops / (rates[name] or max(known)) for name, flops in products.items())
    return floor_s if floor_s <= IMPOSSIBLE_RATIO * step_s else sum(products.values()) / max(known)


def memory_bytes_per_s(ceilings: Ceilings) -> float | None:
    """The better of copy and triad."""
    seen = [rate for name in ("copy_bytes_per_s", "triad_bytes_per_s") if (rate := ceilings.value(name))]
    return max(seen, default=None)
