"""What a study's page shows, as plain values: it knows neither the store nor the search."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from autotuner.report.text import gain, print_value
from autotuner.types import Config, Diagnosis, Metrics, Value, Verification


@dataclass(frozen=True, slots=True)
class Tried:
    """A trial, as far as it is shown.

    Attributes:
        number: From 0, the baseline.
        config: What was tried.
        changed: What of it differs from the baseline.
        origin: Who proposed it.
        kind: "ok", "violated", "failed", or "winner".
        value: What trials are ranked by; NaN when it failed.
        values: All objectives.
        precision_ratio: Half-width of the interval of `value`, relative to it.
        text: Why it failed or which limit it breaks; empty when it is fine.
        reason: Why it was tried; empty when the record does not say.
        bound: What binds it.
        evidence: The numbers behind the diagnosis.
        seconds: That it took.
        best_so_far: No earlier one was better.
        log: Of a failure, below the study's folder.
    """

    number: int
    config: Config
    changed: Config
    origin: str
    kind: str
    value: float
    values: Metrics
    precision_ratio: float
    text: str
    reason: str
    bound: str
    evidence: Metrics
    seconds: float
    best_so_far: bool
    log: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """A study from its record.

    Attributes:
        name: Of the study.
        created_at: UTC.
        goal: The objectives in words.
        metric: What trials are ranked by.
        maximize: Its direction.
        objectives: `{metric: whether larger is better}`.
        limits: As written.
        parameters: `{name: values}`.
        baseline: Configuration.
        tried: Every trial in order.
        front: Numbers of the trials that none beats in all objectives; empty with one objective.
        verifications: With their times, in order.
        baseline_diagnosis: What bound it; None when it failed.
        diagnosis: What binds the best; None when that is the baseline.
        failures: `{kind: count}`.
        phases_s: Where the time went; empty while it runs.
        stopped: Why the search ended.
        ceilings: What the machine can do at most, measured on it.
        environment: Where it ran.
        source: The study file.
        settings: Budget, protocol, strategy: `{key: value}`.
        commands: How to do it again, and what next: `{what: command}`.
        under_way: What an unfinished study was last seen at; empty when it is finished.
    """

    name: str
    created_at: datetime
    goal: str
    metric: str
    maximize: bool
    objectives: Mapping[str, bool]
    limits: tuple[str, ...]
    parameters: Mapping[str, tuple[Value, ...]]
    baseline: Config
    tried: tuple[Tried, ...]
    front: frozenset[int]
    verifications: tuple[tuple[datetime, Verification], ...]
    baseline_diagnosis: Diagnosis | None
    diagnosis: Diagnosis | None
    failures: Mapping[str, int]
    phases_s: Mapping[str, float]
    stopped: str
    ceilings: Mapping[str, float]
    environment: Mapping[str, str]
    source: str
    settings: Mapping[str, str]
    commands: Mapping[str, str]
    under_way: str = ""

    @property
    def verification(self) -> Verification | None:
        """The last one."""
        return self.verifications[-1][1] if self.verifications else None

    @property
    def baseline_value(self) -> float:
        """In the search; NaN when it failed."""
        return self.tried[0].value if self.tried else math.nan

    def gain(self, tried: Tried) -> float:
        """How many times better than the baseline, in the search."""
        return gain(tried.value, self.baseline_value, self.maximize)

    def print(self, value: float) -> str:
        """A value of the metric with its unit."""
        return print_value(self.metric, value)
