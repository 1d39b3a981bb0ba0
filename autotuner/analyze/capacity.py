"""Is it memory that keeps a configuration from more? Only where more would be faster."""

from collections.abc import Sequence

from autotuner.analyze.batch_slope import Line
from autotuner.analyze.shares import Shares
from autotuner.analyze.steps import batch_parameter, step_times_s
from autotuner.metrics import format_quantity, value_of
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Config, Diagnosis, Measurement, Trial, config_key

_NEAR_LIMIT_RATIO = 0.9  # of a memory limit: the next larger step would break it
_MANY_RETRIES = 3  # in a window: once or twice, a batch has found the cache in pieces
_WORTHWHILE_RATIO = 0.05  # of a step's time that a larger batch would share among more items

_GROWING = (Binding.COMPUTE, Binding.INPUT)  # what a larger batch needs more of in proportion
_GROWING_SHARE = 0.5  # of a step


def full_memory(
    spec: StudySpec,
    config: Config,
    measurement: Measurement,
    trials: Sequence[Trial],
    line: Line | None,
    shares: Shares | None,
) -> Diagnosis | None:
    """`capacity` when memory is nearly used up and a larger batch is not known to be useless; else None.

    Useless it is where the line through the batches says so, and where arithmetic or data take most of a step: both
    grow with the batch, unlike launches and weights, which more items would share.
    """
    if shares is not None and any(shares.ratios.get(each, 0.0) >= _GROWING_SHARE for each in _GROWING):
        return None
    found = (
        _retries(measurement) or _near_limit(spec, measurement) or _next_to_failure(spec, config, measurement, trials)
    )
    return found if found is None or _still_gains(spec, config, measurement, trials, line) else None


def _still_gains(
    spec: StudySpec, config: Config, measurement: Measurement, trials: Sequence[Trial], line: Line | None
) -> bool:
    """By the line; where no line fits, whether this batch still gained over the next smaller one that was tried."""
    batch = batch_parameter(spec)
    if batch is None:
        return True
    size = float(config[batch] or 0)
    if line is not None:
        return line.fixed_s > _WORTHWHILE_RATIO * line.time_s(size)
    times_s = step_times_s(batch, config, measurement, trials)
    smaller = max((tried for tried in times_s if tried < size), default=None)
    return smaller is None or size / times_s[size] > (1 + _WORTHWHILE_RATIO) * smaller / times_s[smaller]


def _retries(measurement: Measurement) -> Diagnosis | None:
    retries = measurement.telemetry.get("allocator_retries", 0.0)
    if retries < _MANY_RETRIES:
        return None
    sentence = f"Memory: the allocator gave its cache back and tried again {retries:,.0f} times."
    return Diagnosis(Binding.CAPACITY, sentence, {"allocator_retries": retries})


def _near_limit(spec: StudySpec, measurement: Measurement) -> Diagnosis | None:
    """The peak is close to, or past, an absolute limit on memory."""
    peak, limit_bytes = value_of("peak_memory_bytes", measurement.samples), spec.memory_limit_bytes
    if not peak > _NEAR_LIMIT_RATIO * limit_bytes:
        return None
    share = peak / limit_bytes
    return Diagnosis(
        Binding.CAPACITY,
        f"Memory: {format_quantity(peak, 'bytes')} is {share:.0%} of the limit.",
        {"peak_memory_bytes": peak, "memory_limit_bytes": limit_bytes},
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
    if not any(trial.ran_out_of_memory and config_key(trial.config) == larger for trial in trials):
        return None
    peak = value_of("peak_memory_bytes", measurement.samples)
    evidence = {"peak_memory_bytes": peak} if peak == peak else {}
    return Diagnosis(Binding.CAPACITY, f"Memory: {batch} = {values[position + 1]} did not fit.", evidence)
