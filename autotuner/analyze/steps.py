"""Step times of the record by batch size: what a line through them can be drawn from."""

from collections.abc import Mapping, Sequence

from autotuner.metrics import median
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Measurement, Trial, config_key


def batch_parameter(spec: StudySpec) -> str | None:
    """The parameter that says how much one step does: `batch_size`, or the only live one that drives memory."""
    numeric = [name for name, parameter in spec.parameters.items() if parameter.ordered]
    if "batch_size" in numeric:
        return "batch_size"
    sizes = [name for name in numeric if spec.trait(name).live and spec.trait(name).memory]
    return sizes[0] if len(sizes) == 1 else None


def step_times_s(batch: str, config: Config, measurement: Measurement, trials: Sequence[Trial]) -> dict[float, float]:
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
