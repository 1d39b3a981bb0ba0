"""Opening the record to read it: what `study list` and `study show` need, and nothing that runs a study."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autotuner.errors import UsageError
from autotuner.store import Record, Study
from autotuner.store import open_record as open_store

DEFAULT_RECORD = "studies/autotune.db"


@contextmanager
def open_record(db: str | None = None, *, create: bool = False) -> Iterator[Record]:
    """Open the record: `db`, else the variable AUTOTUNE_DB, else studies/autotune.db.

    Raises:
        UsageError: There is none, and `create` does not allow to make it.
        MachineError: It cannot be opened, is locked, damaged or from a newer version.
    """
    if db == "":
        raise UsageError("--db names no record", "give a path or URL, or leave it out")
    with open_store(db or os.environ.get("AUTOTUNE_DB") or DEFAULT_RECORD, create=create) as record:
        yield record


def changed_at(db: str | None = None) -> tuple[int, int] | None:
    """Something that differs after every change of the record's file; None where there is no file to look at."""
    place = db or os.environ.get("AUTOTUNE_DB") or DEFAULT_RECORD
    try:
        found = Path(place.removeprefix("sqlite:///").partition("?")[0]).expanduser().stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@contextmanager
def load_study(name: str, db: str | None = None) -> Iterator[Study]:
    """Open one study of the record, to read its trials and verifications.

    Raises:
        UsageError: No study of this name.
    """
    with open_record(db) as record:
        yield record.study(name)
