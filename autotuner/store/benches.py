"""The history of `autotune bench`: one row a run, appended, never changed."""

from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select

from autotuner.store import codec, schema
from autotuner.store.database import Database
from autotuner.store.study import AnyRow, provenance, store_document
from autotuner.types import BenchDecision, BenchKey, BenchRun

_COLUMNS = {"key", "revision", "environment", "decision", "value", "samples", "created_at"}
_BODY = tuple(field.name for field in fields(BenchRun) if field.name not in _COLUMNS)


class Benches:
    """Reads and appends runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, run: BenchRun) -> None:
        """Append a run; it is on the disk when this returns.

        Raises:
            MachineError: The disk is full, or another process keeps the record locked.
        """
        key = run.key
        row = {
            **provenance(),
            "file": key.file,
            "branch": key.branch,
            "settings": key.settings,
            "metric": key.metric,
            "maximize": key.maximize,
            "revision": run.revision,
            "decision": run.decision,
            "value": codec.orderable(run.value),
            "body": codec.encode({name: getattr(run, name) for name in _BODY}),
            "samples": codec.pack_samples(run.samples),
        }
        with self._database.writing() as connection:
            environment = store_document(connection, codec.encode(dict(sorted(run.environment.items()))))
            connection.execute(insert(schema.bench), {**row, "environment_hash": environment})

    def runs(self, key: BenchKey, *, samples: bool = False) -> list[BenchRun]:
        """Every run of a history, oldest first, of whatever environment.

        Args:
            key: Which history.
            samples: True reads the raw samples as well.
        """
        table, document = schema.bench, schema.document
        columns = [column for column in table.c if samples or column is not table.c.samples]
        query = (
            select(*columns, document.c.body.label("environment"))
            .select_from(table.join(document))
            .where(
                table.c.file == key.file,
                table.c.branch == key.branch,
                table.c.settings == key.settings,
                table.c.metric == key.metric,
                table.c.maximize == key.maximize,
            )
            .order_by(table.c.id)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        with self._database.decoding("the table of bench"):
            found = [_run(row, key) for row in rows]
            return [
                replace(run, samples=codec.unpack_samples(row.samples)) if samples else run
                for run, row in zip(found, rows, strict=True)
            ]


def _run(row: AnyRow, key: BenchKey) -> BenchRun:
    plain: dict[str, Any] = codec.decode_object(row.body)
    interval = plain["gain_interval"]
    plain |= {
        "launch_values": tuple(plain["launch_values"]),
        "broken": tuple(plain["broken"]),
        "gain_interval": None if interval is None else tuple(interval),
    }
    return BenchRun(
        **plain,
        key=key,
        revision=row.revision,
        environment=codec.decode_object(row.environment),
        decision=BenchDecision(row.decision),
        value=row.value,
        created_at=datetime.fromisoformat(row.created_at),
    )
