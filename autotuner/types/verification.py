"""The proof of a winner."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autotuner.types.config import Config, Metrics


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
    FREE = "free"  # what is computed is another thing, as the file asks: a global batch that may change


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether a candidate computes what the baseline computes.

    Attributes:
        tier: The rule that was applied, the loosest among the changed parameters.
        reason: One sentence with the deciding number.
        metrics: Deviations from the reference (`output_error_ratio`, `output_kl_nats`, …).
        judged: False where nothing was compared: the file says so, or there is nothing to compare.
    """

    kept: bool
    tier: Tier
    reason: str
    metrics: Metrics = field(default_factory=dict)
    judged: bool = True


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
        worst_case: What the candidate needed on the largest input that there is, in a process of its own:
            `peak_memory_bytes` and `steps`; empty where all inputs are alike.
        warning: What a reader must know before using the candidate; empty when it does what the baseline does.
        duration_s: Of the whole verification.
        maximize: `{metric: whether more of it is better}`, of the objectives; of others their kind says it.
        environment: The machine and versions that it was measured on; empty where nothing was, and in old records.
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
    worst_case: Metrics = field(default_factory=dict)
    warning: str = ""
    duration_s: float = 0.0
    maximize: Mapping[str, bool] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
