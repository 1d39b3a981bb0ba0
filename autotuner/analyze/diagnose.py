"""What binds a configuration, as far as it can be said without a profiler. Unknown is better than wrong.

Two rules so far: a trial next to a failed one is bound by memory; a step whose time hardly grows with the batch is
bound by what every step pays anyway: launching kernels, or Python. The second is the fit t(b) = a + c b; it cannot tell
launches from reading the weights once a step, which a profile could.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotuner.metrics import format_quantity, median, value_of
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Config, Diagnosis, Failure, FailureKind, Measurement, Trial, config_key

_NEAR_LIMIT_RATIO = 0.9  # of a memory limit: the next larger step would break it
_FEWEST_SIZES = 3  # two points always lie on a line
_LARGEST_MISFIT_RATIO = 0.15  # of a time: beyond it the line says nothing
_BOUND_SHARE = 0.5


def diagnose(spec: StudySpec, config: Config, measurement: Measurement, trials: Sequence[Trial]) -> Diagnosis:
    """What binds `config`: `capacity`, `host_launch` or `unknown`.

    Args:
        spec: The study.
        config: What was measured.
        measurement: What was seen.
        trials: The record so far; those that differ from `config` in the batch only are compared with it.
    """
    return (
        _near_memory_limit(spec, measurement)
        or _next_to_out_of_memory(spec, config, measurement, trials)
        or _paying_per_step(spec, config, measurement, trials)
        or Diagnosis(Binding.UNKNOWN, "Nothing that was measured says what binds this configuration.")
    )


def _near_memory_limit(spec: StudySpec, measurement: Measurement) -> Diagnosis | None:
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
        try_next=_smaller(spec),
    )


def _next_to_out_of_memory(
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
    sentence = f"Memory: {batch} = {values[position + 1]} did not fit."
    return Diagnosis(Binding.CAPACITY, sentence, evidence, try_next=_smaller(spec))


def _paying_per_step(
    spec: StudySpec, config: Config, measurement: Measurement, trials: Sequence[Trial]
) -> Diagnosis | None:
    """More than half of the step does not depend on the batch, by a line that fits at least three sizes."""
    batch = batch_parameter(spec)
    times = {} if batch is None else _step_times(batch, config, measurement, trials)
    line = fit_line(times)
    if batch is None or line is None or line.misfit_ratio > _LARGEST_MISFIT_RATIO:
        return None
    size = float(config[batch] or 0)
    share = line.fixed_s / (line.fixed_s + line.per_item_s * size)
    if share <= _BOUND_SHARE:
        return None
    fixed, item = format_quantity(line.fixed_s, "s"), format_quantity(line.per_item_s, "s")
    return Diagnosis(
        Binding.HOST_LAUNCH,
        f"{share:.0%} of a step does not depend on {batch}: {fixed} for every step and {item} for every item.",
        {"overhead_share_ratio": share, "fixed_s": line.fixed_s, "per_item_s": line.per_item_s},
        try_next=(batch,),
    )


def batch_parameter(spec: StudySpec) -> str | None:
    """The parameter that says how much one step does: `batch_size`, or the only live one that drives memory."""
    numeric = [name for name, parameter in spec.parameters.items() if parameter.ordered]
    if "batch_size" in numeric:
        return "batch_size"
    sizes = [name for name in numeric if spec.trait(name).live and spec.trait(name).memory]
    return sizes[0] if len(sizes) == 1 else None


@dataclass(frozen=True, slots=True)
class Line:
    """t(b) = fixed_s + per_item_s b, and the largest residual relative to its time."""

    fixed_s: float
    per_item_s: float
    misfit_ratio: float


def fit_line(times_s: Mapping[float, float]) -> Line | None:
    """Least squares of the relative residuals, {batch: time of a step}; None if no rising line can be said.

    Weighting by 1 / t² keeps the longest step from deciding alone: timing noise is relative.
    """
    if len(times_s) < _FEWEST_SIZES or min(times_s.values()) <= 0:
        return None
    weights = {b: 1 / t**2 for b, t in times_s.items()}
    total = sum(weights.values())
    mean_b = sum(w * b for b, w in weights.items()) / total
    mean_t = sum(w * times_s[b] for b, w in weights.items()) / total
    slope = sum(w * (b - mean_b) * (times_s[b] - mean_t) for b, w in weights.items())
    slope /= sum(w * (b - mean_b) ** 2 for b, w in weights.items())
    fixed = mean_t - slope * mean_b
    if slope < 0 or fixed <= 0:
        return None
    misfit = max(abs(fixed + slope * b - t) / t for b, t in times_s.items())
    return Line(fixed, slope, misfit)


def _step_times(batch: str, config: Config, measurement: Measurement, trials: Sequence[Trial]) -> dict[float, float]:
    """{batch: seconds a step} of `config` and of the trials that differ from it in nothing else."""
    alike = config_key({**config, batch: None})
    seen = [(t.config, t.outcome) for t in trials if config_key({**t.config, batch: None}) == alike]
    times: dict[float, float] = {}
    for its_config, outcome in [*seen, (config, measurement)]:
        size = its_config[batch]
        if isinstance(outcome, Measurement) and isinstance(size, int | float) and size > 0:
            time_s = _step_s(outcome.samples, size)
            if time_s is not None:
                times[float(size)] = time_s
    return times


def _step_s(samples: Mapping[str, Sequence[float]], size: float) -> float | None:
    """Median seconds of a step that handles `size` items, from whichever of its samples there is."""
    if rates := samples.get("throughput_steps_per_s"):
        return 1 / median(rates)
    for name in ("throughput_requests_per_s", "throughput_samples_per_s"):
        if rates := samples.get(name):
            return size / median(rates)
    if times := samples.get("latency_s"):
        return median(times)
    return None


def _out_of_memory(trial: Trial) -> bool:
    return isinstance(trial.outcome, Failure) and trial.outcome.kind is FailureKind.OUT_OF_MEMORY


def _smaller(spec: StudySpec) -> tuple[str, ...]:
    return tuple(name for name in spec.parameters if spec.trait(name).memory)
