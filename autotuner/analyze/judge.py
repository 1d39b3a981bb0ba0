"""A measurement against the study's objectives and limits."""

import math
from collections.abc import Mapping, Sequence

from autotuner.analyze.derived import derive
from autotuner.analyze.diagnose import diagnose
from autotuner.errors import UsageError
from autotuner.metrics import METRICS, SCORE, metric, value_of
from autotuner.spec.model import StudySpec
from autotuner.statistics import half_width_ratio
from autotuner.types import Ceilings, Config, Measurement, Metrics, Trial, Verdict

Samples = Mapping[str, Sequence[float]]


def judge(
    spec: StudySpec,
    config: Config,
    measurement: Measurement,
    baseline: Measurement | None,
    trials: Sequence[Trial] = (),
    ceilings: Ceilings | None = None,
) -> Verdict:
    """Say what a measurement is worth.

    Args:
        spec: The study.
        config: What was measured.
        measurement: What was seen of it.
        baseline: What limits relative to the baseline refer to; None while the baseline itself is judged, which
            then is its own reference. A limit that the baseline breaks is recorded like any other.
        trials: The record so far: a diagnosis compares.
        ceilings: What this machine can do at most.

    Raises:
        UsageError: The workload does not report an objective.
    """
    samples = all_samples(measurement, ceilings)
    reference = samples if baseline is None else all_samples(baseline, ceilings)
    return Verdict(
        objectives=_objectives(spec, samples, reference if baseline or not trials else None),
        violations={
            limit.text: limit.excess(value_of(limit.metric, samples), value_of(limit.metric, reference))
            for limit in spec.limits
        },
        diagnosis=diagnose(spec, config, measurement, trials, ceilings),
        precision_ratio=_precision_ratio(spec, samples),
    )


def _precision_ratio(spec: StudySpec, samples: Samples) -> float:
    """Half-width of the objective's interval; of several, of their score, as if their errors had nothing in common."""
    ratios = [powered * _half_width_ratio(spec, name, samples) for name, powered in spec.objective.powers.items()]
    known = [ratio for ratio in ratios if math.isfinite(ratio)]  # what is measured once in a window has none
    return math.hypot(*known) if known else math.inf


def _half_width_ratio(spec: StudySpec, name: str, samples: Samples) -> float:
    row, seconds = metric(name), samples.get("block_s", ())
    values = samples[row.samples]
    weights = seconds if len(seconds) == len(values) else ()
    match row.reduction:
        case "mean":
            return half_width_ratio(values, weights, spec.seed, share=None)
        case "p95" | "p99":
            return half_width_ratio(values, (), spec.seed, share=int(row.reduction[1:]) / 100)
    return half_width_ratio(values, weights, spec.seed)


def all_samples(measurement: Measurement, ceilings: Ceilings | None = None) -> Samples:
    """Everything that the table of metrics can be made of: the worker's samples, telemetry, and what follows from them.

    Args:
        measurement: One window.
        ceilings: Of this machine; without them nothing that is held against them is known.
    """
    named = {row.samples for row in METRICS.values()}
    telemetry = {name: (value,) for name, value in measurement.telemetry.items() if name in named}
    averaged = {
        row.samples: (measurement.telemetry[row.name],) for row in METRICS.values() if row.name in measurement.telemetry
    }
    seen = {"setup_s": (measurement.setup_s,), **averaged, **telemetry, **measurement.samples}
    return {**derive(seen, measurement.telemetry, ceilings), **seen}


def all_values(measurement: Measurement, ceilings: Ceilings | None = None) -> Metrics:
    """Every metric of the table that is known of a measurement."""
    samples = all_samples(measurement, ceilings)
    return {name: value_of(name, samples) for name, row in METRICS.items() if samples.get(row.samples)}


def _objectives(spec: StudySpec, samples: Samples, reference: Samples | None) -> Metrics:
    """Every objective's value, and first what trials are ranked by.

    Args:
        spec: The study.
        samples: Of the trial.
        reference: Of the baseline, whose score is 1; None when it failed: then the score has no such meaning.
    """
    values = {name: _value(name, samples) for name in spec.objective.metrics}
    if reference is samples:
        _check_comparable(values)
    if len(values) == 1:
        return values
    unit = spec.objective.value(reference) if reference is not None else 1.0
    return {SCORE: spec.objective.value(samples) / unit, **values}


def _check_comparable(values: Metrics) -> None:
    """A gain is a ratio to the baseline's value."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            hint = "begin with a default that does better, or make it a limit and optimise something else"
            raise UsageError(f"{name} of the baseline is {value:g}, and nothing can be compared with that", hint)


def _value(name: str, samples: Samples) -> float:
    if not samples.get(metric(name).samples):
        reported = [row.name for row in METRICS.values() if samples.get(row.samples)]
        raise UsageError(f"the workload does not report {name}", "it reports " + ", ".join(reported))
    return value_of(name, samples)
