"""The live view of a study on a terminal.

It runs beside a timed child, so it is drawn once a second, on no event (a frame took 7 ms on a slow core); what it
draws is a pure function of a `Progress`, the time and the size of the terminal.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autotuner.events import Event, Listener, PairMeasured
from autotuner.report.lines import introduce
from autotuner.report.progress import Progress, Stage, advance, budget_left_s, search_left_s
from autotuner.report.terminal import study_table
from autotuner.report.text import bounds, clock, describe, duration, factor, one_line, plural, print_value

_REDRAWS_PER_S = 1
_MOST_TRIALS = 12
_SPINNER = "⠋⠙⠸⠴⠦⠇"
_MAX_WIDTH = 110
_LOW = 18  # rows under which what never changes is left out


def can_animate(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can be redrawn."""
    console = Console(file=stream)
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def watch_live(stream: TextIO) -> Iterator[Listener]:
    """A listener that shows the study on `stream` while the context is open, and leaves nothing behind."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    state = Progress()

    def listen(event: Event) -> None:
        nonlocal state
        state = advance(state, event, time.monotonic())

    def draw() -> RenderableType:
        return view(state, time.monotonic(), console.width, console.height)

    live = Live(get_renderable=draw, console=console, refresh_per_second=_REDRAWS_PER_S, transient=True)
    live.start()
    try:
        yield listen
    finally:
        with suppress(OSError):  # the terminal has gone; the study and its result have not
            live.stop()


def view(state: Progress, now_s: float, width: int, height: int) -> RenderableType:
    """The whole view, in at most `width` columns and `height` - 1 rows."""
    if state.study is None:
        return Text("starting …", style="dim")
    width = min(width, _MAX_WIDTH)
    head = _head(state, now_s, width)
    if height < _LOW:
        head = [head[0], head[-1]]
    head.append(Text(""))
    tail = [*_current(state, now_s, width), *_verification(state, now_s, width), *_note(state, width)]
    rows = max(1, min(_MOST_TRIALS, height - len(head) - len(tail) - 3))
    table = _trials(state, rows, width)
    return Group(*head, *([table] if table else []), *tail)


def _cut(text: Text, width: int) -> Text:
    """At most one row."""
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _spread(left: Text, right: Text, width: int) -> Text:
    """One row: `left` at the left end, `right` at the right end, `left` cut if they meet."""
    left.truncate(max(1, width - right.cell_len - 2), overflow="ellipsis")
    return Text.assemble(left, " " * max(2, width - left.cell_len - right.cell_len), right, no_wrap=True)


def _head(state: Progress, now_s: float, width: int) -> list[Text]:
    study = state.study
    assert study is not None
    done = f"{state.done} of {plural(study.max_trials, 'trial')}"
    failed = f", {state.failed} failed" if state.failed else ""
    title = Text.assemble(("autotune  ", "dim"), (study.name, "bold"))
    machine = one_line(study.machine)
    return [
        _spread(title, Text(f"{done}{failed}  {clock(now_s - state.began_s)}", style="dim"), width),
        _cut(Text(introduce(study), style="dim"), width),
        _cut(Text(machine, style="dim"), width),
        _bar(state, now_s, width),
    ]


def _bar(state: Progress, now_s: float, width: int) -> Text:
    """How far the search is, and how long it may take."""
    study = state.study
    assert study is not None
    words = Text(f"  {_time_left(state, now_s)}".rstrip(), style="dim")
    length = max(10, width - words.cell_len)
    full = length if state.stages else min(length, round(length * state.done / study.max_trials))
    return _cut(Text.assemble(("━" * full, "cyan"), ("━" * (length - full), "bright_black"), words), width)


def _time_left(state: Progress, now_s: float) -> str:
    budget_s = budget_left_s(state, now_s)
    if state.stages:
        return f"verifying, at most {_roughly(budget_s)} left" if math.isfinite(budget_s) else "verifying"
    left_s = search_left_s(state, now_s)
    if not math.isfinite(left_s):
        return f"at most {_roughly(budget_s)} left" if math.isfinite(budget_s) else ""
    return f"about {_roughly(left_s)} left, then verification"


def _roughly(seconds: float) -> str:
    """Minutes while there are some: an estimate that counts seconds is restless."""
    return f"{math.ceil(seconds)} s" if seconds < 60 else duration(60 * round(seconds / 60)).replace(" 00 s", "")


def _trials(state: Progress, rows: int, width: int) -> Table | None:
    """The last trials, with the best one kept in sight."""
    study, shown = state.study, list(state.trials[-rows:])
    assert study is not None
    if not shown:
        return None
    best = state.best
    if best is not None and best not in shown:
        shown = [best, *shown[1:]] if len(shown) >= rows else [best, *shown]
    trials = [(ended.trial, ended.changed) for ended in shown]
    number = best.trial.number if best else None
    return study_table(trials, study.metric, study.maximize, state.baseline_value, number, width)


def _spinner(now_s: float) -> str:
    return _SPINNER[int(now_s * _REDRAWS_PER_S) % len(_SPINNER)]


def _current(state: Progress, now_s: float, width: int) -> list[Text]:
    current = state.current
    if current is None:
        return []
    what = Text.assemble(
        (f"{_spinner(now_s)} ", "cyan"), (f"trial {current.number}  ", "bold"), f"{describe(current.changed)}"
    )
    since = Text(clock(now_s - state.current_s), style="dim")
    return [Text(""), _spread(what, since, width)]


def _verification(state: Progress, now_s: float, width: int) -> list[Text]:
    if not state.stages:
        return []
    last = len(state.stages) - 1
    rows = [Text(""), Text("verification", style="bold")]
    for index, stage in enumerate(state.stages[-4:], start=max(0, last - 3)):
        rows += _stage(state, stage, index == last and not state.ended, now_s, width)
    return rows


def _stage(state: Progress, stage: Stage, running: bool, now_s: float, width: int) -> list[Text]:
    """A stage in one row; the running one shows its last pair in a second one, and where its interval lies."""
    mark = (f"{_spinner(now_s)} ", "cyan") if running else ("✓ ", "green")
    words = Text.assemble(mark, (f"{stage.started.stage}  ", "bold" if running else ""), one_line(stage.started.text))
    gained = Text(_gained(stage.last)) if stage.last else Text("")
    rows = [_spread(words, gained, width)]
    if running and stage.last is not None:
        rows.append(_cut(Text(f"  {_pair(state, stage.last)}", style="dim"), width))
        low, high = stage.last.gain_interval
        if low > 0 and math.isfinite(high):
            rows.append(_cut(Text("  ").append_text(interval_bar(stage.last.gain_ratio, low, high, width - 4)), width))
    return rows


def _gained(event: PairMeasured) -> str:
    return f"{factor(event.gain_ratio)} {bounds(event.gain_interval)}".rstrip()


def _pair(state: Progress, event: PairMeasured) -> str:
    """`pair 7: 2,931 /s against 2,204 /s`."""
    metric = state.study.metric if state.study else ""
    arms = f"{print_value(metric, event.pair.candidate)} against {print_value(metric, event.pair.baseline)}"
    return f"pair {event.count}: {arms}{', contended' if event.pair.contended else ''}"


def interval_bar(ratio: float, low: float, high: float, width: int) -> Text:
    """Where the interval of a gain lies: `0.80 ──────┼────├───●───┤─ 1.50`, the mark is "no gain".

    Args:
        ratio: The gain, a factor.
        low: Lower end of its interval, > 0.
        high: Upper end.
        width: Columns to use; at least 30.
    """
    length = max(10, min(width, 64) - 14)
    reach = max(abs(math.log(low)), abs(math.log(high)), math.log(1.05)) * 1.15
    ends = f"{math.exp(-reach):.2f}× ", f" {math.exp(reach):.2f}×"

    def place(value: float) -> int:
        return round((math.log(value) + reach) / (2 * reach) * (length - 1))

    cells = ["─"] * length
    first, last = place(low), place(high)
    cells[first : last + 1] = "━" * (last + 1 - first)
    cells[place(1.0)] = "┼"
    cells[min(max(place(ratio), first), last)] = "●"
    style = "green" if low > 1 else "yellow" if high < 1 else "cyan"
    line = "".join(cells)
    before, inside, after = ends[0] + line[:first], line[first : last + 1], line[last + 1 :] + ends[1]
    return Text.assemble((before, "bright_black"), (inside, style), (after, "bright_black"))


def _note(state: Progress, width: int) -> list[Text]:
    return [Text(""), _cut(Text(f"note: {one_line(state.note)}", style="yellow"), width)] if state.note else []
