"""Is the truth of a case true on this machine? Looked at apart from the diagnosis, in processes of its own."""

from typing import TYPE_CHECKING

from autotuner.types import Binding
from labelled.cases import Case
from labelled.part import PartSpec
from labelled.yardsticks import product, stream

if TYPE_CHECKING:
    from labelled.lab import Lab

SHARE_TOLERANCE = 0.12
EFFICIENCY = 0.33  # of this machine's own rate: below it something else binds
RESIDENT_GAIN, RESIDENT_LOSS = 0.67, 0.8  # time with resident data: memory binds below the first, not above the second
SAME_TIME = 1.4  # of a small operation twice as large: the host's cost, not the work's
WORTHWHILE = 1.04  # throughput of the next larger batch


class UnclearError(Exception):
    """The truth of a case does not hold on this machine, or could not be established."""


def check(lab: "Lab", case: Case, parts: tuple[PartSpec, ...]) -> tuple[tuple[Binding, ...], dict[str, float]]:
    """The right answers on this machine, and what was seen.

    Raises:
        UnclearError: The case does not do here what it says.
    """
    if case.settled_by_residency:
        return _by_residency(lab, parts[0])
    seen: dict[str, float] = {}
    if case.shares:
        seen = _shares(lab, case, parts)
    elif case.group in ("compute", "memory_bandwidth"):
        seen = _efficiency(lab, case, parts[0])
    elif case.group == "host_launch":
        seen = _indifference(lab, parts[0])
    elif len(case.batch) > 1:
        seen = _gain(lab, case, parts)
    return case.truth, seen


def _shares(lab: "Lab", case: Case, parts: tuple[PartSpec, ...]) -> dict[str, float]:
    """The time of each part, in its amount: its share of the sum is as planned."""
    times_s = [seen["s"] for seen in lab.told(parts)]
    seen = {f"part_{number}_ratio": time_s / sum(times_s) for number, time_s in enumerate(times_s)}
    if any(abs(ratio - planned) > SHARE_TOLERANCE for ratio, planned in zip(seen.values(), case.shares, strict=True)):
        raise UnclearError("its parts take " + ", ".join(f"{ratio:.0%}" for ratio in seen.values()))
    return seen


def _efficiency(lab: "Lab", case: Case, part: PartSpec) -> dict[str, float]:
    """The rate by the formula of the operation, against the machine's own in turns with it."""
    if case.group == "compute":
        unit, yardstick = "flops", product(str(part.options.get("dtype", "float32")), lab.device)
    else:
        unit, yardstick = "bytes", stream("triad", lab.device)
    done, own = (seen[unit] / seen["s"] for seen in lab.told((part, yardstick)))
    if done < EFFICIENCY * own:
        raise UnclearError(f"only {done / own:.0%} of the machine's rate")
    return {"efficiency_ratio": done / own}


def _indifference(lab: "Lab", part: PartSpec) -> dict[str, float]:
    """Twice the rows take the same time: it is not the work that costs."""
    twice = part.model_copy(update={"options": {**part.options, "rows": 4}})
    once_s, twice_s = (seen["s"] for seen in lab.told((part, twice)))
    if twice_s > SAME_TIME * once_s:
        raise UnclearError(f"twice the rows take {twice_s / once_s:.2f} times as long")
    return {"twice_the_rows_ratio": twice_s / once_s}


def _by_residency(lab: "Lab", part: PartSpec) -> tuple[tuple[Binding, ...], dict[str, float]]:
    """The same number of operations on one operand set that stays in the cache."""
    count = "layers" if part.what == "dense" else "sets"
    sets = int(part.options.get(count, 24) or 24)
    resident = part.model_copy(update={"amount": part.amount * sets, "options": {**part.options, count: 1}})
    full_s, resident_s = (seen["s"] for seen in lab.told((part, resident)))
    seen = {"resident_time_ratio": resident_s / full_s}
    if resident_s < RESIDENT_GAIN * full_s:
        return (Binding.MEMORY_BANDWIDTH,), seen
    if resident_s > RESIDENT_LOSS * full_s:
        return (Binding.UNKNOWN, Binding.COMPUTE), seen
    return (Binding.MEMORY_BANDWIDTH, Binding.UNKNOWN), seen


def _gain(lab: "Lab", case: Case, parts: tuple[PartSpec, ...]) -> dict[str, float]:
    """A larger batch still gains, or it does not, as the case says."""
    rates = [size / sum(seen["s"] for seen in lab.told(parts, {"batch_size": size})) for size in case.batch[-2:]]
    gain = rates[1] / rates[0]
    if (gain > WORTHWHILE) != (Binding.COMPUTE not in case.truth):
        raise UnclearError(f"twice the batch gives {gain:.2f} times the throughput")
    return {"batch_gain_ratio": gain}
