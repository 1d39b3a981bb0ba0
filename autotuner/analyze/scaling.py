"""How much faster more processes are: throughput of R ranks against R times that of one.

Amdahl 1967; the global batch stays what the study makes it, so this is strong scaling where the batch is fixed and weak
scaling where it grows with the ranks. Trials of a search stand minutes apart: a verification decides between two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.analyze.judge import all_samples
from autotuner.metrics import value_of
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Measurement, Trial

_RATES = ("throughput_samples_per_s", "throughput_tokens_per_s", "throughput_requests_per_s", "throughput_steps_per_s")


@dataclass(frozen=True, slots=True)
class Scaling:
    """A configuration of several ranks beside the same one on a single rank.

    Attributes:
        trial: Number of the trial.
        single_trial: Number of the single rank's.
        changed: What the configuration changes of the baseline.
        ranks: Processes that ran it together, > 1.
        metric: Which throughput was compared.
        throughput_per_s: Of all ranks together.
        scaling_efficiency_ratio: throughput_per_s / (ranks x throughput of the single rank); 1 is linear.
    """

    trial: int
    single_trial: int
    changed: Config
    ranks: int
    metric: str
    throughput_per_s: float
    scaling_efficiency_ratio: float


def scaling(spec: StudySpec, trials: Sequence[Trial]) -> list[Scaling]:
    """Every measured configuration of several ranks whose twin on one rank was measured too, fewest ranks first.

    Twins are equal in all but the parameters that decide on the number of ranks, and those that only count with
    several. Windows that somebody else disturbed say nothing.
    """
    measured = [trial for trial in trials if isinstance(trial.outcome, Measurement) and not trial.outcome.contended]
    counts = {trial.number: spec.workload.ranks(trial.config) for trial in measured}
    singles = [trial for trial in measured if counts[trial.number] == 1]
    rows = []
    for trial in measured:
        twin = _twin(spec, trial.config, singles) if counts[trial.number] > 1 else None
        row = _compare(spec, trial, counts[trial.number], twin) if twin else None
        rows += [row] if row else []
    return sorted(rows, key=lambda row: (row.ranks, row.trial))


def _twin(spec: StudySpec, config: Config, singles: Sequence[Trial]) -> Trial | None:
    """The single rank that becomes of `config` by moving nothing but what decides on the number of ranks."""
    deciding = [name for name in spec.parameters if _decides(spec, config, name)]
    for single in singles:
        moved = _settled(spec, {**config, **{name: single.config[name] for name in deciding}})
        if moved == single.config:
            return single
    return None


def _decides(spec: StudySpec, config: Config, name: str) -> bool:
    """Whether another value of a parameter makes another number of ranks."""
    return len({spec.workload.ranks({**config, name: value}) for value in spec.parameters[name].values}) > 1


def _settled(spec: StudySpec, config: Config) -> Config:
    """Canonical, also where one condition hangs on another."""
    for _ in spec.parameters:
        config = spec.canonical(config)
    return config


def _compare(spec: StudySpec, trial: Trial, ranks: int, single: Trial) -> Scaling | None:
    assert isinstance(trial.outcome, Measurement), trial
    assert isinstance(single.outcome, Measurement), single
    many, one = all_samples(trial.outcome), all_samples(single.outcome)
    names = dict.fromkeys([*spec.objective.metrics, *_RATES])
    metric = next((name for name in names if name in _RATES and many.get(name) and one.get(name)), None)
    if metric is None or value_of(metric, one) <= 0:
        return None
    throughput_per_s = value_of(metric, many)
    changed = {name: value for name, value in trial.config.items() if value != spec.baseline[name]}
    efficiency_ratio = throughput_per_s / (ranks * value_of(metric, one))
    return Scaling(trial.number, single.number, changed, ranks, metric, throughput_per_s, efficiency_ratio)
