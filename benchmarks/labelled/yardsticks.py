"""This machine's limits, as the suite itself measures them with its own parts."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from autotuner.types import Ceilings, Estimate
from labelled.cases import part
from labelled.part import PartSpec

CALLS = 400
LOOKS = 3
PartValues = Callable[[tuple[PartSpec, ...], str], list[float]]


def product(dtype: str, device: str) -> PartSpec:
    """A matrix product that does nothing but arithmetic."""
    if device == "cpu":
        return part("matmul", n={"float32": 1024, "float64": 512}.get(dtype, 256), sets=1, dtype=dtype)
    return part("matmul", n=4096 if dtype == "float64" else 8192, sets=1, dtype=dtype)


def stream(what: str, device: str) -> PartSpec:
    """A stream that does nothing but move data."""
    return part("stream", what=what, elements=2**19 if device == "cpu" else 2**26)


def measure_ceilings(part_values: PartValues, device: str, wait_for_quiet: Callable[[], None]) -> Ceilings:
    """Products in each format, copy, triad, and the cost of one tiny operation: the best of a few looks."""
    values: dict[str, float] = {}
    loads: Mapping[str, tuple[PartSpec, str]] = {
        **{
            f"matmul_{name}_flops_per_s": (product(name, device), "flops")
            for name in ("float32", "float64", "bfloat16")
        },
        **{f"{name}_bytes_per_s": (stream(name, device), "bytes") for name in ("copy", "triad")},
    }
    for name, (load, unit) in loads.items():
        wait_for_quiet()
        values[name] = max(part_values((load,), unit)[0] / part_values((load,), "s")[0] for _ in range(LOOKS))
    calls = part("calls", CALLS, what="adds")
    values["launch_s"] = min(part_values((calls,), "s")[0] for _ in range(LOOKS)) / (3 * CALLS)
    return Ceilings({name: Estimate(value, value, value) for name, value in values.items()}, {}, datetime.now(UTC))
