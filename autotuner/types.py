"""The values that cross a boundary: frozen, comparable, picklable, free of behaviour.

Quantities are in SI base units and say so in their name (`_s`, `_bytes`, `_w`, `_j`, `_per_s`, `_ratio`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

Value: TypeAlias = bool | int | float | str | None
Config: TypeAlias = Mapping[str, Value]
Metrics: TypeAlias = Mapping[str, float]


def config_key(config: Config) -> str:
    """The identity of a configuration: equal for equal values, whatever the order of the parameters.

    >>> config_key({"b": 1, "a": True})
    '{"a":true,"b":1}'
    """
    return json.dumps(dict(config), sort_keys=True, separators=(",", ":"))


class FailureKind(StrEnum):
    """Why a trial gave no measurement."""

    OUT_OF_MEMORY = "out_of_memory"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    INVALID_CONFIG = "invalid_config"
    NOT_FINITE = "not_finite"
    UNSUPPORTED = "unsupported"
    CANCELLED = "cancelled"


class Origin(StrEnum):
    """Who proposed a configuration."""

    BASELINE = "baseline"
    SAMPLER = "sampler"
    HINT = "hint"
    TRANSFER = "transfer"
    CONTEST = "contest"


class Decision(StrEnum):
    """What a verification concludes of a candidate against the baseline."""

    BETTER = "BETTER"
    SAME = "SAME"
    WORSE = "WORSE"
    AMBIGUOUS = "AMBIGUOUS"
    INVALID = "INVALID"


class Tier(StrEnum):
    """How far a parameter may move the outputs: the rule by which equivalence is judged, strictest first."""

    EXACT = "exact"  # bit for bit: input pipeline, where work runs
    ROUNDING = "rounding"  # the order of additions: batch size, kernels, threads, compilation
    PRECISION = "precision"  # fewer bits: dtype, quantisation, parallel reductions


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


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What binds a configuration, and what could help.

    Attributes:
        binding: `input`, `host_launch`, `memory_bandwidth`, `compute`, `communication`, `capacity` or `unknown`.
        sentence: The diagnosis in one sentence for a person.
        evidence: The numbers behind it; names end in their unit.
        ceiling_ratio: Share of the hardware's measured limit; None if it was not measured.
        elasticities: d ln(objective) / d ln(resource).
        try_next: Parameters worth moving, best first.
    """

    binding: str
    sentence: str = ""
    evidence: Metrics = field(default_factory=dict)
    ceiling_ratio: float | None = None
    elasticities: Metrics = field(default_factory=dict)
    try_next: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A measurement judged against the study's objectives and limits.

    Attributes:
        objectives: `{metric: value}`.
        violations: `{limit as written: excess}`; relative to the bound, kept when <= 0.
        diagnosis: What binds it.
        precision_ratio: Half-width of the 95 % interval of the first objective, relative to it.
    """

    objectives: Metrics
    violations: Metrics
    diagnosis: Diagnosis
    precision_ratio: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether every limit is kept."""
        return all(excess <= 0 for excess in self.violations.values())


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration, tried once. `verdict` is None exactly when `outcome` is a Failure."""

    number: int
    config: Config
    origin: Origin
    outcome: Outcome
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether a candidate computes what the baseline computes.

    Attributes:
        tier: The rule that was applied, the loosest among the changed parameters.
        reason: One sentence with the deciding number.
        metrics: Deviations from the reference (`output_error_ratio`, `output_kl_nats`, …).
    """

    kept: bool
    tier: Tier
    reason: str
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """One interleaved comparison: both arms measured side by side.

    Attributes:
        launch: Number of the launch (fresh processes for both arms), from 0.
        candidate: The objective's value of the candidate in this pair.
        baseline: The same of the baseline.
        contended: Somebody else used the machine meanwhile.
    """

    launch: int
    candidate: float
    baseline: float
    contended: bool = False


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one changed parameter is worth: the winner against itself with this parameter at its default.

    Attributes:
        gain_ratio: Factor, > 1 means that the change helps.
        gain_interval: 95 %, as factors; (0, inf) when too few pairs were taken.
    """

    parameter: str
    gain_ratio: float
    gain_interval: tuple[float, float]
    pairs: int


@dataclass(frozen=True, slots=True)
class Verification:
    """A candidate against the baseline, on fresh data only.

    Attributes:
        decision: BETTER, SAME, WORSE, AMBIGUOUS or INVALID.
        reason: The decision in one sentence.
        config: The candidate.
        metric: The objective that was compared.
        gain_ratio: Factor in the direction of improvement: 1.25 is a quarter better, whatever the metric.
        gain_interval: 95 % confidence sequence of the factor, valid at the moment of stopping.
        pairs: Raw evidence in order of time.
        noise_floor_ratio: Standard deviation of the log ratio of one pair.
        equivalence: Whether the outputs are the same.
        metrics: Verified values of the candidate, `{metric: value}`.
        baseline_metrics: The same of the baseline.
        violations: Limits that the candidate breaks in verification, as in `Verdict`.
        contributions: What each changed parameter is worth.
    """

    decision: Decision
    reason: str
    config: Config
    baseline: Config
    metric: str
    gain_ratio: float
    gain_interval: tuple[float, float]
    pairs: tuple[Pair, ...] = ()
    noise_floor_ratio: float = 0.0
    equivalence: Equivalence | None = None
    metrics: Metrics = field(default_factory=dict)
    baseline_metrics: Metrics = field(default_factory=dict)
    violations: Metrics = field(default_factory=dict)
    contributions: tuple[Contribution, ...] = ()
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What a study hands to deployment.

    Attributes:
        config: The configuration to use; the baseline's unless a candidate was verified BETTER.
        baseline: What was used before.
        verification: The proof.
        environment: The machine and versions that it was proven on.
    """

    study: str
    config: Config
    baseline: Config
    verification: Verification
    environment: Mapping[str, str]
