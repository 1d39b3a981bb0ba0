"""The study as JSON: events as lines while it runs, one object at its end. Strict JSON: NaN and infinity are null."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any, TextIO

from autotuner.events import Event, Listener, StudyEnded, StudySummary, TrialEnded
from autotuner.types import Contribution, Decision, Diagnosis, Failure, Trial


def write_json_lines(stream: TextIO) -> Listener:
    """A listener that writes every event as one line of JSON to `stream`."""

    def listen(event: Event) -> None:
        stream.write(dump(event_json(event)) + "\n")
        stream.flush()

    return listen


def dump(value: Any, indent: int | None = None) -> str:
    """Strict JSON text."""
    return json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Only what JSON knows: mappings, lists, text, finite numbers, null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case str():
            return str(value)
        case Sequence():
            return [plain(each) for each in value]
        case _:
            return plain(asdict(value)) if is_dataclass(value) and not isinstance(value, type) else value


def event_json(event: Event) -> dict[str, Any]:
    """An event with its name under "event". A trial's raw samples stay in the record."""
    name = "".join(f"_{char.lower()}" if char.isupper() else char for char in type(event).__name__).lstrip("_")
    match event:
        case TrialEnded():
            body: dict[str, Any] = {
                **trial_json(event.trial),
                "changed": dict(event.changed),
                "best": event.best,
                "elapsed_s": event.elapsed_s,
            }
        case StudyEnded():
            body = summary_json(event.summary)
        case _:
            body = asdict(event)
    return {"event": name, **body}


def trial_json(trial: Trial) -> dict[str, Any]:
    """A trial without its raw samples."""
    body: dict[str, Any] = {"number": trial.number, "config": dict(trial.config), "origin": str(trial.origin)}
    if isinstance(trial.outcome, Failure):
        return {**body, "failure": asdict(trial.outcome)}
    assert trial.verdict is not None
    return {
        **body,
        "objectives": dict(trial.verdict.objectives),
        "precision_ratio": trial.verdict.precision_ratio,
        "violations": dict(trial.verdict.violations),
        "diagnosis": diagnosis_json(trial.verdict.diagnosis),
        "contended": trial.outcome.contended,
    }


def diagnosis_json(diagnosis: Diagnosis | None) -> dict[str, Any] | None:
    """What binds a configuration, with its evidence in SI units."""
    return None if diagnosis is None else asdict(diagnosis)


def summary_json(summary: StudySummary) -> dict[str, Any]:
    """The end of a study.

    `config` is the one to use: the candidate when it is BETTER, else the baseline; `candidate` is what was compared.
    The gain is a factor in the direction of improvement; an end of the interval that is still open is null.
    """
    found = summary.verification
    better = summary.decision is Decision.BETTER
    body = {
        "study": summary.name,
        "verdict": str(summary.decision),
        "reason": summary.reason,
        "metric": found.metric if found else None,
        "gain": found.gain_ratio if found else None,
        "gain_interval": list(found.gain_interval) if found else None,
        "pairs": len(found.pairs) if found else 0,
        "config": (found.config if better else found.baseline) if found else None,
        "baseline": found.baseline if found else None,
        "candidate": found.config if found else None,
        "metrics": {
            "candidate": found.metrics if found else {},
            "baseline": found.baseline_metrics if found else summary.baseline_values,
        },
        "violations": found.violations if found else {},
        "equivalence": found.equivalence if found else None,
        "contributions": [_contribution(each) for each in found.contributions] if found else [],
        "diagnosis": {
            "baseline": diagnosis_json(summary.baseline_diagnosis),
            "candidate": diagnosis_json(summary.diagnosis),
        },
        "trials": summary.trials,
        "failures": summary.failures,
        "seconds": summary.phases_s,
        "environment": summary.environment,
        "record": summary.record,
        "folder": summary.folder,
        "last_log": summary.last_log or None,
    }
    clean: dict[str, Any] = plain(body)
    return clean


def _contribution(part: Contribution) -> dict[str, Any]:
    return {
        "parameter": part.parameter,
        "gain": part.gain_ratio,
        "gain_interval": list(part.gain_interval),
        "pairs": part.pairs,
    }
