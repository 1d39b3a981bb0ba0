"""Which operations make which ceilings, and how the blocks of one become a number."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autotuner.types import Config, Estimate, Measurement

Note = Callable[[str], None]

FAST_SHARE = 0.75
_TAIL = 0.025  # of the 95 % interval, each side
MESSAGES_BYTES = (8, 2**10, 2**16, 2**20, 2**24, 2**26)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the workload `ceiling`.

    Attributes:
        config: Its parameters.
        ceiling: The name in `Ceilings.values`; of an all-reduce, for a note.
        work: What a step counts, "flops", "bytes" or "operations".
        quick: Belongs to the subset that every machine is measured with before its first study.
    """

    config: Config = field(hash=False)
    ceiling: str
    work: str
    quick: bool = False

    @property
    def message_bytes(self) -> float:
        """Of an all-reduce."""
        return float(self.config["message_bytes"] or 0)

    def estimate(self, measured: Measurement) -> Estimate:
        """The ceiling: a rate, or for operations the seconds of one.

        Of blocks that somebody else disturbed the fastest counts: the machine can do at least that.
        """
        rates = measured.samples[f"throughput_{self.work}_per_s"]
        rate = fast_side(rates)
        if measured.contended:
            rate = Estimate(max(rates), rate.low, max(rates))
        return Estimate(1 / rate.value, 1 / rate.high, 1 / rate.low) if self.work == "operations" else rate


def say_nothing(text: str) -> None:
    """The note that nobody reads."""


def operations(device: str, *, quick: bool) -> tuple[Operation, ...]:
    """What can be measured on "cpu" or "cuda"; the workload itself says what a GPU is too old for."""
    found = [
        *(_matmul(form) for form in ("float32", "bfloat16", "float16")),
        Operation({"operation": "copy"}, "copy_bytes_per_s", "bytes", quick=True),
        Operation({"operation": "triad"}, "triad_bytes_per_s", "bytes", quick=True),
        Operation({"operation": "launch"}, "launch_s", "operations", quick=True),
        Operation({"operation": "page-cache-read"}, "page_cache_read_bytes_per_s", "bytes"),
        Operation({"operation": "disk-read"}, "disk_read_bytes_per_s", "bytes"),
    ]
    if device != "cpu":
        found += [
            *(_matmul(form) for form in ("tf32", "float8_e4m3fn")),
            Operation({"operation": "graph-launch"}, "graph_launch_s", "operations", quick=True),
            Operation({"operation": "upload-pinned"}, "upload_pinned_bytes_per_s", "bytes"),
            Operation({"operation": "upload-pageable"}, "upload_pageable_bytes_per_s", "bytes"),
        ]
    return tuple(operation for operation in found if operation.quick or not quick)


def _matmul(form: str) -> Operation:
    return Operation({"operation": f"matmul-{form}"}, f"matmul_{form}_flops_per_s", "flops", quick=True)


def all_reduces() -> tuple[Operation, ...]:
    """One a size of message; alpha and beta are fitted to their times."""
    return tuple(
        Operation({"operation": "allreduce", "message_bytes": size}, f"all-reduce of {size} bytes", "operations")
        for size in MESSAGES_BYTES
    )


def fast_side(rates: Sequence[float]) -> Estimate:
    """The upper quartile of the blocks' rates, with its distribution-free 95 % interval.

    A ceiling is what the machine can do, and whatever disturbs a block only slows it down: so not the median. Nor the
    maximum, which grows with the number of blocks and hangs on a single one, and has no upper end; the quartile is
    what every fourth block reached. Interval: order statistics (David and Nagaraja, Order Statistics, 2003, section
    7.1), two-sided from 13 blocks on; with fewer, the extremes, which cover less.

    Args:
        rates: One a block, at least one.
    """
    ordered, count = sorted(rates), len(rates)
    below = [math.comb(count, k) * FAST_SHARE**k * (1 - FAST_SHARE) ** (count - k) for k in range(count + 1)]
    low = max((rank for rank in range(1, count + 1) if math.fsum(below[:rank]) <= _TAIL), default=1)
    high = min((rank for rank in range(1, count + 1) if math.fsum(below[rank:]) <= _TAIL), default=count)
    return Estimate(ordered[math.ceil(FAST_SHARE * count) - 1], ordered[low - 1], ordered[high - 1])
