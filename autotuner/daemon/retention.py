"""Which studies of a service are kept: one comes with every cycle, and a record must not grow for ever."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from autotuner import api
from autotuner.daemon.keeper import STUDY
from autotuner.errors import AutotuneError
from autotuner.store import Record
from autotuner.store.journal import Journal
from autotuner.types import Decision

logger = logging.getLogger(__name__)


def forget_studies(
    record: Record, db: str | None, journal: Journal, keep: int, serving: Collection[Mapping[str, Any]]
) -> None:
    """Delete what the daemon began for earlier cycles, with its folder; what cannot be deleted now is the next time.

    Only what the journal says that it began: what a person has named likewise stays.

    Args:
        record: Of the service.
        db: The same, as the user named it.
        journal: Of the service.
        keep: So many of the newest, and as many of the newest that found something better, however old: a new study
            starts from what they found.
        serving: Configurations that are still in use: the studies that found them are kept as well.
    """
    try:
        there = {*record.names()}
        noted = dict.fromkeys(entry.payload["name"] for entry in journal.entries(kinds=(STUDY,)))
        names = [name for name in noted if name in there]
        for name in _unneeded(record, names, keep, serving):
            api.delete(name, db=db)
    except AutotuneError as error:  # somebody runs it again, or the record is locked just now
        logger.warning("older studies of %s are kept for now: %s", journal.service, error.message)


def _unneeded(record: Record, names: Sequence[str], keep: int, serving: Collection[Mapping[str, Any]]) -> Sequence[str]:
    """Of names, oldest first, those that nothing rests on."""
    found: list[str] = []
    better = 0
    for place, name in enumerate(reversed(names)):
        claims = [claim for _, claim in record.study(name).verifications()]
        won = bool(claims) and claims[-1].decision is Decision.BETTER
        better += won
        in_use = any(claim.decision is Decision.BETTER and dict(claim.config) in serving for claim in claims)
        if place >= keep and not in_use and not (won and better <= keep):
            found.append(name)
    return found[::-1]
