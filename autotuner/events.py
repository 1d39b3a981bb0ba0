"""What a running study tells whoever watches it: values, in order; the terminal, JSON lines and tests listen."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from autotuner.types import Config, Decision, Diagnosis, Metrics, Origin, Pair, Trial, Verification


@dataclass(frozen=True, slots=True)
class StudyStarted:
    """The loop begins, or goes on.

    Attributes:
        name: Of the study.
        metric: First objective.
        maximize: Its direction.
        parameters: How many parameters may change.
        legal_size: Number of legal configurations, None if they were too many to count.
        max_trials: Budget.
        budget_s: Budget of time for everything, None if unlimited.
        kept_trials: Trials that an earlier run left.
        machine: One line for a person.
        record: URL of the record.
        folder: The study's folder: logs, exports.
        baseline_value: Of the first objective, from an earlier run; NaN if it is not known yet.
    """

    name: str
    metric: str
    maximize: bool
    parameters: int
    legal_size: int | None
    max_trials: int
    budget_s: float | None
    kept_trials: int
    machine: str
    record: str
    folder: str
    baseline_value: float = math.nan


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A configuration is about to be measured. `changed` holds what differs from the baseline."""

    number: int
    config: Config
    changed: Config
    origin: Origin


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial is in the record. `best` is the number of the best feasible trial so far, None if there is none."""

    trial: Trial
    changed: Config
    best: int | None
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class StageStarted:
    """The verification enters a stage: "outputs", "race", "contributions", "contest"; or it is `autotune bench`'s.

    `text` says what is compared.
    """

    stage: str
    text: str


@dataclass(frozen=True, slots=True)
class PairMeasured:
    """One more interleaved pair of a contest; `gain_interval` is (0, inf) while too few are known."""

    stage: str
    pair: Pair
    count: int
    gain_ratio: float
    gain_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the user should know: contention, a retried trial, telemetry that could not be delivered."""

    text: str


@dataclass(frozen=True, slots=True)
class StudySummary:
    """The end of a study, as printed and as `--json` gives it.

    Attributes:
        name: Of the study.
        decision: Of the verification; INVALID when nothing could be verified.
        reason: In one sentence, also why the search stopped.
        verification: None when there was nothing to verify.
        trials: How many are in the record.
        failures: `{kind: count}`.
        phases_s: Seconds by phase: "starting", "setup", "warmup", "measuring", "diagnosing",
            "verifying", "other".
        record: URL of the record.
        folder: The study's folder.
        environment: Fingerprint of the machine.
        baseline_values: Objectives of the baseline in the search, for orientation.
        last_log: Log of the last failure, relative to the folder; empty if nothing failed.
        baseline_diagnosis: What bound the baseline in the search.
        diagnosis: What binds the candidate; None when there is none.
    """

    name: str
    decision: Decision
    reason: str
    verification: Verification | None
    trials: int
    failures: Mapping[str, int]
    phases_s: Metrics
    record: str
    folder: str
    environment: Mapping[str, str]
    baseline_values: Metrics = field(default_factory=dict)
    last_log: str = ""
    baseline_diagnosis: Diagnosis | None = None
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True, slots=True)
class StudyEnded:
    """The loop is done."""

    summary: StudySummary


Event: TypeAlias = StudyStarted | TrialStarted | TrialEnded | StageStarted | PairMeasured | Note | StudyEnded
Listener: TypeAlias = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener that does not listen."""
