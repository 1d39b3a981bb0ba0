"""The tables have a version: created by migrations, moved on by migrations, copied before."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from autotuner.errors import MachineError
from autotuner.store import migrate, open_record, schema

NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0005", "0004"


def upgrade():
    with op.batch_alter_table("event") as table:
        table.add_column(sa.Column("extra", sa.Text()))
    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))
"""


@pytest.fixture
def next_version(monkeypatch, tmp_path):
    """Pretend that the program has one more migration; returns its file."""
    folder = tmp_path / "migrations"
    shutil.copytree(Path(migrate.__file__).parent / "migrations", folder)
    monkeypatch.setattr(migrate, "SCRIPTS", str(folder))
    monkeypatch.setattr(schema, "HEAD", "0005")
    file = folder / "versions" / "0005_next.py"
    file.write_text(NEXT)
    return file


def tables(path):
    with sqlite3.connect(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_migrations_and_models_agree(record, path):
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.metadata) == []
        assert context.get_current_revision() == schema.HEAD
    engine.dispose()


def test_head_is_the_newest_migration():
    assert ScriptDirectory.from_config(migrate._configure()).get_current_head() == schema.HEAD


def test_an_up_to_date_record_does_not_import_alembic(record, path):
    code = (
        "import sys; from autotuner.store import open_record\n"
        f"with open_record({str(path)!r}) as record: record.overview()\n"
        "sys.exit('alembic' in sys.modules or 'torch' in sys.modules or 'optuna' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_file_says_whose_it_is_and_how_it_is_kept(record, path):
    with record._database.reading() as connection:
        pragmas = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                   ("application_id", "journal_mode", "synchronous", "foreign_keys")}  # fmt: skip
    assert pragmas == {
        "application_id": schema.APPLICATION_ID, "journal_mode": "delete", "synchronous": 2, "foreign_keys": 1,
    }  # fmt: skip
    assert path.read_bytes()[68:72] == b"ATUN"


def test_an_older_record_is_copied_and_then_migrated(path, spec, tools, request):
    with open_record(str(path)) as record:
        record.create(spec, "tiny").append_trials(tools.trial(number) for number in range(8))
        record.study("tiny").append_event("started")
    old = tables(path)
    request.getfixturevalue("next_version")
    with open_record(str(path)) as record:
        assert record.study("tiny").trials() == [tools.trial(number) for number in range(8)]
        assert record.overview()[0].state == "unfinished"
    copy = path.with_name("autotune.db.0004.backup")
    assert tables(copy) == old
    assert tables(path) == old | {"later"}
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM trial").fetchone() == (8,)
        assert connection.execute("SELECT version_num FROM autotune_revision").fetchone() == ("0004",)
    assert sorted(file.name for file in path.parent.iterdir()) == ["autotune.db", "autotune.db.0004.backup"]


def test_a_migration_that_fails_changes_nothing(path, spec, next_version, monkeypatch):
    monkeypatch.setattr(schema, "HEAD", "0004")
    next_version.unlink()
    with open_record(str(path)) as record:
        record.create(spec, "tiny")
    before = tables(path)
    monkeypatch.setattr(schema, "HEAD", "0005")
    next_version.write_text(NEXT + "    raise RuntimeError('half-way')\n")
    with pytest.raises(RuntimeError, match="half-way"), open_record(str(path)):
        pass
    assert tables(path) == before
    next_version.write_text(NEXT)
    with open_record(str(path)) as record:
        assert record.names() == ["tiny"]


def test_without_room_for_a_copy_nothing_is_migrated(path, spec, request):
    with open_record(str(path)) as record:
        record.create(spec, "tiny")
    before = tables(path)
    request.getfixturevalue("next_version")
    path.with_name("autotune.db.0004.partial").mkdir()  # stands for whatever keeps the copy from being written
    with pytest.raises(MachineError, match="no backup"), open_record(str(path)):
        pass
    assert tables(path) == before
