"""`autotune study resume`."""

import typer

from autotuner.cli.options import Db, Json, Name
from autotuner.cli.run import exit_code, run


def resume(name: Name, db: Db = None, as_json: Json = False) -> None:
    """Go on with a study that was interrupted."""
    from autotuner import api

    ended = run(lambda listener: api.resume(name, db=db, listener=listener), db, as_json)
    raise typer.Exit(exit_code(ended))
