"""`autotune study resume`."""

from typing import TYPE_CHECKING

import typer

from autotuner.cli.options import Db, Json, Name
from autotuner.cli.run import exit_code, run

if TYPE_CHECKING:
    from autotuner.events import Listener, StudySummary


def resume(name: Name, db: Db = None, as_json: Json = False) -> None:
    """Go on with a study that was interrupted."""

    def call(listener: "Listener") -> "StudySummary":
        from autotuner import api  # here, so that an interruption of this second is one line as well

        return api.resume(name, db=db, listener=listener)

    raise typer.Exit(exit_code(run(call, db, as_json)))
