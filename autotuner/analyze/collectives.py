"""How long collective operations take, and how much of it a step has to wait for.

The alpha-beta model (Hockney 1994; Thakur, Rabenseifner and Gropp 2005): t = steps alpha + factor m beta, with m the
message in bytes as nccl-tests counts it (the whole buffer: what all-gather puts out, what reduce-scatter takes in).
Ring: Patarasuk and Yuan 2009. Tree: recursive halving and doubling (Rabenseifner 2004), which moves no more bytes than
a ring in log2 p steps; NCCL's double binary tree has the same steps, but moves 2 m. With two processes they are one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autotuner.analyze.least_squares import StraightLine, fit_straight_line
from autotuner.types import Estimate

Algorithm = Literal["ring", "tree"]
Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast"]

_PASSES: Mapping[Operation, int] = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "broadcast": 1}


@dataclass(frozen=True, slots=True)
class Link:
    """What a message costs between processes.

    Attributes:
        alpha_s: Seconds a step of the algorithm, however small the message.
        beta_s_per_byte: Seconds a byte; 1 / beta is the bandwidth of the bus.
        misfit_ratio: The largest residual relative to its time.
    """

    alpha_s: Estimate
    beta_s_per_byte: Estimate
    misfit_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """What is seen of a step's communication.

    Attributes:
        communication_s: All collective operations, one after the other.
        exposed_s: What the step takes longer than its computation alone.
        hidden_ratio: Share of the communication that runs beside computation; 1 when there is none.
    """

    communication_s: float
    exposed_s: float
    hidden_ratio: float


def latency_steps(processes: int, operation: Operation = "all_reduce", algorithm: Algorithm = "ring") -> int:
    """How many messages follow one another: 2 (p - 1) for the ring all-reduce, 2 ceil(log2 p) for the tree."""
    _check(processes)
    steps = processes - 1 if algorithm == "ring" else math.ceil(math.log2(processes))
    return _PASSES[operation] * steps


def traffic_factor(processes: int, operation: Operation = "all_reduce") -> float:
    """Bytes over a process's link for one byte of the message: nccl-tests' factor from algorithm to bus bandwidth.

    2 - 2/p for all-reduce, 1 - 1/p for all-gather and reduce-scatter, 1 for broadcast (pipelined).
    """
    _check(processes)
    return 1.0 if operation == "broadcast" else _PASSES[operation] * (1 - 1 / processes)


def collective_s(
    message_bytes: float,
    processes: int,
    link: Link,
    operation: Operation = "all_reduce",
    algorithm: Algorithm = "ring",
) -> float:
    """Seconds of one operation; 0 for a single process."""
    if processes == 1:
        return 0.0
    steps, factor = latency_steps(processes, operation, algorithm), traffic_factor(processes, operation)
    return steps * link.alpha_s.value + factor * message_bytes * link.beta_s_per_byte.value


def fit_link(
    times_s: Sequence[tuple[float, float]],
    processes: int,
    operation: Operation = "all_reduce",
    algorithm: Algorithm = "ring",
) -> Link | None:
    """Alpha and beta from measured times, by least squares of the relative residuals.

    Relative, because the times span five orders of magnitude and a small message's is as precise as a large one's.

    Args:
        times_s: (bytes of the message, seconds), at least three and more than one size.
        processes: At least 2.
        operation: Which one was timed.
        algorithm: Only scales alpha: times alone do not tell the algorithms apart.

    Returns:
        None where no such line can be said: too few points, a time <= 0, or one that falls with the message.
    """
    steps, factor = latency_steps(processes, operation, algorithm), traffic_factor(processes, operation)
    line = fit_straight_line(times_s, relative=True)
    if line is None or line.slope <= 0 or line.intercept_interval().high <= 0:
        return None
    return _link(line, steps, factor)


def _link(line: StraightLine, steps: int, factor: float) -> Link:
    alpha, beta = line.intercept_interval(), line.slope_interval()
    return Link(_positive_part(alpha, steps), _positive_part(beta, factor), line.misfit_ratio)


def _positive_part(sum_of_all: Estimate, count: float) -> Estimate:
    """One of `count` equal parts; neither a latency nor a byte costs less than nothing."""
    value, low, high = (max(0.0, end) / count for end in (sum_of_all.value, sum_of_all.low, sum_of_all.high))
    return Estimate(value, low, high)


def algorithm_bandwidth_bytes_per_s(message_bytes: float, time_s: float) -> float:
    """nccl-tests' algbw: the message over its time; depends on the number of processes."""
    return message_bytes / time_s


def bus_bandwidth_bytes_per_s(
    message_bytes: float, time_s: float, processes: int, operation: Operation = "all_reduce"
) -> float:
    """nccl-tests' busbw: comparable with the link's speed, whatever the number of processes."""
    return algorithm_bandwidth_bytes_per_s(message_bytes, time_s) * traffic_factor(processes, operation)


def bucket_ready_s(compute_s: float, bucket_bytes: Sequence[float]) -> list[float]:
    """When each bucket of gradients is complete, if a backward pass fills them at an even pace."""
    total, done, ready = math.fsum(bucket_bytes), 0.0, []
    for size in bucket_bytes:
        done += size
        ready.append(compute_s * done / total)
    return ready


def overlap(compute_s: float, ready_s: Sequence[float], bucket_s: Sequence[float]) -> Exposure:
    """What a step waits for when each bucket is sent as soon as it is full, one at a time, beside the computation.

    Li et al. 2020, "PyTorch Distributed", section 3.2.3. Computation is taken to be no slower for it; where both share
    cores or memory bandwidth, more is exposed.

    Args:
        compute_s: Of the backward pass alone.
        ready_s: When each bucket is full, in the order of sending; see `bucket_ready_s`.
        bucket_s: Seconds of each one's collective operation; see `collective_s`.
    """
    end_s = 0.0
    for ready, time_s in zip(ready_s, bucket_s, strict=True):
        end_s = max(end_s, ready) + time_s
    communication_s = math.fsum(bucket_s)
    exposed_s = max(0.0, end_s - compute_s)
    hidden_ratio = max(0.0, 1 - exposed_s / communication_s) if communication_s else 1.0
    return Exposure(communication_s, exposed_s, hidden_ratio)


def _check(processes: int) -> None:
    if processes < 2:
        raise ValueError(f"{processes} processes have nothing to exchange")
