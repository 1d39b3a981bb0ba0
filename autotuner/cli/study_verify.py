"""`autotune study verify`."""

import typer

from autotuner.cli.options import Db, Json, Name
from autotuner.cli.run import run


def verify(name: Name, db: Db = None, as_json: Json = False) -> None:
    """Measure a study's claim again, on fresh data.

    Ends with 0 when the claim is confirmed: the same verdict, a gain that agrees; else with 1.
    """
    from autotuner import api
    from autotuner.verify.verification import claim_of, confirms

    with api.load_study(name, db) as study:
        claims = [found for _, found in study.verifications()]
    ended = run(lambda listener: api.verify(name, db=db, listener=listener), db, as_json, again="verify")
    assert ended.verification is not None, "api.verify returns one, or raises"
    raise typer.Exit(0 if claims and confirms(ended.verification, claim_of(claims)) else 1)
