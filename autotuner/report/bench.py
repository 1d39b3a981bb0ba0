"""A run of `autotune bench` on a terminal: the verdict, both sides, the history, what comes next. Also as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from autotuner import metrics
from autotuner.metrics import median
from autotuner.report.json_lines import plain
from autotuner.report.sparkline import sparkline
from autotuner.report.terminal import columns, facts
from autotuner.report.text import bounds, duration, factor, gain, one_line, percent, plural, print_value, shorten
from autotuner.types import BenchDecision, BenchReport, BenchRun, BenchTrend, Metrics

COLORS: Mapping[BenchDecision, str] = {
    BenchDecision.REGRESSION: "bold red",
    BenchDecision.FASTER: "bold green",
    BenchDecision.SAME: "bold cyan",
    BenchDecision.UNCLEAR: "bold yellow",
    BenchDecision.INVALID: "bold red",
}
_LATEST = 10  # runs in the table
_SPARK_RUNS = 40


def headline(report: BenchReport) -> str:
    """The verdict in one sentence, without the word itself."""
    run, margin = report.run, percent(report.margin, 0)
    assert run is not None, "there is a verdict only of a run"
    against = run.base_revision or "the history"
    match run.decision:
        case BenchDecision.REGRESSION if run.broken:
            return f"A limit is broken that {against} keeps."
        case BenchDecision.REGRESSION if run.value is None:
            return "It does not run any more."
        case BenchDecision.REGRESSION:
            return f"{run.key.metric} is {_change(run)} than {'at ' if run.base_revision else 'in '}{against}."
        case BenchDecision.FASTER:
            return f"{run.key.metric} is {_change(run)} than {'at ' if run.base_revision else 'in '}{against}."
        case BenchDecision.SAME:
            return f"Nothing beyond {margin} has changed against {against}."
        case BenchDecision.UNCLEAR:
            return f"Not enough is known to tell a difference of {margin}."
        case BenchDecision.INVALID:
            return "This run says nothing of the build."


def _change(run: BenchRun) -> str:
    """`23 % worse`."""
    ratio = run.gain_ratio or math.nan
    return f"{percent(abs(1 - ratio), 0)} {'worse' if ratio < 1 else 'better'}"


def bench_summary(report: BenchReport, terminal: bool = False) -> RenderableType:
    """Everything of a run that was just measured."""
    run = report.run
    assert run is not None, "a run was measured"
    rows = [("why", one_line(run.reason))]
    if run.gain_ratio is not None and run.gain_interval is not None:
        rows.append(("gain", gain_text(run)))
    rows += trend_rows(report.trend, report.key.metric, report.history, terminal)
    rows += [("note", one_line(note)) for note in report.notes]
    rows += [("time", duration(report.duration_s)), ("record", report.record.removeprefix("sqlite:///"))]
    verdict = Text.assemble((str(run.decision), COLORS[run.decision]), "  ", headline(report))
    table = columns("metric", base_name(run), "now", "gain", left=["metric"])
    for cells in sides(report):
        table.add_row(*map(Text, cells), style="bold" if cells[0] == run.key.metric else "")
    both: list[RenderableType] = [table, ""] if run.metrics else []
    parts: list[RenderableType] = [verdict, "", *both]
    return Group(*parts, facts([(name, Text(text)) for name, text in rows]))


def base_name(run: BenchRun) -> str:
    """What the column of the base is called."""
    return "baseline" if run.base_revision else "history"


def gain_text(run: BenchRun) -> str:
    """`0.77×, 95 % interval [0.75, 0.79], margin …`."""
    assert run.gain_interval is not None
    assert run.gain_ratio is not None
    pairs = f" over {plural(run.pairs, 'pair')}" if run.pairs else ""
    return f"{factor(run.gain_ratio)}, 95 % interval {bounds(run.gain_interval) or 'not known'}{pairs}"


def sides(report: BenchReport) -> list[tuple[str, str, str, str]]:
    """Metric, value of the base or the history, value now, gain: the objective first."""
    run = report.run
    assert run is not None
    base = run.base_metrics if run.base_revision else _usual(report)
    rows = []
    for name in sorted({**base, **run.metrics}, key=lambda name: name != run.key.metric):
        before, now = base.get(name, math.nan), run.metrics.get(name, math.nan)
        shown = print_value(name, before), print_value(name, now)
        better = report.maximize.get(name, metrics.metric(name).better == "higher")
        times = gain(now, before, better) if shown[0] != shown[1] else 1.0
        if name == run.key.metric and run.base_revision and run.gain_ratio is not None:
            times = run.gain_ratio  # of pairs, side by side: one number a gain, everywhere
        rows.append((name, *shown, factor(times)))
    return rows


def _usual(report: BenchReport) -> Metrics:
    """The median of each metric over the earlier runs of the present level; of the one before, where that is news."""
    run, proven = report.run, (BenchDecision.REGRESSION, BenchDecision.FASTER)
    news = run is not None and run.gain_ratio is not None and run.decision in proven
    starts = [0, *report.changes]
    start, end = (starts[-2], starts[-1]) if news and report.changes else (starts[-1], len(report.history) - 1)
    earlier = [one.metrics for one in report.history[start:end] if one.value is not None and not one.contended]
    names = {name for one in earlier for name in one}
    return {name: median([one[name] for one in earlier if name in one]) for name in names}


def trend_rows(
    trend: BenchTrend, metric: str, history: Sequence[BenchRun], terminal: bool = False
) -> list[tuple[str, str]]:
    """Level, last change and forecast, a line each; a small chart on a terminal."""
    if trend.level is None:
        return []
    rows = [("level", f"{print_value(metric, trend.level)} over {plural(trend.runs, 'like run')}")]
    if trend.changed_ratio is not None and trend.changed_interval is not None:
        change = f"{factor(trend.changed_ratio)} {bounds(trend.changed_interval)} in the direction of improvement"
        rows.append(("changed", f"at {trend.changed_at}: {change}"))
    if trend.expected is not None and trend.expected_interval is not None:
        low, high = (print_value(metric, end) for end in trend.expected_interval)
        slope = f", {percent(trend.slope_ratio, 2)} a run" if trend.slope_ratio else ""
        rows.append(("next", f"{print_value(metric, trend.expected)}{slope}, 95 % of runs in [{low}, {high}]"))
    values = [run.value for run in history if run.value is not None][-_SPARK_RUNS:]
    if terminal and len(values) > 1:
        rows.append(("trend", _course(values)))
    return rows


def _course(values: Sequence[float]) -> str:
    """A line of bars, from the smallest to the largest value."""
    low, high = min(values), max(values)
    return sparkline([(value - low) / (high - low) if high > low else 0.0 for value in values], len(values))


def history_table(report: BenchReport, terminal: bool = False) -> RenderableType:
    """The latest runs, one a line, and what they say."""
    key = report.key
    title = f"{key.file}, branch {key.branch}: {plural(len(report.history), 'like run')} of {key.metric}"
    if not report.history:
        return Group(Text(title), *(Text(f"note: {one_line(note)}") for note in report.notes))
    left = ["when", "revision", "against", "verdict", ""]
    table = columns("when", "revision", "value", "gain", "against", "verdict", "", left=left)
    first = max(0, len(report.history) - _LATEST)
    for place, run in enumerate(report.history[first:], first):
        table.add_row(*map(Text, _history_row(run, place in report.changes)), style="")
    rows = trend_rows(report.trend, key.metric, report.history, terminal)
    rows += [("note", one_line(note)) for note in report.notes]
    return Group(Text(title), "", table, "", facts([(name, Text(text)) for name, text in rows]))


def _history_row(run: BenchRun, changed: bool) -> tuple[str, ...]:
    when = f"{run.created_at:%Y-%m-%d}" if run.created_at else ""
    value = "failed" if run.value is None else print_value(run.key.metric, run.value)
    gained = factor(run.gain_ratio) if run.gain_ratio is not None else ""
    mark = "new level" if changed else ""
    return when, shorten(run.revision, 13), value, gained, run.base_revision[:8], str(run.decision), mark


def bench_json(report: BenchReport) -> dict[str, Any]:
    """Everything but raw samples, which stay in the record; SI units, null for what is not known."""
    key, run = report.key, report.run
    body: dict[str, Any] = {
        "file": key.file,
        "branch": key.branch,
        "settings": key.settings.splitlines(),
        "metric": key.metric,
        "maximize": key.maximize,
        "margin": report.margin,
        "measured": report.measured,
        "verdict": str(run.decision) if run else None,
        "reason": run.reason if run else None,
        "run": _run_json(run) if run else None,
        "history": [_run_json(one) for one in report.history],
        "changes": report.changes,
        "trend": report.trend,
        "notes": report.notes,
        "record": report.record,
        "seconds": report.duration_s,
    }
    clean: dict[str, Any] = plain(body)
    return clean


def _run_json(run: BenchRun) -> dict[str, Any]:
    names = (
        "revision", "value", "launch_values", "metrics", "violations", "broken", "contended", "failure", "config",
        "base_revision", "base_metrics", "gain_ratio", "gain_interval", "pairs", "environment", "created_at",
    )  # fmt: skip
    return {"verdict": str(run.decision), "reason": run.reason} | {name: getattr(run, name) for name in names}
