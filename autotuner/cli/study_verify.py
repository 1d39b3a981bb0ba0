"""`autotune study verify`."""

import typer

from autotuner.cli.options import Db, Json, Name
from autotuner.cli.run import run


def verify(name: Name, db: Db = None, as_json: Json = False) -> None:
    """Compare a study's winner with the baseline again, on fresh data.

    Ends with 0 when it is BETTER, else with 1.
    """
    from autotuner import api
    from autotuner.types import Decision

    ended = run(lambda listener: api.verify(name, db=db, listener=listener), db, as_json)
    raise typer.Exit(0 if ended.decision is Decision.BETTER else 1)
