"""A study of the record: one alone, or two side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from autotuner.report import sentences
from autotuner.report.json_lines import plain, trial_json
from autotuner.report.sparkline import shares_of_best, sparkline
from autotuner.report.terminal import COLORS, WIDTH, columns, evidence, facts, leave_room, study_table
from autotuner.report.text import (
    bounds,
    changes,
    count_failures,
    describe,
    factor,
    one_line,
    plural,
    print_value,
    value_of,
)
from autotuner.types import Config, Diagnosis, Trial, Verification

_FEWEST_TO_SEE = 4  # trials
_MARGIN = 11  # columns before the text of a fact


@dataclass(frozen=True, slots=True)
class Portrait:
    """What the record holds of a study, as far as it is shown.

    Attributes:
        name: Of the study.
        created_at: UTC.
        metric: What trials are ranked by: the objective, or the score of several.
        maximize: Its direction.
        goal: The objectives in words.
        objectives: `{metric: whether larger is better}`.
        count: How many trials are in the record.
        failures: `{kind: count}`.
        values: What every trial measured of the first objective, in order; None for a failure.
        baseline: Configuration of the baseline.
        baseline_value: The baseline's value in the search; NaN if it failed.
        baseline_diagnosis: What bound it; None if it failed.
        best: The best feasible trials, best first.
        winner: The trial of the configuration that was verified BETTER; None without one.
        front: Of several objectives: the trials that none beats in all of them, by the first objective.
        last: The last trials, in order.
        verifications: Every verification with its time, in order.
        environment: Where it ran.
    """

    name: str
    created_at: datetime
    metric: str
    maximize: bool
    goal: str
    objectives: Mapping[str, bool]
    count: int
    failures: Mapping[str, int]
    values: tuple[float | None, ...]
    baseline: Config
    baseline_value: float
    baseline_diagnosis: Diagnosis | None
    best: tuple[Trial, ...]
    winner: Trial | None
    front: tuple[Trial, ...]
    last: tuple[Trial, ...]
    verifications: tuple[tuple[datetime, Verification], ...]
    environment: Mapping[str, str]

    @property
    def leader(self) -> Trial | None:
        """The verified winner, while none was verified the best of the search."""
        return self.winner or (self.best[0] if self.best else None)

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What binds the leader; None when that is the baseline."""
        leader = self.leader
        return leader.verdict.diagnosis if leader and leader.number and leader.verdict else None

    @property
    def verification(self) -> Verification | None:
        """The last one."""
        return self.verifications[-1][1] if self.verifications else None


def portrait_view(study: Portrait) -> RenderableType:
    """One study: its verdict and proof, its best trials, its last ones."""
    failed = f", {sum(study.failures.values())} failed ({count_failures(study.failures)})" if study.failures else ""
    about = facts(
        [
            ("study", Text(study.name, style="bold")),
            ("started", f"{study.created_at:%Y-%m-%d %H:%M} UTC"),
            ("objective", study.goal),
            ("trials", f"{plural(study.count, 'trial')}{failed}"),
            ("", course(study)),
            ("was bound", sentences.bound_sentence(study.baseline_diagnosis)),
            ("now bound", sentences.bound_sentence(study.diagnosis)),
            ("mfu", sentences.mfu_sentence(study.baseline_diagnosis, study.diagnosis)),
            ("scaling", sentences.scaling_sentence(study.diagnosis)),
        ]
    )
    return Group(about, *_verdict(study), *_trials(study))


def course(study: Portrait) -> str:
    """Every trial as a bar, as high as it is good; nothing where there are too few to see anything."""
    if study.count < _FEWEST_TO_SEE:
        return ""
    maximize = next(iter(study.objectives.values()))
    return sparkline(shares_of_best(study.values, maximize), WIDTH - _MARGIN)


def _verdict(study: Portrait) -> list[RenderableType]:
    found = study.verification
    if found is None:
        return ["", Text("not verified yet", style="dim")]
    sentence = Text.assemble((str(found.decision), COLORS[found.decision]), "  ", sentences.conclude(found))
    proof = ["", evidence(found)] if found.pairs else []
    return ["", sentence, *proof, "", facts([("why", one_line(found.reason))])]


def _trials(study: Portrait) -> list[RenderableType]:
    """All of them when that is short, else the best and the last."""
    best = study.leader.number if study.leader else None
    parts = _front(study)
    tables = [("last trials", study.last)]
    if study.count > len(study.last):
        tables.insert(0, ("best trials", study.best))
    for title, trials in tables:
        if study.last and trials:
            listed = [(trial, changes(trial.config, study.baseline)) for trial in trials]
            table = study_table(listed, study.metric, study.maximize, study.baseline_value, best)
            parts += ["", Text(title, style="bold"), table]
    return parts


def _front(study: Portrait) -> list[RenderableType]:
    """What one gives up for what: every trial that none beats in all objectives."""
    if not study.front:
        return []
    changed = "changed from the baseline"
    table = columns("trial", *study.objectives, "score", changed, left=[changed])
    rows = []
    for trial in study.front:
        best = study.leader is not None and trial.number == study.leader.number
        values = [print_value(name, value_of(trial, name)) for name in study.objectives]
        cells = [f"{'★ ' if best else ''}{trial.number}", *values, factor(value_of(trial, study.metric))]
        rows.append([*map(Text, cells), Text(describe(changes(trial.config, study.baseline)))])
    leave_room(table, rows, WIDTH)
    for cells_of_row in rows:
        table.add_row(*cells_of_row)
    return ["", Text("front: nothing is better in all objectives", style="bold"), table]


def portrait_json(study: Portrait) -> dict[str, Any]:
    """One study as JSON values, without raw samples."""
    body: dict[str, Any] = plain(
        {
            "study": study.name,
            "created_at": study.created_at,
            "metric": study.metric,
            "maximize": study.maximize,
            "goal": study.goal,
            "objectives": study.objectives,
            "trials": study.count,
            "failures": study.failures,
            "baseline": study.baseline,
            "baseline_value": study.baseline_value,
            "best": [trial_json(trial) for trial in study.best],
            "front": [trial_json(trial) for trial in study.front],
            "last": [trial_json(trial) for trial in study.last],
            "verifications": [{"at": at, **plain(found)} for at, found in study.verifications],
            "environment": study.environment,
        }
    )
    return body


def compare_table(first: Portrait, second: Portrait) -> RenderableType:
    """Two studies side by side, then where they ran on different ground."""
    table = columns("", first.name, second.name, left=["", first.name, second.name], last_wraps=True)
    table.columns[1].no_wrap, table.columns[1].overflow = False, "fold"
    for label, left, right in zip(_LABELS, _describe(first), _describe(second), strict=True):
        table.add_row(Text(label, style="dim"), Text(left), Text(right))
    notes = compare_ground(first, second)
    return Group(table, "", *(Text(f"note: {note}", style="yellow") for note in notes)) if notes else table


_LABELS = ("objective", "trials", "baseline", "best in search", "verdict", "gain", "interval", "outputs", "changed")


def _describe(study: Portrait) -> tuple[str, ...]:
    verification = study.verification
    config = verification.config if verification else (study.best[0].config if study.best else None)
    changed = describe(changes(config, study.baseline)) if config is not None else "-"
    return (
        ", ".join(study.objectives),
        f"{plural(study.count, 'trial')}, {sum(study.failures.values())} failed",
        print_value(study.metric, study.baseline_value),
        print_value(study.metric, value_of(study.best[0], study.metric) if study.best else math.nan),
        str(verification.decision) if verification else "not verified",
        factor(verification.gain_ratio) if verification and verification.pairs else "-",
        (bounds(verification.gain_interval) or "-") if verification else "-",
        sentences.outputs_sentence(verification) if verification else "-",
        changed,
    )


def compare_ground(first: Portrait, second: Portrait) -> list[str]:
    """Why the two numbers may not be comparable: another metric, baseline or machine."""
    notes = []
    if (first.metric, first.goal) != (second.metric, second.goal):
        notes.append("the studies optimise different metrics")
    if dict(first.baseline) != dict(second.baseline):
        missing = [f"no {name}" for name in first.baseline if name not in second.baseline]
        changed = changes(second.baseline, first.baseline)
        notes.append("the baselines differ: " + ", ".join([*([describe(changed)] if changed else []), *missing]))
    if first.environment and second.environment:
        keys = sorted({*first.environment, *second.environment})
        moved = [key for key in keys if first.environment.get(key) != second.environment.get(key)]
        if moved:
            notes.append("the machines or versions differ in " + ", ".join(moved))
    return notes
