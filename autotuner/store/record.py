"""The record: every study of a project or a team in one database."""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, select, union
from sqlalchemy.exc import IntegrityError

from autotuner.errors import MachineError, UsageError
from autotuner.store import codec, schema
from autotuner.store.benches import Benches
from autotuner.store.database import Database, open_database
from autotuner.store.journal import Journal
from autotuner.store.study import Study, provenance, store_document
from autotuner.types import Ceilings, Decision

if TYPE_CHECKING:
    from autotuner.spec.model import StudySpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STATES = ("started", "resumed", "finished")


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One line of the overview.

    Attributes:
        name: Of the study.
        created_at: UTC.
        metric: First objective.
        maximize: Its direction.
        trials: How many are recorded, failures included.
        failures: How many of them failed.
        state: "finished" when the last run came to its end.
        decision: Of the newest verification; None without one.
        gain_ratio: Its factor; None also when it is not a number.
    """

    name: str
    created_at: datetime
    metric: str
    maximize: bool
    trials: int
    failures: int
    state: Literal["unfinished", "finished"]
    decision: Decision | None
    gain_ratio: float | None


@contextmanager
def open_record(url: str, busy_timeout_s: float = 30.0, *, create: bool = True) -> Iterator["Record"]:
    """Open the record, creating or migrating it where needed.

    Args:
        url: A path (an SQLite file, its folder is created) or an SQLAlchemy URL of SQLite or PostgreSQL.
        busy_timeout_s: How long to wait for another process that writes (SQLite).
        create: Make the file when it is not there.

    Raises:
        UsageError: The URL makes no sense, there is no file and none may be made, or it is another program's.
        MachineError: It is locked, damaged, read-only, full, unreachable, or from a newer version.
    """
    with open_database(url, busy_timeout_s, create=create) as database:
        yield Record(database)


class Record:
    """An opened record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def url(self) -> str:
        """Where it is, as `open_record` takes it, but without a password."""
        return self._database.url.render_as_string(hide_password=True)

    def create(self, spec: "StudySpec", name: str) -> Study:
        """Begin a study.

        Raises:
            UsageError: The name is taken, or is none: 1 to 64 letters, digits, dots, dashes and underscores.
        """
        _check_name(name)
        objective = spec.objective
        row = {"name": name, **provenance(), "metric": objective.metric, "maximize": objective.sign > 0}
        try:
            with self._database.writing() as connection:
                spec_hash = store_document(connection, codec.encode(spec.dump()))
                connection.execute(insert(schema.study), {**row, "spec_hash": spec_hash})
        except IntegrityError as error:
            raise UsageError(f"there is a study {name!r} already", "resume it, or choose another name") from error
        return self.study(name)

    def study(self, name: str) -> Study:
        """The study of this name.

        Raises:
            UsageError: There is none; the hint names the nearest, or all.
        """
        with self._database.reading() as connection:
            row = connection.execute(select(schema.study).where(schema.study.c.name == name)).first()
        if row is None:
            raise UsageError(f"there is no study {name!r} in {self._database.location}", _advise(name, self.names()))
        with self._database.decoding(f"study {name!r}"):
            return Study(self._database, row)

    def names(self) -> list[str]:
        """Names of the studies, oldest first."""
        with self._database.reading() as connection:
            return list(connection.execute(select(schema.study.c.name).order_by(schema.study.c.id)).scalars())

    def overview(self) -> list[StudyRow]:
        """One line a study, oldest first."""
        study, trial, event, verification = schema.study, schema.trial, schema.event, schema.verification
        query = select(
            *(study.c.name, study.c.created_at, study.c.metric, study.c.maximize),
            _count(trial).label("trials"),
            _count(trial, trial.c.failure_kind.is_not(None)).label("failures"),
            _newest(event.c.kind, event, event.c.kind.in_(_STATES)).label("state"),
            _newest(verification.c.decision, verification).label("decision"),
            _newest(verification.c.gain_ratio, verification).label("gain_ratio"),
        ).order_by(study.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        with self._database.decoding("the table of studies"):
            return [_study_row(row._asdict()) for row in rows]

    def delete(self, name: str) -> None:
        """Remove a study's rows, all or none. Its folder stays.

        Raises:
            UsageError: There is none of this name, or it is being run.
        """
        self.study(name)
        with self.lock(name), self._database.writing() as connection:
            found = select(schema.study.c.id).where(schema.study.c.name == name)
            study_id = connection.execute(found).scalar()
            for table in (schema.sample, schema.trial, schema.verification, schema.event):
                connection.execute(delete(table).where(table.c.study_id == study_id))
            connection.execute(delete(schema.study).where(schema.study.c.id == study_id))
            _delete_orphans(connection)

    def append_ceilings(self, ceilings: Ceilings) -> None:
        """Append what a machine can do at most; it belongs to no study and stays when studies go."""
        row = {"machine_hash": codec.machine_hash(ceilings.environment), "body": codec.encode(ceilings)}
        with self._database.writing() as connection:
            connection.execute(insert(schema.ceilings), {**provenance(), **row})

    def ceilings(self, environment: Mapping[str, str]) -> Ceilings | None:
        """The newest that hold for exactly this environment; None if none were measured."""
        table = schema.ceilings
        query = select(table.c.body).where(table.c.machine_hash == codec.machine_hash(environment))
        with self._database.reading() as connection:
            body = connection.execute(query.order_by(table.c.id.desc()).limit(1)).scalar()
        with self._database.decoding("the table of ceilings"):
            return None if body is None else codec.decode_ceilings(body)

    def journal(self, service: str) -> Journal:
        """What the daemon did for a service.

        Raises:
            UsageError: The name is none: as of studies.
        """
        _check_name(service)
        return Journal(self._database, service)

    def services(self) -> list[str]:
        """Services that the daemon has met."""
        query = select(schema.journal.c.service).distinct().order_by(schema.journal.c.service)
        with self._database.reading() as connection:
            return [row[0] for row in connection.execute(query).all()]

    @property
    def benches(self) -> Benches:
        """Runs of `autotune bench`; they belong to no study and stay when studies go."""
        return Benches(self._database)

    def folder(self, name: str) -> Path:
        """Where a study's logs, exports and reports go: beside the SQLite file, else `studies/NAME`.

        Raises:
            UsageError: The name is none, so that `../x` cannot leave the folder.
        """
        _check_name(name)
        return self._base() / name

    def service_folder(self, service: str) -> Path:
        """Where the daemon keeps what belongs to a service; no study's folder, for none begins with an underscore.

        Raises:
            UsageError: The name is none: as of studies.
        """
        _check_name(service)
        return self._base() / "_services" / service

    def _base(self) -> Path:
        path = self._database.path
        return path.parent if path is not None else Path("studies")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Be the only process on this machine that runs the study; the kernel frees a dead process's lock.

        Raises:
            UsageError: Another process runs it.
            MachineError: The folder cannot be written.
        """
        folder = self.folder(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / ".lock").open("a+")
        except OSError as error:
            raise MachineError(f"{folder} cannot be written: {error.strerror}") from error
        with file:
            _claim(file, name)
            yield


def _claim(file: IO[str], name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        raise UsageError(f"study {name!r} is being run by process {owner}", "wait for it, or end it") from None
    except OSError as error:
        raise MachineError(f"{file.name} cannot be locked: {error.strerror}") from error
    file.truncate(0)
    with suppress(OSError):  # for the reader only: on a full disk the lock holds all the same
        os.write(file.fileno(), f"{os.getpid()}\n".encode())


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a study",
            "1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit",
        )


def _advise(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return "known: " + ", ".join(names) if names else "the record has no studies yet"


def _count(table: Table, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    own = table.c.study_id == schema.study.c.id
    return select(func.count()).select_from(table).where(own, *conditions).scalar_subquery()


def _newest(column: ColumnElement[Any], table: Table, *conditions: ColumnElement[bool]) -> ColumnElement[Any]:
    own = table.c.study_id == schema.study.c.id
    return select(column).where(own, *conditions).order_by(table.c.id.desc()).limit(1).scalar_subquery()


def _study_row(row: dict[str, Any]) -> StudyRow:
    return StudyRow(
        **{
            **row,
            "created_at": datetime.fromisoformat(row["created_at"]),
            "state": "finished" if row["state"] == "finished" else "unfinished",
            "decision": None if row["decision"] is None else Decision(row["decision"]),
        }
    )


def _delete_orphans(connection: Connection) -> None:
    """Remove the texts that no row refers to any more."""
    used = union(
        select(schema.study.c.spec_hash),
        select(schema.trial.c.environment_hash).where(schema.trial.c.environment_hash.is_not(None)),
        select(schema.bench.c.environment_hash),
    )
    connection.execute(delete(schema.document).where(schema.document.c.hash.not_in(used)))
