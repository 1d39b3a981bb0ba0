"""A service that is kept tuned, for the dashboard: what it is at, its canary window by window, what was decided."""

import math
from collections.abc import Sequence
from functools import partial
from html import escape
from urllib.parse import quote

from autotuner.report.charts import Axis, Frame, axis, dot, draw, line
from autotuner.report.html import pairs_table, section, table
from autotuner.report.service_data import Compared, Decided, ServiceRow, ServiceStory
from autotuner.report.text import one_line, plural, print_value, spell
from autotuner.types import Phase

_WIDTH, _HEIGHT = 480, 220
_MOST = 1e300  # beyond, no axis can be drawn
_IN_HEAD = ("service", "phase", "since", "because")  # facts that are said there
_LOOKS = {  # of the chip, in the colours of verdicts
    Phase.ALARM: "invalid", Phase.ROLLING_BACK: "worse", Phase.APPROVAL: "ambiguous", Phase.WATCHING: "better",
}  # fmt: skip


def services_table(rows: Sequence[ServiceRow]) -> str:
    """One line a service; empty where the record knows none."""
    cells = [
        [
            f'<a href="/service/{quote(row.name)}">{escape(row.name)}</a>', _phase(row.phase),
            f'<span class="mono">{escape(one_line(row.serves))}</span>', _time(row), escape(one_line(row.reason)),
        ]
        for row in rows
    ]  # fmt: skip
    return table(["service", "phase", "serves", "since", "because"], cells, "rows services") if rows else ""


def service_body(story: ServiceStory) -> str:
    """What changes of it."""
    row = story.row
    head = f"<header><h1>{_phase(row.phase)} {escape(row.name)}</h1><p>since {_time(row)} UTC: "
    head += f"{escape(one_line(row.reason))}</p></header>"
    told = {name: spell(value) or "-" for name, value in story.facts.items() if name not in _IN_HEAD}
    facts = section("State", "As the journal's newest entry has it.", pairs_table(told))
    compared = "".join(_comparison(one) for one in story.compared)
    return f"<main>{head}{facts}{compared}{_decisions(story.decided)}</main>"


def _phase(phase: str) -> str:
    looks = next((look for known, look in _LOOKS.items() if known == phase), "same")
    return f'<span class="verdict {looks}">{escape(phase.replace("_", " "))}</span>'


def _time(row: ServiceRow) -> str:
    return f"{row.since:%Y-%m-%d %H:%M:%S}"


def _comparison(one: Compared) -> str:
    names = dict.fromkeys(name for window in one.windows for arm in window for name in arm)
    figures = "".join(f"<figure>{figure}</figure>" for name in names if (figure := windows_figure(one, name)))
    legend = f'<p class="soft small"><i class="key steady"></i>{escape(one.steady)} &nbsp; '
    legend += f'<i class="key"></i>{escape(one.beside)}</p>'
    words = f"{plural(len(one.windows), 'window')} since {one.since:%Y-%m-%d %H:%M:%S} UTC, both arms at the same time."
    return section(one.title.capitalize(), words, legend, f'<div class="slices">{figures}</div>') if figures else ""


def windows_figure(one: Compared, metric: str) -> str:
    """Both arms, window by window; what is no number leaves a gap. Empty where there is none at all."""
    arms = [_points([window[arm].get(metric) for window in one.windows]) for arm in (0, 1)]
    known = [value for points in arms for _, value in points]
    if not known:
        return ""
    count = len(one.windows)
    ticks = tuple(float(number) for number in range(1, count + 1, math.ceil(count / 6)))
    frame = Frame(Axis(0.5, count + 0.5, ticks), axis(known), _WIDTH, _HEIGHT)
    marks = []
    for points, name, kind in zip(arms, (one.steady, one.beside), ("steady", "best"), strict=True):
        marks += [
            line([(frame.left(number), frame.top(value)) for number, value in run], kind) for run in _runs(points)
        ]
        for number, value in points:
            title = f"window {number}, {name}: {print_value(metric, value)}"
            marks.append(dot(frame.left(number), frame.top(value), kind.replace("best", "ok"), title, radius=3))
    label = f"{metric} of {one.steady} and {one.beside}, {count} windows"
    return draw(frame, marks, label, lambda at: f"{at:.0f}", partial(print_value, metric), ("window", metric))


def _points(values: Sequence[float | None]) -> list[tuple[int, float]]:
    """(number from 1, value) of those that can be drawn."""
    return [
        (number, value) for number, value in enumerate(values, 1) if value is not None and abs(value) < _MOST
    ]  # NaN is not smaller than anything


def _runs(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """Points without a gap between them."""
    runs: list[list[tuple[int, float]]] = []
    for number, value in points:
        if not runs or runs[-1][-1][0] != number - 1:
            runs.append([])
        runs[-1].append((number, value))
    return runs


def _decisions(decided: Sequence[Decided]) -> str:
    cells = [
        [f"{one.at:%Y-%m-%d %H:%M:%S}", escape(one.kind), escape(one_line(one.text)), _proof(one)] for one in decided
    ]
    words = "The newest first, UTC; a proof is how many times better the candidate is, with its interval."
    return section("Decisions", words, table(["at", "what", "in words", "proof"], cells, "rows decided"))


def _proof(one: Decided) -> str:
    told = (f"{escape(name)} {gain.value:.3f}× [{gain.low:.3f}, {gain.high:.3f}]" for name, gain in one.gains.items())
    return "<br>".join(told)
