"""`autotune study start`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.options import Db, Json, Set
from autotuner.cli.run import exit_code, run

if TYPE_CHECKING:
    from autotuner.events import Listener, StudySummary


class Strategy(StrEnum):
    """How the next configuration is chosen."""

    GP = "gp"
    TPE = "tpe"
    RANDOM = "random"
    GRID = "grid"


def start(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study: a YAML file.", show_default=False)],
    overrides: Set = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the study. [default: the file's]", show_default=False)
    ] = None,
    strategy: Annotated[
        Strategy | None,
        typer.Option(
            help="Who proposes: our model, Optuna's TPE, chance, or all in order.", show_default="the file's, gp"
        ),
    ] = None,
    cold: Annotated[bool, typer.Option("--cold", help="Do not try first what won in earlier studies.")] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Search for a better configuration and verify it.

    Ends with 0 when there is an answer, 1 when every trial failed, 2 for a mistake in the file or the command,
    3 when the machine cannot, 130 when interrupted (nothing is lost: see study resume).
    """
    given = [
        *(overrides or ()),
        *([f"strategy={strategy}"] if strategy else []),
        *(["warm_start=false"] if cold else []),
    ]

    def call(listener: "Listener") -> "StudySummary":
        from autotuner import api  # here, so that an interruption of this second is one line as well

        return api.start(file, overrides=given, name=name, db=db, listener=listener)

    raise typer.Exit(exit_code(run(call, db, as_json)))
