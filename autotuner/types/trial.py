"""A trial: a configuration, what came of it, and what that means."""

from dataclasses import dataclass
from enum import StrEnum

from autotuner.types.config import Config, Metrics
from autotuner.types.diagnosis import Diagnosis
from autotuner.types.outcome import Failure, FailureKind, Outcome


class Origin(StrEnum):
    """Who proposed a configuration."""

    BASELINE = "baseline"
    SAMPLER = "sampler"
    HINT = "hint"
    TRANSFER = "transfer"
    CONTEST = "contest"


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

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether it did not fit."""
        return isinstance(self.outcome, Failure) and self.outcome.kind is FailureKind.OUT_OF_MEMORY
