"""What comes back from a worker: a measurement, or why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from autotuner.types.config import Metrics


class FailureKind(StrEnum):
    """Why a trial gave no measurement."""

    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    INVALID_CONFIG = "invalid_config"
    NOT_FINITE = "not_finite"
    UNSUPPORTED = "unsupported"
    INVALID = "invalid"  # it ran, but what was measured cannot be believed
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class MeasurementProtocol:
    """How one measurement is taken. A block is the unit of evidence, never a single step.

    Attributes:
        block_s: Shortest block; steps are repeated until it is reached. At least 1e-3.
        warmup_min_steps: Steps that are run before the slope of the warm-up is looked at.
        warmup_min_s: Shortest warm-up.
        warmup_max_s: Longest warm-up; after it the measurement starts however the slope looks.
        min_blocks: Fewest blocks; 5 are needed for an interval.
        min_measure_s: Shortest timed window.
        max_measure_s: Longest timed window, retries of contended windows included.
        precision_ratio: Half-width of the 95 % interval, relative to the median, at which measuring stops.
        time_limit_s: Longest trial, set-up included; the worker is killed after it.
        contended_retries: How many contended windows are measured again, within `max_measure_s` each.
    """

    block_s: float = 0.05
    warmup_min_steps: int = 3
    warmup_min_s: float = 0.5
    warmup_max_s: float = 20.0
    min_blocks: int = 5
    min_measure_s: float = 0.5
    max_measure_s: float = 15.0
    precision_ratio: float = 0.03
    time_limit_s: float = 600.0
    contended_retries: int = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a worker saw of one configuration.

    Attributes:
        samples: Every raw value in order of time, by sample name: rates and times per block
            (`throughput_tokens_per_s`, `block_s`), latencies per step (`latency_s`), and single values that were
            read once (`peak_memory_bytes`, `top1_agreement_ratio`).
        setup_s: Opening the workload: imports, weights, compilation; 0 when an opened one was reused.
        warmup_s: Steps that were run and not counted.
        duration_s: The timed window.
        telemetry: What the probes saw during the timed window, one value a signal.
        environment: Fingerprint of hardware and software, `{"gpu": …, "driver": …, "torch": …}`.
        started_at: UTC.
        contended: Somebody else used the machine during the window; not the configuration's fault.
        reason: Why it is contended, or why measuring stopped ("precision", "plateau", "max_measure_s").
        reused: Whether the workload was still open from an earlier job.
    """

    samples: Mapping[str, tuple[float, ...]]
    setup_s: float
    warmup_s: float
    duration_s: float
    telemetry: Metrics
    environment: Mapping[str, str]
    started_at: datetime
    contended: bool = False
    reason: str = ""
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a configuration gave no measurement. Data for the next proposal, never an exception.

    Attributes:
        message: One line in the words of whoever failed.
        log_path: The worker's whole output, relative to the study's folder; empty if there is none.
    """

    kind: FailureKind
    message: str
    log_path: str = ""
    duration_s: float = 0.0


Outcome: TypeAlias = Measurement | Failure
