"""A study's end, told from its record alone."""

from collections import Counter
from collections.abc import Sequence

from autotuner.events import StudySummary
from autotuner.store.study import Study
from autotuner.types import Config, Diagnosis, Failure, Measurement, Trial, config_key


def summarize(study: Study, record: str, folder: str) -> StudySummary:
    """A study's end, from its record alone.

    Raises:
        LookupError: It has not come to an end yet.
    """
    trials, verifications = study.trials(samples=False), study.verifications()
    (verified_at, verification), (finished_at, _, ending) = verifications[-1], study.events("finished")[-1]
    first = verified_at <= finished_at  # later ones measure the claim again, without a search
    failed = [trial.outcome for trial in trials if isinstance(trial.outcome, Failure)]
    measured = [trial.outcome for trial in trials if isinstance(trial.outcome, Measurement)]
    baseline = trials[0].verdict if trials else None
    return StudySummary(
        name=study.name,
        decision=verification.decision,
        reason=verification.reason + (f"; the search stopped because {ending['stopped']}" if first else ""),
        verification=verification,
        trials=len(trials),
        failures=dict(Counter(str(failure.kind) for failure in failed)),
        phases_s=ending["phases_s"] if first else {"verifying": verification.duration_s},
        record=record,
        folder=folder,
        environment=measured[-1].environment if measured else {},
        baseline_values=baseline.objectives if baseline else {},
        last_log=failed[-1].log_path if failed else "",
        baseline_diagnosis=baseline.diagnosis if baseline else None,
        diagnosis=_diagnosis(trials, verification.config),
    )


def _diagnosis(trials: Sequence[Trial], config: Config) -> Diagnosis | None:
    """Of the trial with this configuration, unless it is the baseline's own."""
    key = config_key(config)
    found = (trial for trial in trials[1:] if trial.verdict and config_key(trial.config) == key)
    return next((trial.verdict.diagnosis for trial in found if trial.verdict), None)
