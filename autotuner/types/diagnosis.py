"""What a machine can do at most, and what binds a configuration on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from autotuner.types.config import Metrics


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a machine can do at most, measured on it.

    Attributes:
        values: By name: `matmul_<dtype>_flops_per_s`, `copy_bytes_per_s` and `triad_bytes_per_s` (bytes read and
            written), `upload_pinned_bytes_per_s`, `upload_pageable_bytes_per_s`, `launch_s` and `graph_launch_s` (one
            tiny operation), `allreduce_alpha_s`, `allreduce_beta_s_per_byte` (two processes of this host),
            `disk_read_bytes_per_s`, `page_cache_read_bytes_per_s`, `cache_bytes` (the last-level cache). What could
            not be measured is absent.
        environment: The fingerprint that they hold for.
        measured_at: UTC.
        contended: Names of those that somebody else's work disturbed: lower bounds only.
    """

    values: Mapping[str, Estimate]
    environment: Mapping[str, str]
    measured_at: datetime
    contended: tuple[str, ...] = ()

    def value(self, name: str) -> float | None:
        """The measured value; None where there is none."""
        return self.values[name].value if name in self.values else None


class Binding(StrEnum):
    """What keeps a configuration from being faster."""

    INPUT = "input"  # waiting for data
    HOST_LAUNCH = "host_launch"  # the host cannot hand out work as fast as the device could do it
    MEMORY_BANDWIDTH = "memory_bandwidth"
    COMPUTE = "compute"
    COMMUNICATION = "communication"  # waiting for other processes' data
    CAPACITY = "capacity"  # memory is full
    UNKNOWN = "unknown"
    INVALID = "invalid"  # throttled or contended: the measurement says nothing of the configuration


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What binds a configuration, and what could help.

    Attributes:
        binding: A resource.
        sentence: The diagnosis in one sentence for a person.
        evidence: The numbers behind it; names end in their unit.
        ceiling_ratio: Share of the hardware's measured limit that the bound resource delivers; None if not measured.
        confirmed: A causal probe relieved the resource, and the step became faster in proportion.
        elasticities: d ln(time of a step) / d ln(demand for a resource), by resource: 1 where it alone decides, 0 where
            it does not matter. Only resources that a probe has relieved.
        try_next: Parameters worth moving, best first.
        cannot_help: Parameters that do not act on what binds.
    """

    binding: Binding
    sentence: str = ""
    evidence: Metrics = field(default_factory=dict)
    ceiling_ratio: float | None = None
    confirmed: bool = False
    elasticities: Mapping[str, Estimate] = field(default_factory=dict)
    try_next: tuple[str, ...] = ()
    cannot_help: tuple[str, ...] = ()
