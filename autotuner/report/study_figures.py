"""The drawings of a study's page: search, pairs, contributions, parameters, front, roofline, time."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape

from autotuner.metrics import format_quantity
from autotuner.report.charts import Axis, Frame, axis, band, dot, draw, line, text
from autotuner.report.study_data import Story, Tried
from autotuner.report.text import describe, duration, factor, percent, print_value, spell
from autotuner.types import Contribution, Value, Verification

_SLICE_WIDTH, _SLICE_HEIGHT = 480, 220
_ROW_PX = 30


def search_figure(story: Story) -> str:
    """Every trial in order, and the best so far; what failed lies at the bottom."""
    values = [tried.value for tried in story.tried if math.isfinite(tried.value)]
    if not values:
        return ""
    frame = Frame(_numbers(len(story.tried)), axis(values))
    marks, best = [], []
    for tried in story.tried:
        x = frame.left(tried.number)
        y = frame.top(tried.value) if math.isfinite(tried.value) else frame.height - 34
        if tried.best_so_far:
            best.append((x, y))
        marks.append(dot(x, y, tried.kind, _title(tried, story), tried.number))
    if best:
        best.append((frame.left(len(story.tried) - 1), best[-1][1]))
    label = f"{story.metric} of every trial, and the best so far"
    return draw(frame, [line(best, "best", steps=True), *marks], label, _whole, story.print, ("trial", story.metric))


def pairs_figure(found: Verification, metric: str, maximize: bool) -> str:
    """How many times better the candidate was in each pair, with the interval."""
    gains = [_gain(pair.candidate, pair.baseline, maximize) for pair in found.pairs]
    low, high = found.gain_interval
    known = [gain for gain in gains if math.isfinite(gain) and gain > 0]
    if not known:
        return ""
    shown = [bound for bound in (low, high) if 0 < bound < 10 * max(known) and bound > min(known) / 10]
    frame = Frame(_numbers(len(gains)), axis([*known, *shown, 1.0], log=True), height=240)
    left, right = frame.left(frame.x.low), frame.left(frame.x.high)
    marks = []
    if low > 0 and high < math.inf:
        marks.append(
            band(left, right, frame.top(max(low, frame.y.low)), frame.top(min(high, frame.y.high)), "interval")
        )
    marks += [line([(left, frame.top(1.0)), (right, frame.top(1.0))], "even")]
    marks += [line([(left, frame.top(found.gain_ratio)), (right, frame.top(found.gain_ratio))], "best")]
    for number, (pair, gain) in enumerate(zip(found.pairs, gains, strict=True)):
        if math.isfinite(gain) and gain > 0:
            title = f"pair {number}, launch {pair.launch}: {print_value(metric, pair.candidate)} against "
            title += f"{print_value(metric, pair.baseline)}, {factor(gain)}{', contended' if pair.contended else ''}"
            marks.append(dot(frame.left(number), frame.top(gain), "violated" if pair.contended else "ok", title))
    label = f"gain of each of {len(gains)} pairs, with its 95 % interval"
    return draw(frame, marks, label, _whole, factor, ("pair", "times better"))


def contributions_figure(found: Sequence[Contribution]) -> str:
    """What each change is worth alone, with its interval."""
    if not found:
        return ""
    bounds = [bound for one in found for bound in (*one.gain_interval, one.gain_ratio) if 0 < bound < math.inf]
    frame = Frame(axis([*bounds, 1.0], log=True), Axis(0, len(found), ()), height=50 + _ROW_PX * len(found))
    marks = [line([(frame.left(1.0), 26), (frame.left(1.0), frame.height - 34)], "even")]
    for row, one in enumerate(found):
        y = frame.top(len(found) - row - 0.5)
        low, high = (min(max(bound, frame.x.low), frame.x.high) for bound in one.gain_interval)
        marks.append(line([(frame.left(low), y), (frame.left(high), y)], "reach"))
        marks.append(dot(frame.left(one.gain_ratio), y, "ok", f"{one.parameter}: {factor(one.gain_ratio)}", radius=5))
        marks.append(text(2, y + 4, one.parameter, "tick"))
    return draw(frame, marks, "what each changed parameter is worth", factor, str, ("times better with it", ""))


def slices_figure(story: Story) -> str:
    """One small chart for each parameter that was varied: its values against the objective."""
    charts = []
    for name, values in story.parameters.items():
        places = {spell(value): place for place, value in enumerate(values)}
        points = [tried for tried in story.tried if math.isfinite(tried.value)]
        if len({spell(tried.config.get(name)) for tried in points}) < 2:
            continue
        known = [tried.value for tried in points]
        frame = Frame(Axis(-0.5, len(values) - 0.5, _few(len(values))), axis(known), _SLICE_WIDTH, _SLICE_HEIGHT)
        marks = [
            dot(
                frame.left(places.get(spell(tried.config.get(name)), 0) + _aside(tried.number)), frame.top(tried.value),
                tried.kind, _title(tried, story), tried.number, 3.5,
            )
            for tried in points
        ]  # fmt: skip
        names = [*places]
        label = f"{name} against {story.metric}"
        chart = draw(frame, marks, label, partial(_item, names), story.print, (name, ""))
        charts.append(f"<figure>{chart}</figure>")
    return f'<div class="slices">{"".join(charts)}</div>' if charts else ""


def parallel_figure(story: Story) -> str:
    """A line for each trial across all parameters to its value; `study.js` lets one choose values."""
    names = [name for name, values in story.parameters.items() if len(values) > 1]
    points = [tried for tried in story.tried if math.isfinite(tried.value)]
    if len(names) < 2 or len(points) < 2:
        return ""
    scale, width, height = axis([tried.value for tried in points]), 1000, 360
    step = (width - 160) / len(names)
    order = sorted(points, key=lambda tried: (tried.kind != "violated", tried.value * (1 if story.maximize else -1)))
    places = {name: _even(story.parameters[name]) for name in names}
    drawn = []
    for rank, tried in enumerate(order):
        xy = [(60 + i * step, 316 - 270 * places[name].get(spell(tried.config.get(name)), 0.0))
              for i, name in enumerate(names)]  # fmt: skip
        xy.append((60 + len(names) * step, 316 - 270 * scale.place(tried.value)))
        path = "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in xy)
        shade = 0 if tried.kind == "violated" else 5 * rank // max(1, len(order))
        drawn.append(f'<path class="run q{shade}" data-trial="{tried.number}" d="{path}"/>')
    axes = []
    for i, name in enumerate([*names, story.metric]):
        x = 60 + i * step
        axes.append(
            f'<path class="axis" d="M{x:.0f} 46V316"/>' + text(x, 340 if i % 2 else 24, name, "tick mid strong")
        )
        if i < len(names):
            axes += [_choice(x + 6, 320 - 270 * places[name][value], name, value) for value in _shown([*places[name]])]
        else:
            axes += [text(x + 6, 320 - 270 * scale.place(tick), story.print(tick)) for tick in scale.ticks]
    label = f"every trial as a line across {len(names)} parameters to {story.metric}"
    head = f'<svg class="parallel" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(drawn + axes)}</svg>"


def front_figure(story: Story) -> str:
    """The first two objectives of every trial; the front is marked."""
    if len(story.objectives) < 2:
        return ""
    first, second = [*story.objectives][:2]
    points = [(tried, tried.values.get(first, math.nan), tried.values.get(second, math.nan)) for tried in story.tried]
    points = [point for point in points if math.isfinite(point[1]) and math.isfinite(point[2])]
    if not points:
        return ""
    frame = Frame(axis([x for _, x, _ in points]), axis([y for _, _, y in points]))
    best = sorted((x, y) for tried, x, y in points if tried.number in story.front)
    marks = [line([(frame.left(x), frame.top(y)) for x, y in best], "best")]
    marks += [
        dot(frame.left(x), frame.top(y), "winner" if tried.number in story.front else tried.kind,
            f"{_title(tried, story)}: {print_value(first, x)}, {print_value(second, y)}", tried.number)
        for tried, x, y in points
    ]  # fmt: skip
    return draw(frame, marks, f"{second} against {first}", lambda x: print_value(first, x),
                lambda y: print_value(second, y), (first, second))  # fmt: skip


def roofline_figure(story: Story) -> str:
    """Operations a second against operations a byte: what the machine can do at most, and where the trials lie."""
    points = [
        (tried, seen["step_flops"] / seen["step_bytes"], seen["step_flops"] / seen["step_s"])
        for tried in story.tried
        for seen in (tried.evidence,)
        if min(seen.get(name, 0.0) for name in ("step_flops", "step_bytes", "step_s")) > 0
    ]
    roofs = {name: value for name, value in story.ceilings.items() if name.startswith("matmul_")}
    slopes = [story.ceilings[name] for name in ("copy_bytes_per_s", "triad_bytes_per_s") if name in story.ceilings]
    if not points or not roofs or not slopes:
        return ""
    bandwidth = max(slopes)
    knees = [roof / bandwidth for roof in roofs.values()]
    xs, ys = axis([*(x for _, x, _ in points), *knees], log=True), [y for _, _, y in points]
    frame = Frame(xs, axis([*ys, *roofs.values(), bandwidth * xs.low], log=True))
    marks = [line([(frame.left(xs.low), frame.top(bandwidth * xs.low)),
                   (frame.left(max(knees)), frame.top(bandwidth * max(knees)))], "roof")]  # fmt: skip
    for name, roof in roofs.items():
        y = frame.top(roof)
        marks.append(line([(frame.left(roof / bandwidth), y), (frame.left(xs.high), y)], "roof"))
        called = name.removeprefix("matmul_").removesuffix("_flops_per_s")
        marks.append(text(frame.left(xs.high), y - 5, f"{called} {format_quantity(roof, 'FLOP/s')}", "tick end"))
    marks.append(text(frame.left(xs.low) + 8, frame.top(bandwidth * xs.low) - 8, format_quantity(bandwidth, "bytes/s")))
    marks += [
        dot(frame.left(x), frame.top(y), tried.kind, _title(tried, story), tried.number) for tried, x, y in points
    ]
    titles = ("FLOP a byte", "FLOP/s")
    return draw(frame, marks, "roofline", lambda x: f"{x:g}", _flops, titles)


def time_figure(phases_s: Mapping[str, float]) -> str:
    """One bar for the whole study, a colour a phase, and a table of it."""
    whole = sum(phases_s.values())
    if not whole > 0:
        return ""
    parts = sorted(phases_s.items(), key=lambda item: -item[1])
    colours = ("operator", "python", "communication", "input", "copy", "sync", "compile", "other", "idle")
    kinds = [colours[i % len(colours)] for i in range(len(parts))]
    bar = "".join(
        f'<i style="width:{100 * seconds / whole:.3f}%;background:var(--{kind})"></i>'
        for (_, seconds), kind in zip(parts, kinds, strict=True)
    )
    label = ", ".join(f"{name} {percent(seconds / whole, 0)}" for name, seconds in parts)
    rows = "".join(
        f'<tr><td><span class="swatch" style="background:var(--{kind})"></span>{name}</td>'
        f'<td class="number">{duration(seconds)}</td><td class="number">{percent(seconds / whole)}</td><td></td></tr>'
        for (name, seconds), kind in zip(parts, kinds, strict=True)
    )
    return f'<div class="stack" role="img" aria-label="{label}">{bar}</div><table class="parts">{rows}</table>'


def _flops(value: float) -> str:
    return format_quantity(value, "FLOP/s").removesuffix("FLOP/s")


def _item(words: Sequence[str], place: float) -> str:
    return words[round(place)]


def _even(values: Sequence[Value]) -> dict[str, float]:
    """Values at equal distances from 0 to 1."""
    return {spell(value): i / max(1, len(values) - 1) for i, value in enumerate(values)}


def _choice(x: float, y: float, parameter: str, value: str) -> str:
    """A value on its axis, that `study.js` makes a button of."""
    called = f'data-parameter="{escape(parameter)}" data-value="{escape(value)}"'
    return f'<text class="tick value" {called} x="{x:.1f}" y="{y:.1f}">{escape(value)}</text>'


def _shown(values: Sequence[str]) -> Sequence[str]:
    """As many as there is room for; the first and the last always."""
    step = max(1, math.ceil((len(values) - 1) / 14))
    return [*values[:-1:step], values[-1]]


def _title(tried: Tried, story: Story) -> str:
    value = story.print(tried.value) if math.isfinite(tried.value) else tried.text
    return f"trial {tried.number}, {describe(tried.changed)}: {value}"


def _numbers(count: int) -> Axis:
    """Of trials or pairs, counted from 0."""
    high = max(count - 1, 1)
    step = max(1, math.ceil(high / 10))
    return Axis(-0.02 * high - 0.2, high + 0.02 * high + 0.2, tuple(float(i) for i in range(0, high + 1, step)))


def _few(count: int) -> tuple[float, ...]:
    step = max(1, math.ceil(count / 8))
    return tuple(float(i) for i in range(0, count, step))


def _aside(number: int) -> float:
    """A little to the side, the same each time, so that equal values do not cover each other."""
    return ((number * 7919) % 100 / 100 - 0.5) * 0.3


def _gain(candidate: float, baseline: float, maximize: bool) -> float:
    above, below = (candidate, baseline) if maximize else (baseline, candidate)
    return above / below if below else math.nan


def _whole(value: float) -> str:
    return f"{value:.0f}"
