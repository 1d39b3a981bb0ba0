"""`autotune study start`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.options import Db, Json, Set
from autotuner.cli.run import exit_code, run

if TYPE_CHECKING:
    from autotuner.events import Listener, StudySummary


def start(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study: a YAML file.", show_default=False)],
    overrides: Set = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the study. [default: the file's]", show_default=False)
    ] = None,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Search for a better configuration and verify it.

    Ends with 0 when there is an answer, 1 when every trial failed, 2 for a mistake in the file or the command,
    3 when the machine cannot, 130 when interrupted (nothing is lost: see study resume).
    """

    def call(listener: "Listener") -> "StudySummary":
        from autotuner import api  # here, so that an interruption of this second is one line as well

        return api.start(file, overrides=overrides or (), name=name, db=db, listener=listener)

    raise typer.Exit(exit_code(run(call, db, as_json)))
