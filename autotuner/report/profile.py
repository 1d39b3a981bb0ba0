"""A profile in the terminal: where the time goes, the most expensive rows, the patterns, and where to look further."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.analyze.nsight import Counters, base_name
from autotuner.analyze.profile import Pattern, Profile
from autotuner.analyze.trace import DeviceTime, Row
from autotuner.metrics import format_quantity
from autotuner.report.profile_parts import Part, caution, device_parts, host_parts, precision, throughput, title
from autotuner.report.terminal import columns, facts
from autotuner.report.text import factor, one_line, percent, plural, shorten

_BAR = 16
_MOST_ROWS = 8
_NAME_WIDTH = 40
_STYLES = {"python": "yellow", "input": "magenta", "sync": "red", "idle": "red", "compile": "magenta", "copy": "yellow"}


def profile_summary(found: Profile) -> RenderableType:
    """Everything, 80 columns wide."""
    parts: list[RenderableType] = [Text(title(found), style="bold"), "", facts(_headline(found)), ""]
    parts += [Text("main thread", style="bold"), _bars(host_parts(found.trace.host), found), ""]
    if found.trace.device is not None:
        parts += [Text("GPU", style="bold"), _bars(device_parts(found.trace.device), found)]
        parts += [Text(_queue_sentence(found.trace.device), style="dim"), ""]
        parts += [_rows("kernel", found.trace.kernels, found), ""]
    parts += [_rows("operator (its own time)", found.trace.operators, found), ""]
    if found.ncu:
        parts += [_counters(found.ncu), ""]
    parts += [*_patterns(found.patterns), "", facts(_pointers(found))]
    return Group(*parts)


def profile_json(found: Profile) -> dict[str, Any]:
    """Everything but the picture of the step and the sampled stacks, which have files of their own."""
    body = asdict(found)
    for name in ("lanes", "lanes_s"):
        del body["trace"][name]
    del body["stacks"]
    return {**body, "slowdown_ratio": found.slowdown_ratio}


def _headline(found: Profile) -> list[tuple[str, RenderableType]]:
    rate = throughput(found)
    cpu = found.cpu
    cores = f"{cpu.process_ratio:.2f} cores, {cpu.main_ratio:.2f} of them in the main thread"
    workers = f"; worker processes {cpu.workers_ratio:.2f}" if cpu.workers_ratio > 0.005 else ""
    slower = f"{plural(found.trace.steps, 'step')} under torch.profiler, {factor(found.slowdown_ratio)} as long"
    return [
        ("step", f"{_s(found.step_s)}{precision(found)} without a profiler"),
        ("rate", f"{format_quantity(rate[1], '1/s')} {rate[0]}" if rate else ""),
        ("CPU", f"{cores}{workers}; {plural(cpu.intraop_threads, 'thread')} an operator"),
        ("profiled", f"{slower}: shares below are of that time"),
        ("warning", Text(f"contended: {one_line(found.contended)}", style="yellow") if found.contended else ""),
        ("caution", Text(caution(found), style="yellow") if caution(found) else ""),
        ("machine", found.machine),
    ]


def _bars(parts: Sequence[Part], found: Profile) -> Table:
    """A bar a part; inner parts are set in."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for part in parts:
        share = part.seconds / found.trace.window_s
        filled = min(_BAR, round(_BAR * share))
        bar = Text("█" * filled, style=_STYLES.get(part.kind, "cyan")) + Text("░" * (_BAR - filled), style="dim")
        label = Text(f"  {part.label}" if part.inner else part.label, style="dim" if part.inner else "")
        a_step = f"{_s(part.seconds / found.trace.steps)}"
        table.add_row(label, bar, percent(share), a_step, Text(shorten(part.text, 30), style="dim"))
    return table


def _queue_sentence(device: DeviceTime) -> str:
    hidden = (
        f"; {percent(device.overlap_ratio, 0)} of the communication is hidden" if device.all_communication_s else ""
    )
    return (
        f"launch queue {device.queue_mean:,.1f} on average, {device.queue_max:,} at most; a kernel starts "
        f"{_s(device.launch_delay_s)} after its launch{hidden}"
    )


def _rows(what: str, rows: Sequence[Row], found: Profile) -> Table:
    table = columns(what, "a step", "mean", "total a step", "share", left=[what])
    steps = found.trace.steps
    for row in rows[:_MOST_ROWS]:
        name = shorten(base_name(row.name) if what == "kernel" else row.name, _NAME_WIDTH)
        count = f"{row.count / steps:,.0f}" if row.count >= steps else f"{row.count / steps:.1f}"
        cells = (name, count, _s(row.mean_s), _s(row.total_s / steps), percent(row.share_ratio))
        table.add_row(*map(Text, cells))
    return table


def _counters(counters: Sequence[Counters]) -> Table:
    table = columns("ncu: kernel", "SM", "DRAM", "occupancy", "sectors/load", left=["ncu: kernel"])
    for seen in counters[:_MOST_ROWS]:
        shares = [percent(share, 0) for share in (seen.sm_ratio, seen.dram_ratio, seen.occupancy_ratio)]
        sectors = f"{seen.load_sectors:.1f}" if math.isfinite(seen.load_sectors) else "-"
        table.add_row(*map(Text, (shorten(base_name(seen.kernel), _NAME_WIDTH), *shares, sectors)))
    return table


def _patterns(patterns: Sequence[Pattern]) -> list[RenderableType]:
    if not patterns:
        return [Text("No known bad pattern was seen.", style="green")]
    parts: list[RenderableType] = []
    for pattern in patterns:
        share = f"  {percent(pattern.share_ratio, 0)}" if pattern.share_ratio else ""
        parts += [
            Text.assemble(("● ", "red" if pattern.share_ratio > 0.1 else "yellow"), (pattern.title, "bold"), share),
            facts([("", pattern.evidence), ("try", pattern.advice)]),
        ]
    return parts


def _pointers(found: Profile) -> list[tuple[str, RenderableType]]:
    """Where everything is, what did not work, and what those type who look for nvprof."""
    files = found.files
    rows: list[tuple[str, RenderableType]] = [("note", one_line(note)) for note in found.notes]
    rows += [
        ("page", files.get("page", "")),
        ("trace", f"{files['trace']} (ui.perfetto.dev opens it)" if "trace" in files else ""),
        ("stacks", f"{files['speedscope']} (speedscope.app opens it)" if "speedscope" in files else ""),
        ("nvprof?", nvprof_sentence(found)),
    ]
    if found.device == "cuda":
        rows += [(tool, Text(command)) for tool, command in found.commands.items()]
    return rows


def nvprof_sentence(found: Profile) -> str:
    """What took the place of nvprof."""
    if found.device == "cuda":
        return "its successors are nsys (timeline) and ncu (counters); ready to copy:"
    return "its successors are nsys and ncu; both need a GPU, and run by themselves when one is there"


def _s(seconds: float) -> str:
    return format_quantity(seconds, "s")
