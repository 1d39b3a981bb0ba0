"""What a terminal shows, as rich renderables: pure functions of values, 80 columns wide at most.

Text is never parsed as markup: parameter values and failure messages are other people's words.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.events import StudySummary
from autotuner.report import sentences
from autotuner.report.text import (
    bounds,
    changes,
    describe,
    factor,
    gain,
    more_is_better,
    one_line,
    percent,
    print_value,
    spell,
    value_of,
    violation,
)
from autotuner.types import Binding, Config, Decision, Failure, Trial, Value, Verification

WIDTH = 80
COLORS: Mapping[Decision, str] = {
    Decision.BETTER: "bold green",
    Decision.SAME: "bold cyan",
    Decision.WORSE: "bold yellow",
    Decision.AMBIGUOUS: "bold yellow",
    Decision.INVALID: "bold red",
}

BOUND: Mapping[Binding, str] = {
    Binding.INPUT: "input",
    Binding.HOST_LAUNCH: "host",
    Binding.MEMORY_BANDWIDTH: "memory",
    Binding.COMPUTE: "compute",
    Binding.COMMUNICATION: "comm",
    Binding.CAPACITY: "capacity",
    Binding.UNKNOWN: "",
    Binding.INVALID: "invalid",
}


def show(renderable: RenderableType, stream: TextIO | None = None) -> None:
    """Print to `stream` (default: stdout), in colour only on a terminal, and never wider than 80 columns."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(renderable, width=min(console.width, WIDTH))
    else:  # a pipe has no width: a log must not depend on who started it
        print(render(renderable), file=stream)


def render(renderable: RenderableType, width: int = WIDTH) -> str:
    """The renderable as plain text, without trailing blanks."""
    console = Console(width=width, color_system=None, force_terminal=False, highlight=False, _environ={})
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def columns(*names: str, left: Iterable[str] = (), last_wraps: bool = False) -> Table:
    """A table without lines: numbers right-aligned, the columns named in `left` left-aligned, one row a line."""
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        wraps = last_wraps and name == names[-1]
        justify = "left" if name in left else "right"
        table.add_column(Text(name), justify=justify, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")  # type: ignore[arg-type]
    return table


def facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """Labels and what they stand for, long texts wrapped beside their label; empty texts are left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=9)
    table.add_column(overflow="fold")
    for label, content in rows:
        if content != "":
            table.add_row(Text(label), Text(content) if isinstance(content, str) else content)
    return table


def summary(ended: StudySummary, db: str | None = None) -> RenderableType:
    """The end of a study: verdict, proof, what changed and why, where it is kept, what to type next."""
    verdict = Text.assemble((str(ended.decision), COLORS[ended.decision]), "  ", sentences.headline(ended))
    parts: list[RenderableType] = [verdict, ""]
    if ended.verification is not None:
        parts += [evidence(ended.verification), ""] if ended.verification.pairs else []
    parts.append(
        facts(
            [
                ("why", one_line(ended.reason)),
                ("was bound", sentences.bound_sentence(ended.baseline_diagnosis)),
                ("now bound", sentences.bound_sentence(ended.diagnosis)),
                ("mfu", sentences.mfu_sentence(ended.baseline_diagnosis, ended.diagnosis)),
                ("scaling", sentences.scaling_sentence(ended.diagnosis)),
                ("trials", sentences.trials_sentence(ended)),
                ("time", sentences.time_sentence(ended)),
                ("record", location(ended.record)),
                ("folder", ended.folder),
                ("last log", f"{ended.folder}/{ended.last_log}" if ended.last_log else ""),
            ]
        )
    )
    command = sentences.next_step(ended, db)
    if command:
        parts += ["", Text.assemble(("next  ", "dim"), (command, "bold"))]
    return Group(*parts)


def evidence(verification: Verification) -> RenderableType:
    """A verification: both arms side by side, the gain with its interval, the outputs, what changed."""
    rows: list[tuple[str, RenderableType]] = []
    if verification.pairs:
        rows = [
            ("gain", sentences.gain_sentence(verification)),
            ("proof", sentences.proof_sentence(verification)),
            ("outputs", sentences.outputs_sentence(verification)),
            ("memory", sentences.memory_sentence(verification)),
            ("warning", Text(verification.warning, style="yellow") if verification.warning else ""),
        ]
    rows += [("limit", f"{limit} is broken") for limit, excess in verification.violations.items() if not excess <= 0]
    changed = changes(verification.config, verification.baseline)
    if changed:
        rows.append(("changed", contributions(verification, changed)))
    sides: list[RenderableType] = (
        [arms(verification), ""] if verification.metrics and verification.baseline_metrics else []
    )
    return Group(*sides, facts(rows))


def arms(verification: Verification) -> Table:
    """Baseline against candidate: one row a metric, the compared one first."""
    candidate = "winner" if verification.decision is Decision.BETTER else "candidate"
    table = columns("metric", "baseline", candidate, "gain", left=["metric"])
    both = {**verification.baseline_metrics, **verification.metrics}
    for name in sorted(both, key=lambda name: name != verification.metric):
        before = verification.baseline_metrics.get(name, math.nan)
        after = verification.metrics.get(name, math.nan)
        shown = print_value(name, before), print_value(name, after)
        times = gain(after, before, more_is_better(verification, name)) if shown[0] != shown[1] else 1.0
        if name == verification.metric:
            times = verification.gain_ratio  # of pairs, side by side: one number a gain, everywhere
        style = "bold" if name == verification.metric else ""
        cells = (name, *shown, factor(times))
        table.add_row(*map(Text, cells), style=style)
    return table


def contributions(verification: Verification, changed: Config) -> Table:
    """Every changed parameter, from what to what, and what that alone is worth."""
    worth = {each.parameter: each for each in verification.contributions}
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for name, value in changed.items():
        arrow = f"{spell(verification.baseline.get(name))} → {spell(value)}"
        known = verification if len(changed) == 1 and verification.pairs else worth.get(name)
        gained = (
            (factor(known.gain_ratio), bounds(known.gain_interval) or "too few pairs")
            if known
            else ("", "not measured alone")
        )
        table.add_row(*map(Text, (name, arrow, *gained)))
    return table


def trial_row(trial: Trial, changed: Config, metric: str, baseline: float, maximize: bool, best: bool) -> list[Text]:
    """One trial as cells: number, value, precision, gain, what binds it, what differs or why it failed."""
    number = Text(f"{'★ ' if best else ''}{trial.number}")
    what = describe(changed)
    match trial.outcome:
        case Failure() as failure:
            kind = Text(failure.kind.replace("_", " "), style="red")
            return [
                number,
                kind,
                Text(""),
                Text(""),
                Text(""),
                Text.assemble(what, "  ", (one_line(failure.message), "dim")),
            ]
    assert trial.verdict is not None
    value = value_of(trial, metric)
    times = factor(gain(value, baseline, maximize)) if math.isfinite(baseline) else ""
    precision = trial.verdict.precision_ratio
    return [
        number,
        Text(print_value(metric, value)),
        Text(f"±{percent(precision)}" if precision > 0 else ""),
        Text(times if trial.verdict.feasible else "limit"),
        Text(BOUND[trial.verdict.diagnosis.binding]),
        Text(f"{what}  {violation(trial.verdict)}".rstrip()),
    ]


def trial_style(trial: Trial, best: bool) -> str:
    """Green for the best, dim for a broken limit."""
    if best:
        return "bold green"
    return "" if trial.verdict is None or trial.verdict.feasible else "dim"


def study_table(
    trials: Sequence[tuple[Trial, Config]],
    metric: str,
    maximize: bool,
    baseline_value: float,
    best: int | None,
    width: int = WIDTH,
) -> Table:
    """Trials with what they change, one a line, the last column cut where it is too long.

    Args:
        trials: To list.
        metric: First objective.
        maximize: Its direction.
        baseline_value: What gains refer to; NaN if it is not known.
        best: Number of the trial to mark.
        width: Columns of the terminal.
    """
    last = "changed from the baseline"
    rows = [trial_row(*pair, metric, baseline_value, maximize, pair[0].number == best) for pair in trials]
    table = columns("trial", "value", "±", "gain", "bound by", last, left=["bound by", last])
    leave_room(table, rows, width)
    for (trial, _), cells in zip(trials, rows, strict=True):
        table.add_row(*cells, style=trial_style(trial, trial.number == best))
    return table


def leave_room(table: Table, rows: Sequence[Sequence[Text]], width: int) -> None:
    """Cut the cells of the last column so that the others keep their width: rich would shrink all alike."""
    heads = [column.header for column in table.columns if isinstance(column.header, Text)]
    lines = list(zip(heads, *rows, strict=True))
    others = [max(cell.cell_len for cell in column) + 2 for column in lines[:-1]]
    for cell in lines[-1]:
        cell.truncate(max(8, width - sum(others)), overflow="ellipsis")


def location(url: str) -> str:
    """A record's URL as a person types it: an SQLite file is its path."""
    return url.removeprefix("sqlite:///")


def list_values(values: Sequence[Value], most: int = 8) -> str:
    """The values of a parameter, the middle left out when there are many: `1 2 3 … 64`."""
    words = [spell(value) for value in values]
    return " ".join(words) if len(words) <= most else " ".join([*words[:3], "…", words[-1]]) + f"  ({len(words)})"
