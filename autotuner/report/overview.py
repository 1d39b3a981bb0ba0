"""What is in a record: one line a study."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from rich.console import RenderableType
from rich.text import Text

from autotuner.report.terminal import COLORS, WIDTH, columns, leave_room
from autotuner.report.text import factor
from autotuner.types import Decision


class Row(Protocol):
    """One study of the record, as its overview gives it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def created_at(self) -> datetime: ...  # noqa: D102
    @property
    def metric(self) -> str: ...  # noqa: D102
    @property
    def trials(self) -> int: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def decision(self) -> Decision | None: ...  # noqa: D102
    @property
    def gain_ratio(self) -> float | None: ...  # noqa: D102


def overview_table(rows: Sequence[Row]) -> RenderableType:
    """Every study of a record, one a line."""
    if not rows:
        return Text("no studies yet: autotune study start FILE")
    names = ("study", "started", "trials", "verdict", "gain", "objective")
    table = columns(*names, left=["study", "verdict", "objective"])
    table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"  # a name that has to be typed is never cut
    listed = [_cells(row) for row in rows]
    leave_room(table, listed, WIDTH)
    for cells in listed:
        table.add_row(*cells)
    return table


def _cells(row: Row) -> list[Text]:
    ratio = row.gain_ratio if row.gain_ratio is not None else math.nan
    verdict = Text(str(row.decision), style=COLORS[row.decision]) if row.decision else Text(row.state, style="dim")
    return [
        Text(row.name),
        Text(f"{row.created_at:%Y-%m-%d}"),
        Text(f"{row.trials:,}"),
        verdict,
        Text(factor(ratio) if row.decision not in (None, Decision.INVALID) else ""),
        Text(row.metric),
    ]
