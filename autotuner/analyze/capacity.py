"""Is it memory that keeps a configuration from more? Only where more would be faster."""

from collections.abc import Sequence

from autotuner.analyze.batch_slope import Line
from autotuner.analyze.steps import batch_parameter
from autotuner.metrics import format_quantity, value_of
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Config, Diagnosis, Failure, FailureKind, Measurement, Trial, config_key

_NEAR_LIMIT_RATIO = 0.9  # of a memory limit: the next larger step would break it
_WORTHWHILE_RATIO = 0.05  # of a step's time that a larger batch would share among more items


def full_memory(
    spec: StudySpec, config: Config, measurement: Measurement, trials: Sequence[Trial], line: Line | None
) -> Diagnosis | None:
    """`capacity` when memory is nearly used up and a larger batch is not known to be useless; else None."""
    found = (
        _retries(measurement) or _near_limit(spec, measurement) or _next_to_failure(spec, config, measurement, trials)
    )
    if found is None or (line is not None and not _still_gains(spec, config, line)):
        return None
    return found


def _still_gains(spec: StudySpec, config: Config, line: Line) -> bool:
    batch = batch_parameter(spec)
    size = float(config[batch] or 0) if batch else 0.0
    return line.fixed_s > _WORTHWHILE_RATIO * (line.fixed_s + line.per_item_s * size)


def _retries(measurement: Measurement) -> Diagnosis | None:
    retries = measurement.telemetry.get("allocator_retries", 0.0)
    if not retries:
        return None
    sentence = f"Memory: the allocator gave its cache back and tried again {retries:,.0f} times."
    return Diagnosis(Binding.CAPACITY, sentence, {"allocator_retries": retries})


def _near_limit(spec: StudySpec, measurement: Measurement) -> Diagnosis | None:
    """The peak is close to, or past, an absolute limit on memory."""
    peak = value_of("peak_memory_bytes", measurement.samples)
    bounds = [
        limit.bound
        for limit in spec.limits
        if limit.metric == "peak_memory_bytes" and limit.op == "<=" and not limit.relative
    ]
    if not bounds or not peak > _NEAR_LIMIT_RATIO * min(bounds):
        return None
    share = peak / min(bounds)
    return Diagnosis(
        Binding.CAPACITY,
        f"Memory: {format_quantity(peak, 'bytes')} is {share:.0%} of the limit.",
        {"peak_memory_bytes": peak, "memory_limit_bytes": min(bounds)},
        ceiling_ratio=share,
    )


def _next_to_failure(
    spec: StudySpec, config: Config, measurement: Measurement, trials: Sequence[Trial]
) -> Diagnosis | None:
    """The next larger batch was tried and did not fit."""
    batch = batch_parameter(spec)
    if batch is None:
        return None
    values = spec.parameters[batch].values
    position = values.index(config[batch])
    if position + 1 == len(values):
        return None
    larger = config_key({**config, batch: values[position + 1]})
    if not any(_out_of_memory(trial) and config_key(trial.config) == larger for trial in trials):
        return None
    peak = value_of("peak_memory_bytes", measurement.samples)
    evidence = {"peak_memory_bytes": peak} if peak == peak else {}
    return Diagnosis(Binding.CAPACITY, f"Memory: {batch} = {values[position + 1]} did not fit.", evidence)


def _out_of_memory(trial: Trial) -> bool:
    return isinstance(trial.outcome, Failure) and trial.outcome.kind is FailureKind.OUT_OF_MEMORY
