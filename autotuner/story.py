"""A study of the record as its page wants it: the page does not know the store, nor the store the page."""

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from autotuner.analyze.front import pareto_front
from autotuner.metrics import SCORE
from autotuner.report.study_data import Story, Tried
from autotuner.report.text import changes, failure_text, value_of, violation
from autotuner.spec import restore
from autotuner.spec.model import StudySpec
from autotuner.store import Record, Study
from autotuner.types import Failure, Measurement, Trial, config_key


def tell(record: Record, name: str) -> Story:
    """Everything that the record knows of a study.

    Raises:
        UsageError: No such study.
    """
    study = record.study(name)
    spec, trials = restore(study.spec()), study.trials(samples=False)
    signs = {objective.metric: objective.sign for objective in spec.objectives}
    metric, sign = (SCORE, 1) if len(signs) > 1 else next(iter(signs.items()))
    tried = tuple(_tried(trials, spec.baseline, metric, sign, _reasons(study), _winner(study)))
    finished = study.events("finished")
    measured = [trial.outcome for trial in trials if isinstance(trial.outcome, Measurement)]
    verdicts = {trial.number: trial.verdict for trial in trials if trial.verdict}
    best = [one.number for one in tried if one.best_so_far and one.number]
    return Story(
        name=study.name,
        created_at=study.created_at,
        goal=spec.objective.text,
        metric=metric,
        maximize=sign > 0,
        objectives={objective: one > 0 for objective, one in signs.items()},
        limits=tuple(limit.text for limit in spec.limits),
        parameters={key: parameter.values for key, parameter in spec.parameters.items()},
        baseline=spec.baseline,
        tried=tried,
        front=frozenset(trial.number for trial in pareto_front(trials, signs)) if len(signs) > 1 else frozenset(),
        verifications=tuple(study.verifications()),
        baseline_diagnosis=verdicts[0].diagnosis if 0 in verdicts else None,
        diagnosis=verdicts[best[-1]].diagnosis if best else None,
        failures=study.failures(),
        phases_s=finished[-1][2]["phases_s"] if finished else {},
        stopped=finished[-1][2]["stopped"] if finished else "",
        ceilings=study.newest_event("ceilings") or {},
        environment=measured[-1].environment if measured else {},
        source=spec.source,
        settings=_settings(spec),
        commands=_commands(spec, study.name, record.url),
        under_way="" if finished else under_way(study, len(trials)),
    )


def under_way(study: Study, trials: int) -> str:
    """What an unfinished study of so many trials was last seen at, in a few words; empty before its first trial."""
    proposed, pair = study.newest_event("proposed"), study.newest_event("pair")
    if proposed is not None and proposed["trial"] >= trials:
        return f"trial {proposed['trial']} is being measured"
    if pair is not None:
        stage = str(pair["stage"])
        count = sum(payload["stage"] == stage for _, _, payload in study.events("pair"))
        return f"{stage.rstrip('0123456789')}: {count} pairs so far"
    return ""


def _tried(
    trials: list[Trial], baseline: Mapping[str, Any], metric: str, sign: int, reasons: Mapping[int, str], winner: str
) -> Iterator[Tried]:
    best = -math.inf
    for trial in trials:
        value, verdict, outcome = value_of(trial, metric), trial.verdict, trial.outcome
        better = verdict is not None and verdict.feasible and sign * value > best
        best = sign * value if better else best
        failure = outcome if isinstance(outcome, Failure) else None
        broken = violation(verdict) if verdict else ""
        kind = "failed" if failure else "violated" if broken else "ok"
        measured_s = (
            outcome.setup_s + outcome.warmup_s + outcome.duration_s
            if isinstance(outcome, Measurement)
            else outcome.duration_s
        )
        yield Tried(
            number=trial.number,
            config=trial.config,
            changed=changes(trial.config, baseline),
            origin=trial.origin.value,
            kind="winner" if kind == "ok" and config_key(trial.config) == winner else kind,
            value=value,
            values=verdict.objectives if verdict else {},
            precision_ratio=verdict.precision_ratio if verdict else math.nan,
            text=failure_text(failure) if failure else broken,
            reason=reasons.get(trial.number, ""),
            bound=verdict.diagnosis.binding.value if verdict else "",
            evidence=verdict.diagnosis.evidence if verdict else {},
            seconds=measured_s,
            best_so_far=better,
            log=failure.log_path if failure else "",
        )


def _reasons(study: Study) -> dict[int, str]:
    return {payload["trial"]: payload["reason"] for _, _, payload in study.events("proposed")}


def _winner(study: Study) -> str:
    """The key of the configuration that was verified BETTER; empty when none was."""
    found = study.verifications()
    return config_key(found[-1][1].config) if found and found[-1][1].decision == "BETTER" else ""


def _settings(spec: StudySpec) -> dict[str, str]:
    budget = spec.budget.model_dump(exclude_none=True)
    return {
        "workload": spec.workload.kind, "device": spec.device, "strategy": spec.strategy, "seed": str(spec.seed),
        **{f"budget.{key}": f"{value:g}" if isinstance(value, float) else str(value) for key, value in budget.items()},
    }  # fmt: skip


def _commands(spec: StudySpec, name: str, url: str) -> dict[str, str]:
    named = shlex.quote(name)
    where = f"AUTOTUNE_DB={shlex.quote(url)} " if url and not url.endswith("studies/autotune.db") else ""
    return {
        "run it again": f"autotune study start {shlex.quote(spec.source or 'FILE.yaml')}",
        "prove the winner again": f"{where}autotune study verify {named}",
        "why a trial was made": f"{where}autotune study show {named} --why N",
        "put it to use": f"{where}autotune export {named} --to env",
    }
