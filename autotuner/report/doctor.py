"""What a machine can do at most, and what is wrong with it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.metrics import format_quantity
from autotuner.report.json_lines import plain
from autotuner.report.terminal import columns, facts, location
from autotuner.types import Ceilings

# By the end of a ceiling's name, the longest first.
UNITS = {
    "_flops_per_s": "FLOP/s",
    "_bytes_per_s": "bytes/s",
    "_s_per_byte": "s/byte",
    "_bytes": "bytes",
    "_s": "s",
}
TEXTS = {
    "copy": "memory copy",
    "triad": "memory triad",
    "launch": "launch of one tiny operation",
    "graph_launch": "the same in a CUDA graph",
    "upload_pinned": "host to device, pinned",
    "upload_pageable": "host to device, pageable",
    "disk_read": "disk, read cold",
    "page_cache_read": "file in the page cache",
    "allreduce_alpha": "all-reduce alpha, a message",
    "allreduce_beta": "all-reduce beta, a byte",
    "cache": "last-level cache",
}
SIGNS = {"stops": ("✗", "bold red"), "advice": ("!", "bold yellow"), "info": ("·", "dim")}


class Finding(Protocol):
    """One thing that is worth knowing of the machine."""

    @property
    def level(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sentence(self) -> str: ...  # noqa: D102
    @property
    def mend(self) -> str: ...  # noqa: D102


class Examination(Protocol):
    """What `doctor.examine` gives."""

    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def machine(self) -> str: ...  # noqa: D102
    @property
    def ceilings(self) -> Ceilings | None: ...  # noqa: D102
    @property
    def record(self) -> str: ...  # noqa: D102
    @property
    def findings(self) -> Sequence[Finding]: ...  # noqa: D102
    @property
    def notes(self) -> Sequence[str]: ...  # noqa: D102


def unit_of(name: str) -> tuple[str, str]:
    """A ceiling's name without its unit, and the unit: `("copy", "bytes/s")`."""
    ending = next(ending for ending in UNITS if name.endswith(ending))
    return name.removesuffix(ending), UNITS[ending]


def examination_view(found: Examination) -> RenderableType:
    """The machine, its ceilings with their spread, and what is wrong with it."""
    parts: list[RenderableType] = [Text(found.machine, style="bold"), ""]
    if found.ceilings:
        parts += [ceilings_table(found.ceilings), "", _origin(found.ceilings, found.record), ""]
    parts.append(findings_table(found.findings) if found.findings else Text("Nothing is wrong with this machine."))
    return Group(*parts)


def ceilings_table(ceilings: Ceilings) -> Table:
    """One ceiling a line, with how far its 95 % interval reaches."""
    table = columns("at most", "", "95 %", "", left=["at most"])
    for name, known in ceilings.values.items():
        stem, unit = unit_of(name)
        reach = f"{known.low / known.value - 1:+.1%}  {known.high / known.value - 1:+.1%}" if known.value else ""
        table.add_row(
            Text(f"matmul {stem.removeprefix('matmul_')}" if stem.startswith("matmul_") else TEXTS.get(stem, stem)),
            Text(format_quantity(known.value, unit), style="bold"),
            Text(reach if known.low != known.high else ""),
            Text("disturbed" if name in ceilings.contended else "", style="yellow"),
        )
    return table


def _origin(ceilings: Ceilings, record: str) -> Table:
    when = f"{ceilings.measured_at:%Y-%m-%d %H:%M} UTC"
    kept = f"{location(record)}, for this machine, driver and torch" if record else "nowhere"
    disturbed = "others used the machine meanwhile: it can do at least this. Again: autotune doctor --again"
    return facts([("measured", when), ("kept in", kept), ("disturbed", disturbed if ceilings.contended else "")])


def findings_table(findings: Sequence[Finding]) -> Table:
    """One finding a line, what to do about it below."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        sign, style = SIGNS[finding.level]
        mend = [("\n→ ", "dim"), (finding.mend, "")] if finding.mend else []
        table.add_row(Text(sign, style=style), Text.assemble(finding.sentence, *mend))
    return table


def examination_json(found: Examination) -> Mapping[str, Any]:
    """The same for programs, in SI units."""
    known = found.ceilings
    ceilings = {
        name: {
            "value": each.value, "low": each.low, "high": each.high, "unit": unit_of(name)[1],
            "disturbed": known is not None and name in known.contended,
        }
        for name, each in (known.values if known else {}).items()
    }  # fmt: skip
    clean: dict[str, Any] = plain(
        {
            "device": found.device,
            "machine": found.machine,
            "ceilings": ceilings,
            "environment": known.environment if known else {},
            "measured_at": known.measured_at if known else None,
            "record": found.record or None,
            "findings": list(found.findings),
            "notes": list(found.notes),
        }
    )
    return clean
