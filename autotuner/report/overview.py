"""What is in a record: one line a study."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from rich.console import RenderableType
from rich.text import Text

from autotuner.report.terminal import COLORS, columns
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
    def failures(self) -> int: ...  # noqa: D102
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
    names = ("study", "started", "trials", "failed", "verdict", "gain", "objective")
    table = columns(*names, left=["study", "verdict", "objective"])
    for row in rows:
        verdict = str(row.decision) if row.decision else row.state
        known = row.gain_ratio if row.gain_ratio is not None else math.nan
        table.add_row(
            Text(row.name),
            Text(f"{row.created_at:%Y-%m-%d %H:%M}"),
            Text(f"{row.trials:,}"),
            Text(f"{row.failures:,}" if row.failures else ""),
            Text(verdict, style=COLORS[row.decision] if row.decision else "dim"),
            Text(factor(known) if row.decision else ""),
            Text(row.metric),
        )
    return table
