"""The drawings of a profile's page: stacked bars, the lanes of a step, the flame graph. HTML and SVG as text."""

import re
from collections.abc import Iterator, Sequence
from html import escape

from autotuner.analyze.flame import Node
from autotuner.analyze.trace import Bar, Kind, Lane
from autotuner.metrics import format_quantity
from autotuner.report.profile_parts import Part
from autotuner.report.text import percent

_WIDTH = 1000  # units of the lanes' drawings
_ROW_PX = 18
_NARROWEST_RATIO = 0.001  # of the whole; thinner frames are not drawn
_DEEPEST = 70
_LABELS = {
    Kind.OPERATOR: "operators and calls",
    Kind.CALL: "operators and calls",
    Kind.GRAPH: "operators and calls",
    Kind.INPUT: "waiting for input",
    Kind.SYNC: "waiting for the device",
    Kind.COMPILE: "compilation",
    Kind.COMPUTE: "kernels",
    Kind.COPY: "copies",
    Kind.COMMUNICATION: "communication",
}
_COLOURS = {Kind.CALL: "operator", Kind.GRAPH: "operator"}
_PLACE = re.compile(r"\((.+?)(?::\d+)?\)$")


def stacked_bar(parts: Sequence[Part], whole_s: float) -> str:
    """One bar for the whole time, a colour a part."""
    pieces = "".join(
        f'<i style="width:{100 * part.seconds / whole_s:.3f}%;background:var(--{part.kind})"'
        f' title="{escape(part.label)} {percent(part.seconds / whole_s)}"></i>'
        for part in parts
        if not part.inner
    )
    label = ", ".join(f"{part.label} {percent(part.seconds / whole_s)}" for part in parts if not part.inner)
    return f'<div class="stack" role="img" aria-label="{escape(label)}">{pieces}</div>'


def parts_table(parts: Sequence[Part], whole_s: float, steps: int) -> str:
    """What the colours of a stacked bar mean, with numbers."""
    rows = []
    for part in parts:
        swatch = "" if part.inner else f'<span class="swatch" style="background:var(--{part.kind})"></span>'
        rows.append(
            f"<tr{' class=inner' if part.inner else ''}><td>{swatch}{escape(part.label)}</td>"
            f'<td class="number">{percent(part.seconds / whole_s)}</td>'
            f'<td class="number">{format_quantity(part.seconds / steps, "s")}</td>'
            f'<td class="soft small">{escape(part.text)}</td></tr>'
        )
    return f'<table class="parts">{"".join(rows)}</table>'


def lanes_figure(lanes: Sequence[Lane], length_s: float) -> str:
    """One step as lanes over time, with an axis and what the colours mean."""
    drawn = "".join(f"<span>{escape(lane.name)}</span>{_lane(lane, length_s)}" for lane in lanes)
    marks = "".join(f"<span>{format_quantity(length_s * i / 4, 's') if i else '0'}</span>" for i in range(5))
    kinds = dict.fromkeys((_colour(bar.kind), _LABELS[bar.kind]) for lane in lanes for bar in lane.bars)
    legend = "".join(
        f'<span><span class="swatch" style="background:var(--{colour})"></span>{escape(text)}</span>'
        for colour, text in kinds
    )
    return f'<div class="lanes">{drawn}<div class="axis">{marks}</div></div><div class="legend">{legend}</div>'


def _lane(lane: Lane, length_s: float) -> str:
    scale = _WIDTH / length_s
    bars = "".join(
        f'<rect x="{bar.start_s * scale:.2f}" y="2" width="{max(0.4, (bar.end_s - bar.start_s) * scale):.2f}"'
        f' height="22" fill="var(--{_colour(bar.kind)})"><title>{escape(_bar_text(bar))}</title></rect>'
        for bar in lane.bars
    )
    label = escape(lane.name)
    return f'<svg viewBox="0 0 {_WIDTH} 26" preserveAspectRatio="none" role="img" aria-label="{label}">{bars}</svg>'


def _bar_text(bar: Bar) -> str:
    more = f" and {bar.count - 1} more" if bar.count > 1 else ""
    return f"{bar.name[:200]}{more}: {format_quantity(bar.end_s - bar.start_s, 's')}"


def _colour(kind: Kind) -> str:
    return _COLOURS.get(kind, kind.value)


def flame_figure(root: Node, samples_per_s: float) -> str:
    """The tree as boxes, callers above; `profile.js` lets a click enlarge one."""
    if not root.samples:
        return ""
    boxes = list(_boxes(root, 0, 0, root.samples))
    depth = 1 + max(level for level, _ in boxes)
    drawn = "".join(text for _, text in boxes)
    return (
        '<div class="flame-bar"><output>point at a frame; click to enlarge it</output>'
        '<button type="button">whole</button></div>'
        f'<div class="flame" data-total="{root.samples}" data-rate="{samples_per_s:g}"'
        f' style="height:{depth * _ROW_PX}px">{drawn}</div>'
    )


def _boxes(node: Node, start: int, depth: int, total: int) -> Iterator[tuple[int, str]]:
    """(depth, HTML) of a frame and of those below it that are wide enough to be seen."""
    share = node.samples / total
    if share < _NARROWEST_RATIO or depth > _DEEPEST:
        return
    text = f"{node.name} — {percent(share)}, {node.samples:,} samples"
    yield (
        depth,
        f'<b tabindex="0" data-x="{start}" data-w="{node.samples}" data-d="{depth}" title="{escape(text)}" style="left:'
        f"{100 * start / total:.4f}%;width:{100 * share:.4f}%;top:{depth * _ROW_PX}px;"
        f'background:var(--{origin(node.name)})">{escape(node.name)}</b>',
    )
    for child in node.children:
        yield from _boxes(child, start, depth + 1, total)
        start += child.samples


def origin(frame: str) -> str:
    """Whose code a frame is: "torch", another "library", the "standard" library, or the user's "own"."""
    match = _PLACE.search(frame)
    if match is None:
        return "standard"
    file = match[1]
    if file.startswith(("torch/", "torchvision/")):
        return "torch"
    if "site-packages" in file or file.startswith(("transformers/", "numpy/", "tokenizers/", "autotuner/")):
        return "library"
    standard = file.startswith(("multiprocessing/", "threading", "concurrent/", "asyncio/", "contextlib", "<"))
    return "standard" if standard or "/lib/python" in file else "own"
