"""The history of a file: which runs are alike, where their level changed, and what the next one will be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotuner.analyze.drift import Drift, find_drift, forecast
from autotuner.monitor import environment
from autotuner.spec.model import StudySpec
from autotuner.statistics import mean_interval
from autotuner.types import BenchRun, BenchTrend

# What a build may change without being on another machine; the rest of the fingerprint must be equal.
_NOT_THE_MACHINE = ("kernel", "autotune")


@dataclass(frozen=True, slots=True)
class Past:
    """Like runs.

    Attributes:
        runs: All of them, oldest first.
        counted: Those that make the level: measured, and not disturbed.
        drift: Of the logarithms of their values, in the direction of improvement; its places are of `counted`.
    """

    runs: tuple[BenchRun, ...]
    counted: tuple[BenchRun, ...]
    drift: Drift


def surroundings(spec: StudySpec) -> dict[str, str]:
    """Hardware and versions that runs must share to be compared; not what is tuned, for that is what may change."""
    found = environment.fingerprint(spec.device, {})
    return {name: value for name, value in found.items() if name not in _NOT_THE_MACHINE}


def past_of(runs: Sequence[BenchRun], here: Mapping[str, str]) -> Past:
    """The runs of one history that were measured in an environment like this."""
    alike = tuple(run for run in runs if run.environment == here)
    counted = tuple(run for run in alike if run.value is not None and run.value > 0 and not run.contended)
    return Past(alike, counted, find_drift(*_series(counted)))


def left_out(runs: Sequence[BenchRun], here: Mapping[str, str]) -> str:
    """What to say of runs in other environments; empty for none."""
    others = [run.environment for run in runs if run.environment != here]
    if not others:
        return ""
    names = sorted({name for one in others for name in {*one, *here} if one.get(name) != here.get(name)})
    count = f"{len(others)} run{'s' * (len(others) > 1)}"
    return f"{count} in other environments left out: {', '.join(names[:5])} differ{'s' * (len(names) == 1)}"


def _series(counted: Sequence[BenchRun]) -> tuple[list[float], list[float]]:
    """Logarithms in the direction of improvement, and their standard errors between launches."""
    values, spreads = [], []
    for run in counted:
        assert run.value is not None
        values.append((1 if run.key.maximize else -1) * math.log(run.value))
        logs = [math.log(value) for value in run.launch_values if value > 0]
        count = len(logs)
        mean = mean_interval(logs)[0] if logs else 0.0
        spread = math.fsum((log - mean) ** 2 for log in logs)
        spreads.append(math.sqrt(spread / (count - 1) / count) if count > 1 else 0.0)
    return values, spreads


def trend_of(past: Past) -> BenchTrend:
    """Level, last change and forecast, in the metric's own unit and direction."""
    if not past.counted:
        return BenchTrend()
    sign = 1 if past.counted[0].key.maximize else -1
    drift, coming, change = past.drift, forecast(*_series(past.counted)), past.drift.last

    def value(log: float) -> float:
        return math.exp(sign * log)

    known = math.isfinite(coming.low)
    ends = sorted([value(coming.low), value(coming.high)]) if known else []
    return BenchTrend(
        level=value(drift.level),
        runs=drift.count,
        changed_at=_name(past.counted[change.index]) if change else "",
        changed_ratio=math.exp(change.shift) if change else None,
        changed_interval=(math.exp(change.low), math.exp(change.high)) if change else None,
        expected=value(coming.value),
        expected_interval=(ends[0], ends[1]) if known else None,
        slope_ratio=math.expm1(sign * coming.slope),
    )


def _name(run: BenchRun) -> str:
    return run.revision or (f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else "now")


def changes_in(past: Past) -> tuple[int, ...]:
    """Places in `past.runs` where a new level begins."""
    return tuple(past.runs.index(past.counted[change.index]) for change in past.drift.changes)
