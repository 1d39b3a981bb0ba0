"""A profile as one HTML page that needs no network: light and dark, on paper too."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from autotuner.analyze import flame
from autotuner.analyze.nsight import Counters, Total, base_name
from autotuner.analyze.profile import Pattern, Profile
from autotuner.analyze.trace import DeviceTime, Row
from autotuner.metrics import format_quantity
from autotuner.report.profile_figures import flame_figure, lanes_figure, parts_table, stacked_bar
from autotuner.report.profile_parts import Part, caution, device_parts, host_parts, precision, throughput, title
from autotuner.report.text import factor, percent, plural, spell

_MOST_ROWS = 30
_FEW_ROWS = 12
_ORIGINS = (("own", "your code"), ("library", "libraries"), ("torch", "torch"), ("standard", "Python, threads"))
_FILE_TEXTS = {
    "trace": "Chrome trace: ui.perfetto.dev or chrome://tracing opens it",
    "speedscope": "sampled stacks: speedscope.app opens it",
    "values": "every number of this page",
    "nsys": "Nsight Systems report",
    "ncu": "counters, as ncu printed them",
    "log": "what the workload printed",
}


def page(found: Profile) -> str:
    """The whole page."""
    here = Path(__file__)
    style, script = (here.with_name(name).read_text(encoding="utf-8") for name in ("profile.css", "profile.js"))
    sections = [
        _head(found), _times(found), _patterns(found.patterns), _step(found), _tables(found), _nsight(found),
        _flame(found), _cpu(found), _files(found),
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title(found))} · profile</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(sections)}</main><script>{script}</script></body></html>\n"
    )


def _section(heading: str, text: str, *content: str) -> str:
    return f'<section><h2>{escape(heading)}</h2><p class="soft small">{escape(text)}</p>{"".join(content)}</section>'


def _head(found: Profile) -> str:
    chips = "".join(
        f"<li{' class=changed' if found.baseline.get(name) != value else ''}>{escape(name)} {escape(spell(value))}</li>"
        for name, value in found.config.items()
    )
    rate = throughput(found)
    numbers = [
        ("a step", _s(found.step_s), f"{precision(found)} without a profiler"),
        *(
            [(f"{rate[0]} a second", format_quantity(rate[1], "1/s").removesuffix(" /s"), "without a profiler")]
            if rate
            else []
        ),
        ("under torch.profiler", factor(found.slowdown_ratio), f"as long a step; {plural(found.trace.steps, 'step')}"),
        ("cores at work", f"{found.cpu.process_ratio:.2f}", f"{found.cpu.main_ratio:.2f} in the main thread"),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(text)}</small></dd></div>"
        for name, value, text in numbers
    )
    contended = f"Contended: {found.contended}" if found.contended else ""
    warning = "".join(f'<p class="warning">{escape(text)}.</p>' for text in (contended, caution(found)) if text)
    return (
        f'<h1>Where the time goes: {escape(found.name)}</h1><p class="soft">{escape(found.machine)} · '
        f"{found.started_at:%Y-%m-%d %H:%M} UTC</p>"
        f'<ul class="chips">{chips}</ul><dl class="numbers">{cells}</dl>{warning}'
    )


def _times(found: Profile) -> str:
    seen = found.trace
    content = ["<h3>Main thread</h3>", *_split(host_parts(seen.host), found)]
    if seen.device is not None:
        queue = f'<p class="soft small">{escape(_queue(seen.device))}</p>'
        content = ["<h3>GPU</h3>", *_split(device_parts(seen.device), found), queue, *content]
    text = (
        f"{plural(seen.steps, 'step')} under torch.profiler, {_s(seen.window_s)} together. The profiler slows"
        " small operators down, so that shares are more honest than times."
    )
    return _section("Where the time goes", text, *content)


def _queue(device: DeviceTime) -> str:
    hidden = (
        f" {percent(device.overlap_ratio, 0)} of the communication is hidden." if device.all_communication_s else ""
    )
    return (
        f"Launch queue: {device.queue_mean:,.1f} on average, {device.queue_max:,} at most. A kernel starts"
        f" {_s(device.launch_delay_s)} after its launch.{hidden}"
    )


def _split(parts: Sequence[Part], found: Profile) -> list[str]:
    whole_s = found.trace.window_s
    return [stacked_bar(parts, whole_s), parts_table(parts, whole_s, found.trace.steps)]


def _patterns(patterns: Sequence[Pattern]) -> str:
    if not patterns:
        return _section("Patterns", "Known ways to waste time.", '<p class="none">None left evidence here.</p>')
    text = "Known ways to waste time that left evidence here; the share is what they concern at most."
    return _section("Patterns", text, *map(_card, patterns))


def _card(pattern: Pattern) -> str:
    share = f"<span>{percent(pattern.share_ratio, 0)}</span>" if pattern.share_ratio else ""
    return (
        f'<div class="pattern"><h3>{escape(pattern.title)}{share}</h3><p>{escape(pattern.evidence)}</p>'
        f'<p class="try">{escape(pattern.advice)}</p><p class="soft small">{escape(pattern.source)}</p></div>'
    )


def _step(found: Profile) -> str:
    if not found.trace.lanes:
        return ""
    text = "The median profiled step. Gaps of the main thread are Python; gaps of a stream are an idle device."
    return _section("One step", text, lanes_figure(found.trace.lanes, found.trace.lanes_s))


def _tables(found: Profile) -> str:
    seen = found.trace
    content = []
    for heading, rows in (("Kernels", seen.kernels), ("Copies and fills", seen.copies)):
        if rows:
            content += [f"<h3>{heading}</h3>", _rows_table(rows, found)]
    content += ["<h3>Operators</h3>", _rows_table(seen.operators, found)]
    if seen.calls:
        content += ["<h3>Calls of the CUDA runtime</h3>", _rows_table(seen.calls, found)]
    text = "Most expensive first. An operator's time is its own, without the operators that it calls."
    return _section("Most expensive", text, *content)


def _rows_table(rows: Sequence[Row], found: Profile) -> str:
    shown, rest = rows[:_FEW_ROWS], rows[_FEW_ROWS:_MOST_ROWS]
    occupied = any(math.isfinite(row.occupancy_ratio) for row in rows)
    head = ["", "a step", "median", "total a step", *(["occupancy"] if occupied else []), "share"]

    def cells(row: Row) -> list[str]:
        name = base_name(row.name) if "(" in row.name and not row.name.startswith("Mem") else row.name
        count = row.count / found.trace.steps
        more = [_percent(row.occupancy_ratio)] if occupied else []
        return [
            f'<span class="mono" title="{escape(row.name)}">{escape(name)}</span>',
            f"{count:,.0f}" if count >= 1 else f"{count:.1f}",
            _s(row.median_s),
            _s(row.total_s / found.trace.steps),
            *more,
            _meter(row.share_ratio),
        ]

    hidden = f"<details><summary>{len(rest)} more</summary>{_table(head, map(cells, rest))}</details>" if rest else ""
    return _table(head, map(cells, shown)) + hidden


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="rows"><tr>{titles}</tr>{body}</table></div>'


def _meter(ratio: float) -> str:
    width = min(100.0, 100 * ratio)
    return f'<span class="meter"><i style="width:{width:.1f}%"></i></span>{percent(ratio)}'


def _nsight(found: Profile) -> str:
    content = []
    if found.ncu:
        head = ["", "launches", "time", "SM", "DRAM", "occupancy", "sectors/load", "bytes used"]
        content += ["<h3>ncu: hardware counters</h3>", _table(head, map(_counter_cells, found.ncu))]
    for heading, rows in (
        ("nsys: kernels", found.nsys.kernels if found.nsys else ()),
        ("nsys: CUDA calls", found.nsys.calls if found.nsys else ()),
        ("nsys: copies", found.nsys.copies if found.nsys else ()),
    ):
        if rows:
            table = _table(["", "count", "median", "total"], map(_total_cells, rows[:_FEW_ROWS]))
            content += [f"<h3>{heading}</h3>", table]
    if not content:
        return ""
    text = (
        "Shares of the hardware's peak. A coalesced load of 4-byte elements needs 4 sectors; scattered ones up to 32."
    )
    return _section("NVIDIA Nsight", text, *content)


def _counter_cells(seen: Counters) -> list[str]:
    sectors = f"{seen.load_sectors:.1f}" if math.isfinite(seen.load_sectors) else "–"
    shares = map(_percent, (seen.sm_ratio, seen.dram_ratio, seen.occupancy_ratio))
    name = f'<span class="mono" title="{escape(seen.kernel)}">{escape(base_name(seen.kernel))}</span>'
    return [name, f"{seen.launches}", _s(seen.duration_s), *shares, sectors, _percent(seen.load_used_ratio)]


def _total_cells(row: Total) -> list[str]:
    name = f'<span class="mono" title="{escape(row.name)}">{escape(row.name)}</span>'
    return [name, f"{row.count:,}", _s(row.median_s), _s(row.total_s)]


def _flame(found: Profile) -> str:
    heading = "Flame graph"
    if not found.stacks:
        return _section(heading, "; ".join(found.notes) or "Nobody sampled.")
    swatches = "".join(
        f'<span><span class="swatch" style="background:var(--{kind})"></span>{text}</span>' for kind, text in _ORIGINS
    )
    text = (
        f"Sampled {found.samples_per_s:g} times a second with py-spy, without torch.profiler: every thread of the host"
        " process and of those it started, waiting threads too. Width is time."
    )
    return _section(
        heading,
        text,
        flame_figure(flame.tree(found.stacks), found.samples_per_s),
        f'<div class="legend">{swatches}</div>',
    )


def _cpu(found: Profile) -> str:
    if not found.cpu.threads:
        return ""
    rows = [
        [escape(f"{thread.name}{' (main)' if thread.main else ''}"), _meter(thread.cpu_ratio)]
        for thread in found.cpu.threads[:_FEW_ROWS]
    ]
    rows += [["processes that it started", _meter(found.cpu.workers_ratio)]] if found.cpu.workers_ratio > 0 else []
    allowed = plural(found.cpu.intraop_threads, "thread")
    text = f"Share of one core that each thread used, without torch.profiler. One operator may use {allowed}."
    return _section("Threads", text, _table(["", "of one core"], rows))


def _files(found: Profile) -> str:
    links = "".join(
        f'<li><a href="{escape(Path(found.files[kind]).name)}">{escape(Path(found.files[kind]).name)}</a>'
        f' <span class="soft small">{escape(text)}</span></li>'
        for kind, text in _FILE_TEXTS.items()
        if kind in found.files
    )
    notes = "".join(f'<p class="soft small">{escape(note)}</p>' for note in found.notes)
    commands = "".join(f"<h3>{escape(tool)}</h3><pre>{escape(line)}</pre>" for tool, line in found.commands.items())
    text = (
        "Beside this page. nvprof's successors are nsys (timeline) and ncu (counters); on a GPU they run by themselves."
    )
    shown = f"<details><summary>their commands</summary>{commands}</details>" if commands else ""
    return _section("Files and further tools", text, f'<ul class="files">{links}</ul>', notes, shown)


def _s(seconds: float) -> str:
    return format_quantity(seconds, "s")


def _percent(ratio: float) -> str:
    return percent(ratio, 0) if math.isfinite(ratio) else "–"
