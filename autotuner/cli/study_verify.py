"""`autotune study verify`."""

from typing import TYPE_CHECKING

import typer

from autotuner.cli.options import Db, Json, Name
from autotuner.cli.run import run

if TYPE_CHECKING:
    from autotuner.types import Verification


def verify(name: Name, db: Db = None, as_json: Json = False) -> None:
    """Measure a study's claim again, on fresh data.

    Ends with 0 when the claim is confirmed: the same verdict, a gain that agrees; else with 1.
    """
    from autotuner import api

    with api.load_study(name, db) as study:
        claims = study.verifications()
    ended = run(lambda listener: api.verify(name, db=db, listener=listener), db, as_json)
    assert ended.verification is not None, "api.verify returns one, or raises"
    raise typer.Exit(0 if claims and confirms(ended.verification, claims[-1][1]) else 1)


def confirms(found: "Verification", claim: "Verification") -> bool:
    """Whether a new verification comes to the claim's verdict, BETTER or SAME, with an interval that overlaps."""
    from autotuner.types import Decision

    overlap = found.gain_interval[0] <= claim.gain_interval[1] and claim.gain_interval[0] <= found.gain_interval[1]
    return found.decision is claim.decision and claim.decision in (Decision.BETTER, Decision.SAME) and overlap
