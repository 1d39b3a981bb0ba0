"""Runs of `autotune bench`: what one measured, and what it says of the build."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from autotuner.types.config import Config, Metrics


class BenchDecision(StrEnum):
    """What a run says of the build."""

    REGRESSION = "REGRESSION"  # proven: slower by more than the margin, does not run, or breaks a limit
    FASTER = "FASTER"  # proven: faster by more than the margin
    SAME = "SAME"  # no difference beyond the margin
    UNCLEAR = "UNCLEAR"  # neither is proven
    INVALID = "INVALID"  # disturbed, or there was nothing to compare with


@dataclass(frozen=True, slots=True)
class BenchKey:
    """Which runs make one history: they measure the same thing at the same place.

    Attributes:
        file: The study file from the root of its repository; outside of one, its absolute path.
        branch: What the history is called: the branch of the repository, unless the user says otherwise.
        settings: What `--set` replaced, one "key=value" a line, in order.
        metric: The objective.
        maximize: Its direction.
    """

    file: str
    branch: str
    settings: str
    metric: str
    maximize: bool


@dataclass(frozen=True, slots=True)
class BenchRun:
    """One run, as the record keeps it.

    Attributes:
        key: Which history it belongs to.
        revision: Of the repository, "+" at its end for a changed working tree; empty outside of one.
        environment: Hardware and software that it was measured on; runs of others are never compared with it.
        decision: What it said of the build.
        reason: In one sentence.
        value: Of the objective; None when it could not be measured.
        launch_values: The objective in each fresh process, in order.
        metrics: Further values, `{metric: value}`.
        violations: Excess of each limit, `{limit text: relative}`; kept when <= 0.
        broken: Limits that were kept before and are broken now.
        samples: Every raw value, by sample name; empty when it was not asked for.
        contended: Somebody else used the machine during most of it: no part of the history's level.
        failure: Why there is no value; empty when there is one.
        config: What was measured.
        base_revision: What it was compared with side by side; empty when with the history.
        base_metrics: Values of that.
        gain_ratio: Factor in the direction of improvement against that, or against the history's level before.
        gain_interval: Its 95 % interval.
        pairs: Interleaved pairs behind it.
        created_at: UTC; filled in by the record.
    """

    key: BenchKey
    revision: str
    environment: Mapping[str, str]
    decision: BenchDecision
    reason: str
    value: float | None = None
    launch_values: tuple[float, ...] = ()
    metrics: Metrics = field(default_factory=dict)
    violations: Metrics = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    contended: bool = False
    failure: str = ""
    config: Config = field(default_factory=dict)
    base_revision: str = ""
    base_metrics: Metrics = field(default_factory=dict)
    gain_ratio: float | None = None
    gain_interval: tuple[float, float] | None = None
    pairs: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BenchTrend:
    """What the history says.

    Attributes:
        level: The objective's present level.
        runs: Runs that it rests on.
        changed_at: Revision with which the present level began; empty when no change was proven.
        changed_ratio: Factor of that change in the direction of improvement.
        changed_interval: Its 95 % interval.
        expected: The next run's value; None when too little is known.
        expected_interval: What holds it with 95 %.
        slope_ratio: Proven trend, relative change a run; 0 without one.
    """

    level: float | None = None
    runs: int = 0
    changed_at: str = ""
    changed_ratio: float | None = None
    changed_interval: tuple[float, float] | None = None
    expected: float | None = None
    expected_interval: tuple[float, float] | None = None
    slope_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class BenchReport:
    """What `autotune bench` ends with.

    Attributes:
        run: The newest run; None when there is none.
        history: Runs of the same history in a like environment, oldest first, the newest included.
        changes: Places in `history` where the level changed.
        trend: What they say.
        notes: What a reader must know besides, a sentence each.
        record: URL of the record.
        margin: Differences up to it are none.
        measured: False when the history was only looked at.
        duration_s: Of the whole.
        maximize: `{metric: whether more of it is better}`, of the objectives.
    """

    key: BenchKey
    run: BenchRun | None
    history: tuple[BenchRun, ...]
    changes: tuple[int, ...]
    trend: BenchTrend
    notes: tuple[str, ...]
    record: str
    margin: float
    measured: bool = True
    duration_s: float = 0.0
    maximize: Mapping[str, bool] = field(default_factory=dict)
