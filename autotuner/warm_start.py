"""What won before is tried first: when it is wrong it costs its own few trials, for nothing is believed of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autotuner.adjust.space import Space
from autotuner.errors import UsageError
from autotuner.events import Listener, Note
from autotuner.monitor import environment
from autotuner.spec import Suggestion
from autotuner.spec.model import StudySpec
from autotuner.store import Record, Study
from autotuner.types import Config, Decision, Measurement

MOST = 2  # configurations
_LOOKED_BACK = 100  # studies
_HARDWARE = ("gpu", "cpu", "cores")
_MODEL = "model_hash"


@dataclass(frozen=True, slots=True)
class _Winner:
    """What an earlier study verified BETTER, in the terms of the new one."""

    study: str
    change: Config
    same_model: bool


def warm_started(record: Record, spec: StudySpec, listener: Listener) -> StudySpec:
    """The study, told to try first what won in earlier ones of its kind on like hardware.

    Those of the same model come first, then the latest.
    """
    if not spec.warm_start:
        return spec
    space, found = Space(spec), list(spec.try_first)
    known = [space.canonical({**spec.baseline, **each.change}) for each in found]
    for winner in sorted(_winners(record, spec), key=lambda winner: not winner.same_model):
        config = space.canonical({**spec.baseline, **winner.change})
        if len(found) < len(spec.try_first) + MOST and config in space and config not in (spec.baseline, *known):
            found.append(Suggestion(change=winner.change, because=f"it won in study {winner.study}"))
            known.append(config)
            listener(Note(f"tries the winner of study {winner.study} first; start with --cold not to"))
    return spec.model_copy(update={"try_first": tuple(found)})


def _winners(record: Record, spec: StudySpec) -> Iterator[_Winner]:
    """Of the latest studies, newest first."""
    here = environment.fingerprint(spec.device, spec.workload.identity())
    for name in reversed(record.names()[-_LOOKED_BACK:]):
        try:
            study = record.study(name)
        except UsageError:  # deleted meanwhile: a daemon keeps only its newest
            continue
        verifications = study.verifications()
        if not verifications or verifications[-1][1].decision is not Decision.BETTER:
            continue
        there, winner = _environment(study), verifications[-1][1]
        alike = all(there.get(part) == here.get(part) for part in _HARDWARE)
        if alike and winner.metric == spec.objective.metric and _kind(study) == spec.workload.kind:
            change = {
                parameter: winner.config[parameter]
                for parameter, known in spec.parameters.items()
                if parameter in winner.config and known.allows(winner.config[parameter])
            }
            changed = {parameter: value for parameter, value in change.items() if value != spec.baseline[parameter]}
            yield _Winner(name, changed, there.get(_MODEL) == here.get(_MODEL))


def _environment(study: Study) -> Mapping[str, str]:
    outcome = study.trial(0).outcome
    return outcome.environment if isinstance(outcome, Measurement) else {}


def _kind(study: Study) -> str:
    return str(study.spec()["workload"]["kind"])
