"""What a study file allows."""

from collections.abc import Mapping
from typing import Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.report.terminal import columns, facts, list_values
from autotuner.report.text import duration, plural, spell
from autotuner.types import Config, Value


class Space(Protocol):
    """What a study file allows, as `api.check` gives it."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def parameters(self) -> Mapping[str, tuple[Value, ...]]: ...  # noqa: D102
    @property
    def baseline(self) -> Config: ...  # noqa: D102
    @property
    def raw_size(self) -> int: ...  # noqa: D102
    @property
    def legal_size(self) -> int | None: ...  # noqa: D102
    @property
    def objective(self) -> str: ...  # noqa: D102
    @property
    def limits(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def max_trials(self) -> int: ...  # noqa: D102
    @property
    def max_minutes(self) -> float | None: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102


def space_table(space: Space) -> RenderableType:
    """What a study file allows: parameters with values and baseline, size, objective, limits."""
    table = columns("parameter", "baseline", "values", left=["parameter", "baseline", "values"], last_wraps=True)
    for name, values in space.parameters.items():
        table.add_row(*map(Text, (name, spell(space.baseline[name]), list_values(values))))
    return Group(Text(f"{space.name} is well-formed.", style="bold"), "", table, "", _space_facts(space))


def _budget(space: Space) -> str:
    trials = f"at most {plural(space.max_trials, 'trial')}"
    return trials if space.max_minutes is None else f"{trials} in {duration(60 * space.max_minutes)}"


def _space_facts(space: Space) -> Table:
    legal = "too many to count" if space.legal_size is None else f"{space.legal_size:,} legal"
    return facts(
        [
            ("file", space.source),
            ("size", f"{plural(space.raw_size, 'combination')}, {legal}"),
            ("objective", space.objective),
            *(("limit", limit) for limit in space.limits),
            ("budget", _budget(space)),
            ("device", space.device),
            ("next", f"autotune study start {space.source}"),
        ]
    )
