"""What machines can do at most: kept for each machine, appended, found whatever the order of its description."""

import importlib.util
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text

from autotuner.errors import MachineError
from autotuner.store import migrate, open_record, schema
from autotuner.types import Ceilings, Estimate

MACHINE = {"cpu": "œ", "cores": "2", "torch": "2.13.0", "device": "cpu"}
CEILINGS = Ceilings(
    values={"copy_bytes_per_s": Estimate(1.25e10, 1.2e10, 1.3e10), "launch_s": Estimate(3.1e-6, 3e-6, 3.3e-6)},
    environment=MACHINE,
    measured_at=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    contended=("launch_s",),
)


def test_ceilings_come_back_equal(path):
    with open_record(str(path)) as record:
        assert record.ceilings(MACHINE) is None
        record.append_ceilings(CEILINGS)
    with open_record(str(path)) as record:
        assert record.ceilings(MACHINE) == CEILINGS
        assert record.ceilings(dict(reversed(MACHINE.items()))) == CEILINGS


def test_another_machine_has_other_ceilings(record):
    record.append_ceilings(CEILINGS)
    for changed in ({**MACHINE, "torch": "2.14.0"}, {**MACHINE, "gpu": "A"}, {"cpu": "œ"}, {}):
        assert record.ceilings(changed) is None


def test_the_newest_count_and_the_older_ones_stay(record, path):
    later = replace(CEILINGS, values={"copy_bytes_per_s": Estimate(2e10, 2e10, 2e10)}, contended=())
    record.append_ceilings(CEILINGS)
    record.append_ceilings(later)
    assert record.ceilings(MACHINE) == later
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT created_at, code_version FROM ceilings").fetchall()
    assert len(rows) == 2
    assert all(datetime.fromisoformat(created_at).tzinfo is not None and code for created_at, code in rows)


def test_a_study_that_is_deleted_leaves_them(record, spec):
    record.create(spec, "tiny")
    record.append_ceilings(CEILINGS)
    record.delete("tiny")
    assert record.ceilings(MACHINE) == CEILINGS


def test_a_row_that_nobody_can_read_is_damage(record, path):
    record.append_ceilings(CEILINGS)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE ceilings SET body = '{}'")
    with pytest.raises(MachineError, match="table of ceilings"):
        record.ceilings(MACHINE)


def downgrade(path: Path) -> None:
    """Make the file what revision 0001 left: its own migration on an empty file, and the rows copied over."""
    script = Path(migrate.__file__).parent / "migrations" / "versions" / "0001_first.py"
    loaded = importlib.util.spec_from_file_location("first", script)
    first = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(first)
    older = path.with_name("older.db")
    engine = create_engine(f"sqlite:///{older}")
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        first.upgrade()
        connection.execute(text(f"CREATE TABLE {schema.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text(f"INSERT INTO {schema.VERSION_TABLE} VALUES ('0001')"))
    engine.dispose()
    with sqlite3.connect(older) as connection:
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute(f"ATTACH '{path}' AS newer")
        tables = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if name != schema.VERSION_TABLE and not name.startswith("sqlite_"):
                connection.execute(f"INSERT INTO main.{name} SELECT * FROM newer.{name}")
    older.replace(path)


def test_a_record_of_the_first_schema_keeps_its_study_and_takes_ceilings(path, spec, tools):
    with open_record(str(path)) as record:
        record.create(spec, "tiny").append_trials(tools.trial(number) for number in range(8))
        record.study("tiny").append_event("started")
    downgrade(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'ceilings'").fetchone() is None
    with open_record(str(path)) as record:
        assert record.study("tiny").trials() == [tools.trial(number) for number in range(8)]
        assert record.overview()[0].state == "unfinished"
        assert record.ceilings(MACHINE) is None
        record.append_ceilings(CEILINGS)
        assert record.ceilings(MACHINE) == CEILINGS
        record.study("tiny").append_trial(tools.trial(8))
    copy = path.with_name("autotune.db.0001.backup")
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM trial").fetchone() == (8,)
        assert connection.execute(f"SELECT version_num FROM {schema.VERSION_TABLE}").fetchone() == ("0001",)
