"""A diagnosis in one sentence, with the quantities that a person would ask for."""

from autotuner.analyze.shares import Shares
from autotuner.analyze.utilisation import GpuUtilisation, explain_utilisation
from autotuner.metrics import format_quantity
from autotuner.types import Binding, Metrics

GPU_SIGNALS = (
    "gpu_busy_ratio", "sm_busy_ratio", "sm_occupancy_ratio", "tensor_busy_ratio", "fp64_busy_ratio", "fp32_busy_ratio",
    "fp16_busy_ratio", "dram_busy_ratio", "drained_ratio",
)  # fmt: skip

_WORTH_SAYING = 0.25  # of a step


def sentence(binding: Binding, shares: Shares, seen: Metrics, ceiling_ratio: float | None) -> str:
    """What binds, how much of a step, and how far from the machine's limit; on a GPU also what its counters mean."""
    return " ".join(filter(None, (_bound(binding, shares, seen, ceiling_ratio), _utilisation(seen))))


def _utilisation(seen: Metrics) -> str:
    if "gpu_busy_ratio" not in seen and "sm_busy_ratio" not in seen:
        return ""
    pipes = [seen[name] for name in ("fp64_busy_ratio", "fp32_busy_ratio", "fp16_busy_ratio") if name in seen]
    return explain_utilisation(
        GpuUtilisation(
            busy_ratio=seen.get("gpu_busy_ratio"),
            sm_ratio=seen.get("sm_busy_ratio"),
            occupancy_ratio=seen.get("sm_occupancy_ratio"),
            tensor_ratio=seen.get("tensor_busy_ratio"),
            arithmetic_ratio=max(pipes, default=None),
            dram_ratio=seen.get("dram_busy_ratio"),
        )
    )


def _bound(binding: Binding, shares: Shares, seen: Metrics, ceiling_ratio: float | None) -> str:
    share = shares.ratios[binding]
    match binding:
        case Binding.INPUT:
            wait_s = shares.parts_s["input_wait_s"]
            return f"{share:.0%} of a step waits for data: {_s(wait_s)} of {_s(shares.step_s)}."
        case Binding.COMMUNICATION:
            wait_s = shares.parts_s["communication_s"]
            return f"{share:.0%} of a step waits for other processes: {_s(wait_s)} of {_s(shares.step_s)}."
        case Binding.HOST_LAUNCH:
            return _host(share, shares, seen)
        case Binding.MEMORY_BANDWIDTH:
            if "step_bytes" not in seen:
                return f"{share:.0%} of a step moves data, by the device's own counters."
            rate = format_quantity(seen["step_bytes"] / shares.step_s, "bytes/s")
            return f"{share:.0%} of a step moves data: {rate}{_of_ceiling(ceiling_ratio)}."
        case Binding.COMPUTE:
            if "step_flops" not in seen:
                return f"{share:.0%} of a step is arithmetic, by the device's own counters."
            rate = format_quantity(seen["step_flops"] / shares.step_s, "FLOP/s")
            return f"{share:.0%} of a step is arithmetic: {rate}{_of_ceiling(ceiling_ratio)}."
    raise AssertionError(binding)


def mixture(shares: Shares) -> str:
    """No resource takes half of a step: which ones take how much."""
    parts = ", ".join(f"{binding.replace('_', ' ')} {ratio:.0%}" for binding, ratio in shares.ranked)
    return f"No single resource explains half of a step: {parts}.{below_roofs(shares)}"


def below_roofs(shares: Shares) -> str:
    """The part of a step in operations that the roofline does not explain."""
    roofs, large_s = (Binding.COMPUTE, Binding.MEMORY_BANDWIDTH), shares.parts_s.get("large_s", 0.0)
    if not shares.floors_s or any(roof in shares.ratios for roof in roofs) or large_s < _WORTH_SAYING * shares.step_s:
        return ""
    reached = max(shares.floors_s.get(roof, 0.0) for roof in roofs) / large_s
    return (
        f" {large_s / shares.step_s:.0%} is in operations that reach {reached:.0%} of this machine's ceilings: "
        "too small for them, or threads that wait for each other."
    )


def _host(share: float, shares: Shares, seen: Metrics) -> str:
    operations = seen.get("step_operations", 0.0)
    if "host_s" not in shares.parts_s:
        return (
            f"The device ran dry: {share:.0%} of a step waits for the host to hand over {operations:,.0f} operations."
        )
    return (
        f"{share:.0%} of a step is the host's own work: {_s(shares.parts_s['host_s'])} of Python and launches around "
        f"{operations:,.0f} operations."
    )


def _of_ceiling(ceiling_ratio: float | None) -> str:
    return f", {ceiling_ratio:.0%} of what was measured on this machine" if ceiling_ratio else ""


def _s(seconds: float) -> str:
    return format_quantity(seconds, "s")
