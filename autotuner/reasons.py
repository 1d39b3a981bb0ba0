"""Where a trial came from: as it was said when it was proposed, or, in an older record, by proposing it once more."""

from dataclasses import dataclass

from autotuner.adjust.adjuster import propose
from autotuner.adjust.space import Space
from autotuner.errors import UsageError
from autotuner.spec import restore
from autotuner.store import Study
from autotuner.types import Config, Origin


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a configuration was tried.

    Attributes:
        config: What was tried.
        baseline: What is in use today.
        origin: Who proposed it.
        text: In words.
    """

    config: Config
    baseline: Config
    origin: Origin
    text: str


def reason_of(study: Study, number: int) -> Reason:
    """Why a trial of a study was made.

    Raises:
        UsageError: It has no such trial.
    """
    spec, count = restore(study.spec()), study.count()
    if number >= count:
        raise UsageError(f"study {study.name!r} has no trial {number}", f"it has {count}, from 0")
    said = [payload["reason"] for _, _, payload in study.events("proposed") if payload["trial"] == number]
    if said:
        trial = study.trial(number)
        return Reason(trial.config, spec.baseline, trial.origin, said[-1])
    *known, trial = study.trials()[: number + 1]
    again = propose(spec, Space(spec), known)
    same = again is not None and again.config == trial.config
    text = (
        again.reason if again is not None and same else "cannot be said: here and now something else would be proposed"
    )
    return Reason(trial.config, spec.baseline, trial.origin, text)
