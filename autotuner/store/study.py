"""One study in the record: its specification, trials, verifications and events, in the order in which they came."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, select
from sqlalchemy.exc import IntegrityError

from autotuner.errors import MachineError, UsageError
from autotuner.store import codec, schema
from autotuner.store.database import Database
from autotuner.types import Failure, Measurement, Origin, Trial, Verification, config_key

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
Query: TypeAlias = Select[*tuple[Any, ...]]

_BATCH = 1000  # rows that a bulk insert keeps in memory


@cache
def code_version() -> str:
    """Version of the program that writes, for every row."""
    try:
        return version("autotune-loop")
    except PackageNotFoundError:
        return "0+unknown"


def provenance() -> dict[str, str]:
    """When a row is written, and by which version."""
    return {"created_at": datetime.now(UTC).isoformat(), "code_version": code_version()}


def store_document(connection: Connection, body: str) -> str:
    """Keep a text once, however many rows refer to it; returns its hash."""
    digest = codec.content_hash(body)
    known = select(schema.document.c.hash).where(schema.document.c.hash == digest)
    if connection.execute(known).first() is None:
        connection.execute(insert(schema.document), {"hash": digest, "body": body})
    return digest


class Study:
    """A study in the record. Appends are on the disk when they return; nothing is ever changed.

    Attributes:
        name: Unique in the record.
        created_at: UTC.
    """

    def __init__(self, database: Database, row: AnyRow) -> None:
        self.name: str = row.name
        self.created_at = _time(row)
        self._id: int = row.id
        self._database = database

    def spec(self) -> dict[str, Any]:
        """What `StudySpec.dump` gave when the study was created."""
        tables = schema.study.join(schema.document)
        query = select(schema.document.c.body).select_from(tables).where(schema.study.c.id == self._id)
        rows = self._fetch(query)
        if not rows:
            raise UsageError(f"the study {self.name!r} was deleted meanwhile")
        with self._decoding():
            return codec.decode_object(rows[0].body)

    def append_trial(self, trial: Trial) -> None:
        """Append one trial; it is on the disk when this returns.

        Raises:
            ValueError: A time without zone.
            MachineError: The disk is full, another process keeps the record locked, or has written this number.
        """
        self.append_trials([trial])

    def append_trials(self, trials: Iterable[Trial]) -> None:
        """Append many trials in one transaction: all of them or none."""
        with self._appending() as connection:
            batch: list[Trial] = []
            for trial in trials:
                batch.append(trial)
                if len(batch) == _BATCH:
                    self._insert(connection, batch)
                    batch = []
            if batch:
                self._insert(connection, batch)

    def count(self) -> int:
        """Number of trials."""
        query = select(func.count()).select_from(schema.trial).where(self._own)
        return int(self._fetch(query)[0][0])

    def failures(self) -> dict[str, int]:
        """Number of failed trials by kind, most frequent first."""
        kind, count = schema.trial.c.failure_kind, func.count()
        query = select(kind, count).where(self._own, kind.is_not(None)).group_by(kind).order_by(count.desc(), kind)
        return {row[0]: row[1] for row in self._fetch(query)}

    def values(self) -> list[float | None]:
        """What every trial measured of the first objective, in order; None for a failure."""
        query = select(schema.trial.c.value).where(self._own).order_by(schema.trial.c.number)
        return [row[0] for row in self._fetch(query)]

    def trials(self, samples: bool = True) -> list[Trial]:
        """Every trial in order.

        Args:
            samples: False leaves `Measurement.samples` empty, which is many times faster.
        """
        return self._decode(self._select(samples).order_by(schema.trial.c.number))

    def best(self, n: int, maximize: bool) -> list[Trial]:
        """The `n` best feasible trials by the first objective, best first; equal ones in order of their number."""
        value = schema.trial.c.value
        query = self._select().where(schema.trial.c.feasible.is_(True), value.is_not(None))
        return self._decode(query.order_by(value.desc() if maximize else value, schema.trial.c.number).limit(n))

    def last(self, n: int) -> list[Trial]:
        """The `n` newest trials, in order."""
        return self._decode(self._select().order_by(schema.trial.c.number.desc()).limit(n))[::-1]

    def trial(self, number: int) -> Trial:
        """One trial.

        Raises:
            UsageError: There is none of this number.
        """
        found = self._decode(self._select().where(schema.trial.c.number == number))
        if not found:
            raise UsageError(f"study {self.name!r} has no trial {number}", f"it has {self.count()}, from 0")
        return found[0]

    def append_verification(self, verification: Verification) -> None:
        """Append what a contest concluded."""
        row = {
            "decision": verification.decision,
            "gain_ratio": codec.orderable(verification.gain_ratio),
            "body": codec.encode(verification),
        }
        with self._appending() as connection:
            connection.execute(insert(schema.verification), {"study_id": self._id, **provenance(), **row})

    def verifications(self) -> list[tuple[datetime, Verification]]:
        """Every verification and when it was recorded (UTC), in order."""
        table = schema.verification
        rows = self._fetch(select(table).where(table.c.study_id == self._id).order_by(table.c.id))
        with self._decoding():
            return [(_time(row), codec.decode_verification(row.body)) for row in rows]

    def append_event(self, kind: str, payload: Mapping[str, Any] = {}) -> None:
        """Append something that happened; `started`, `resumed` and `finished` tell the study's state."""
        row = {"kind": kind, "payload": codec.encode(payload)}
        with self._appending() as connection:
            connection.execute(insert(schema.event), {"study_id": self._id, **provenance(), **row})

    def events(self, kind: str | None = None) -> list[tuple[datetime, str, dict[str, Any]]]:
        """Events as (UTC, kind, payload) in order; all of them, or those of one kind."""
        table = schema.event
        query = select(table).where(table.c.study_id == self._id).order_by(table.c.id)
        rows = self._fetch(query if kind is None else query.where(table.c.kind == kind))
        with self._decoding():
            return [(_time(row), row.kind, codec.decode_object(row.payload)) for row in rows]

    def newest_event(self, kind: str) -> dict[str, Any] | None:
        """Payload of the last event of a kind; None without one."""
        table = schema.event
        query = select(table).where(table.c.study_id == self._id, table.c.kind == kind)
        rows = self._fetch(query.order_by(table.c.id.desc()).limit(1))
        with self._decoding():
            return codec.decode_object(rows[0].payload) if rows else None

    @property
    def _own(self) -> ColumnElement[bool]:
        return schema.trial.c.study_id == self._id

    def _insert(self, connection: Connection, trials: Sequence[Trial]) -> None:
        measured = [(trial.number, trial.outcome) for trial in trials if isinstance(trial.outcome, Measurement)]
        environments = {codec.encode(outcome.environment) for _, outcome in measured}
        hashes = {body: store_document(connection, body) for body in sorted(environments)}
        connection.execute(insert(schema.trial), [{"study_id": self._id, **_row(trial, hashes)} for trial in trials])
        samples = [
            {"study_id": self._id, "number": number, "body": codec.pack_samples(outcome.samples)}
            for number, outcome in measured
        ]
        if samples:
            connection.execute(insert(schema.sample), samples)

    @contextmanager
    def _appending(self) -> Iterator[Connection]:
        try:
            with self._database.writing() as connection:
                yield connection
        except IntegrityError as error:
            raise MachineError(
                f"study {self.name!r} in {self._database.location} refuses a row: another process has deleted the "
                "study, or written a trial of the same number",
                "let one process at a time run a study",
            ) from error

    def _select(self, samples: bool = True) -> Query:
        trial, sample = schema.trial, schema.sample
        columns = [trial.c[name] for name in ("number", "origin", "config", "environment_hash", "outcome", "verdict")]
        if not samples:
            return select(*columns).where(self._own)
        same = and_(sample.c.study_id == trial.c.study_id, sample.c.number == trial.c.number)
        return select(*columns, sample.c.body).select_from(trial.outerjoin(sample, same)).where(self._own)

    def _fetch(self, query: Query) -> Sequence[AnyRow]:
        # All at once: a reader that lingers keeps a writer from committing.
        with self._database.reading() as connection:
            return connection.execute(query).all()

    def _decode(self, query: Query) -> list[Trial]:
        documents = schema.document
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            hashes = {row.environment_hash for row in rows} - {None}
            bodies = connection.execute(select(documents).where(documents.c.hash.in_(hashes))).all()
        with self._decoding():
            environments = {row.hash: codec.decode_object(row.body) for row in bodies}
            return [_trial(row, environments) for row in rows]

    def _decoding(self) -> AbstractContextManager[None]:
        return self._database.decoding(f"study {self.name!r}")


def _time(row: AnyRow) -> datetime:
    return datetime.fromisoformat(row.created_at)


def _row(trial: Trial, environments: Mapping[str, str]) -> dict[str, Any]:
    outcome, verdict = trial.outcome, trial.verdict
    if (verdict is None) != isinstance(outcome, Failure):
        raise ValueError(f"trial {trial.number}: a measurement has a verdict, a failure has none")
    measured = outcome if isinstance(outcome, Measurement) else None
    return {
        **provenance(),
        "number": trial.number,
        "environment_hash": environments[codec.encode(measured.environment)] if measured else None,
        "origin": trial.origin,
        "config_hash": codec.content_hash(config_key(trial.config)),
        "config": codec.encode(trial.config),
        "failure_kind": outcome.kind if isinstance(outcome, Failure) else None,
        "contended": measured is not None and measured.contended,
        "feasible": verdict is not None and verdict.feasible,
        "value": codec.orderable(next(iter(verdict.objectives.values()), None)) if verdict else None,
        "outcome": codec.encode_outcome(outcome),
        "verdict": codec.encode(verdict) if verdict else None,
    }


def _trial(row: AnyRow, environments: Mapping[str, Mapping[str, str]]) -> Trial:
    number, origin, config, environment_hash, outcome, verdict, *samples = row
    return Trial(
        number=number,
        config=codec.decode_config(config),
        origin=Origin(origin),
        outcome=codec.decode_outcome(outcome, samples[0] if samples else None, environments.get(environment_hash, {})),
        verdict=None if verdict is None else codec.decode_verdict(verdict),
    )
