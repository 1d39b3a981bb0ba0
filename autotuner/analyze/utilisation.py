"""What a GPU's utilisation numbers mean, and whether one of them says that the GPU is saturated.

"Busy" (NVML `utilization.gpu`) is the share of time in which some kernel ran, be it one warp waiting for memory. SM
utilisation (NVML GPM, DCGM_FI_PROF_SM_ACTIVE) counts SMs that hold a warp, be it a waiting one; SM occupancy counts how
many warps they hold. Only the tensor cores, the arithmetic pipes and the memory interface (DRAM) say how much of the
hardware works. Sources: NVML API reference, `nvmlUtilization_t` and `nvmlGpmMetricId_t`; DCGM user guide, "Profiling
Metrics". A memory-bound load at 99 % SM activity may do 6 % of the arithmetic.
"""

from dataclasses import dataclass
from typing import Literal

Saturation = Literal["idle", "memory", "tensor cores", "arithmetic units", "not saturated", "not known"]

_BUSY = 0.9  # below, the GPU has pauses that the host or the data owe it
_SATURATED_MEMORY = 0.6  # of peak; 0.8 to 0.93 is what copies reach
_SATURATED_TENSOR = 0.5
_SATURATED_ARITHMETIC = 0.6
_FEW_SMS = 0.5
_FEW_WARPS = 0.15


@dataclass(frozen=True, slots=True)
class GpuUtilisation:
    """Shares of time or capacity in [0, 1]; None where it was not read.

    Attributes:
        busy_ratio: Time with at least one kernel on the GPU.
        sm_ratio: SMs that hold at least one warp.
        occupancy_ratio: Resident warps over the most that the SMs can hold.
        tensor_ratio: Cycles of the tensor cores.
        arithmetic_ratio: Cycles of the busiest of the FP64, FP32 and FP16 pipes.
        dram_ratio: Bandwidth of the memory interface, of its theoretical peak.
    """

    busy_ratio: float | None = None
    sm_ratio: float | None = None
    occupancy_ratio: float | None = None
    tensor_ratio: float | None = None
    arithmetic_ratio: float | None = None
    dram_ratio: float | None = None

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: Not a ratio; NVML counts in percent.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} = {value} is not in [0, 1]")


def saturation(seen: GpuUtilisation) -> Saturation:
    """What works at its practical limit; "idle" where pauses come first, "not known" from busyness alone."""
    if seen.busy_ratio is not None and seen.busy_ratio < _BUSY:
        return "idle"
    if seen.dram_ratio is not None and seen.dram_ratio >= _SATURATED_MEMORY:
        return "memory"
    if seen.tensor_ratio is not None and seen.tensor_ratio >= _SATURATED_TENSOR:
        return "tensor cores"
    if seen.arithmetic_ratio is not None and seen.arithmetic_ratio >= _SATURATED_ARITHMETIC:
        return "arithmetic units"
    # a part that nobody looked at may be the saturated one
    return "not known" if seen.tensor_ratio is None or seen.dram_ratio is None else "not saturated"


def explain_utilisation(seen: GpuUtilisation) -> str:
    """The numbers in one sentence that never calls a busy GPU a saturated one.

    >>> explain_utilisation(GpuUtilisation(busy_ratio=0.99, tensor_ratio=0.06, dram_ratio=0.21))
    'The GPU was busy 99% of the time, but used its tensor cores 6% and its memory 21%: busy, not saturated.'
    """
    busy, work, found = seen.busy_ratio, _work(seen), saturation(seen)
    start = "The GPU" if busy is None else f"The GPU was busy {busy:.0%} of the time"
    joint = "" if busy is None else ", but" if found == "not saturated" else " and"
    used = f"{joint} used {work}" if work else ""
    if busy is None and not work:
        return "No utilisation of the GPU was read that says how much of it worked."
    return f"{start}{used}{_conclude(seen, found)}."


def _conclude(seen: GpuUtilisation, found: Saturation) -> str:
    """What follows from the numbers."""
    match found:
        case "idle":
            return f": the other {1 - (seen.busy_ratio or 0):.0%} it waited for the host or for data"
        case "not saturated":
            return f": {'' if seen.busy_ratio is None else 'busy, '}not saturated{_why_not(seen)}"
        case "not known":
            return ", which does not say whether any part of it was saturated"
        case "memory":
            return ": its memory bandwidth was at the practical limit"
        case _:
            return f": its {found} were at the practical limit"


def _work(seen: GpuUtilisation) -> str:
    """The parts that work, each with its share."""
    parts = {
        "its tensor cores": seen.tensor_ratio,
        "its arithmetic units": seen.arithmetic_ratio,
        "its memory": seen.dram_ratio,
    }
    *most, last = [f"{name} {ratio:.0%}" for name, ratio in parts.items() if ratio is not None] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def _why_not(seen: GpuUtilisation) -> str:
    """What low numbers of the SMs hint at."""
    if seen.sm_ratio is not None and seen.sm_ratio < _FEW_SMS:
        return f"; only {seen.sm_ratio:.0%} of its SMs had work, so its kernels have too few blocks"
    if seen.occupancy_ratio is not None and seen.occupancy_ratio < _FEW_WARPS:
        return f"; its SMs held {seen.occupancy_ratio:.0%} of the warps that fit, too few to hide latency"
    return ""
