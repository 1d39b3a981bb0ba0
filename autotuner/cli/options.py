"""Options that several commands share."""

from typing import Annotated

import typer


def study_names(incomplete: str) -> list[str]:
    """What a shell may complete; nothing when there is no record."""
    from autotuner.errors import AutotuneError
    from autotuner.records import open_record

    try:
        with open_record() as record:
            return [name for name in reversed(record.names()) if name.startswith(incomplete)]
    except AutotuneError:
        return []


def target_names(incomplete: str) -> list[str]:
    """Targets of exports that a shell may complete."""
    from autotuner.plugins import names

    return sorted(name for name in names("exporters") if name.startswith(incomplete))


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the study.", show_default=False, autocompletion=study_names)
]
Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="The record: a path or a database URL. [default: AUTOTUNE_DB or studies/autotune.db]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a value of the file, as in budget.trials=10. May be repeated.",
        show_default=False,
    ),
]
