"""All trials as a real Optuna study, for its dashboard and plots; nothing that a deployment reads."""

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from autotuner.plugins import Exporter
from autotuner.spec import restore
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Draft, Measurement, Recommendation, Trial, Value, config_key

if TYPE_CHECKING:
    import optuna

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # Optuna wants a time, and a failure has none but its duration


_FAR = 1e9  # a violation that is not finite: JSON has no infinity


class OptunaExporter(Exporter):
    """A real Optuna study with every trial, for optuna-dashboard and notebooks."""

    kind: Literal["optuna"] = "optuna"
    target_version: ClassVar[str] = "Optuna 4.9 to 5 (JournalStorage)"
    needs: ClassVar[str] = "any study, finished or not"
    deploys: ClassVar[bool] = False

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """`optuna.journal`, Optuna's own file format: with a database each trial costs it many commits."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optuna.journal"
            _write(path, recommendation)
            lines = [json.loads(line) for line in path.read_text().splitlines()]
        content = "".join(json.dumps({**line, "worker_id": "autotune"}) + "\n" for line in lines)
        use = "`optuna-dashboard {bundle}/optuna.journal`; "
        use += "`JournalStorage(JournalFileBackend('{bundle}/optuna.journal'))`"
        return Draft({"optuna.journal": content.encode()}, use)


def _write(path: Path, recommendation: Recommendation) -> None:
    import optuna

    spec = restore(recommendation.spec)
    distributions = {name: _distribution(parameter.values) for name, parameter in spec.parameters.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    directions = ["maximize" if objective.maximize else "minimize" for objective in spec.objectives]
    study = optuna.create_study(storage=storage, study_name=recommendation.study, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric for objective in spec.objectives])
    proof = recommendation.verification
    for name in ("decision", "gain_ratio", "gain_interval", "reason"):
        study.set_user_attr(name, getattr(proof, name))
    study.add_trials([*_trials(recommendation, spec, distributions)])


def _trials(
    recommendation: Recommendation,
    spec: StudySpec,
    distributions: "Mapping[str, optuna.distributions.BaseDistribution]",
) -> "Iterator[optuna.trial.FrozenTrial]":
    """In order; a failure began when the trial before it had ended."""
    proven, ended = config_key(recommendation.verification.config), _LONG_AGO
    for trial in recommendation.trials:
        outcome = trial.outcome
        if isinstance(outcome, Measurement):
            began = outcome.started_at
            ended = began + timedelta(seconds=outcome.setup_s + outcome.warmup_s + outcome.duration_s)
        else:
            began, ended = ended, ended + timedelta(seconds=outcome.duration_s)
        made = _trial(trial, spec, distributions)
        made.datetime_start, made.datetime_complete = began.replace(tzinfo=None), ended.replace(tzinfo=None)
        made.set_user_attr("verified", config_key(trial.config) == proven)
        yield made


def _trial(
    trial: Trial, spec: StudySpec, distributions: "Mapping[str, optuna.distributions.BaseDistribution]"
) -> "optuna.trial.FrozenTrial":
    import optuna

    told: dict[str, Any] = {"origin": trial.origin.value}
    values, kept = None, dict[str, list[float]]()
    if trial.verdict is not None and isinstance(trial.outcome, Measurement):
        values = [trial.verdict.objectives[objective.metric] for objective in spec.objectives]
        told |= {"binding": trial.verdict.diagnosis.binding.value, "violations": dict(trial.verdict.violations)}
        told |= {"feasible": trial.verdict.feasible}
        kept["constraints"] = [min(excess, _FAR) for excess in trial.verdict.violations.values()]
    elif not isinstance(trial.outcome, Measurement):
        told["failure"] = trial.outcome.kind.value
    return optuna.trial.FrozenTrial(
        number=trial.number, trial_id=trial.number, value=None, values=values, params=dict(trial.config),
        state=optuna.trial.TrialState.FAIL if values is None else optuna.trial.TrialState.COMPLETE,
        distributions=dict(distributions), user_attrs=told, system_attrs=kept, intermediate_values={},
        datetime_start=_LONG_AGO, datetime_complete=_LONG_AGO,
    )  # fmt: skip


def _distribution(values: tuple[Value, ...]) -> "optuna.distributions.BaseDistribution":
    """A range where all values are numbers: plots then have an axis; else categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    whole = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(whole) == len(values) and len(values) > 1:
        doubling = min(whole) > 0 and all(value & (value - 1) == 0 for value in whole)
        return IntDistribution(min(whole), max(whole), log=doubling)
    if len(numbers) == len(values) and len(values) > 1:
        return FloatDistribution(min(numbers), max(numbers))
    return CategoricalDistribution(values)
