"""Options that several commands share."""

from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.", show_default=False)]
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
