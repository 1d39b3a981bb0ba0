"""What a person asks and says without naming the service, and what programs get of it."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from autotuner.cli.daemon_say import WORDS
from autotuner.cli.main import app
from autotuner.daemon.keeper import SAID
from autotuner.store import open_record
from autotuner.types import Deployment, Phase, ServiceState

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def meet(db, *services):
    with open_record(db) as record:
        for name in services:
            journal = record.journal(name)
            state = ServiceState(Phase.WATCHING, Deployment("aa"), True, "aa", NOW, "apply said \x1b[31mno\nend")
            journal.enter(journal.acquire("here", NOW.timestamp(), 1.0), state, {"event": "met"})


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "record.db")


def autotune(db, *words):
    return CliRunner().invoke(app, ["daemon", *words, "--db", db])


def test_the_only_service_need_not_be_named(db):
    meet(db, "chat")
    assert json.loads(autotune(db, "status", "--json").stdout)["service"] == "chat"
    assert autotune(db, "status").stdout.startswith("service      chat\n")
    assert "watching after met" in autotune(db, "history").stdout
    assert set(WORDS) == set(SAID)
    for word in SAID:
        said = json.loads(autotune(db, word, "--json").stdout)
        assert (said["service"], said["said"]) == ("chat", word)
    assert autotune(db, "freeze").stdout.startswith("freeze: said to chat; ")
    with open_record(db) as record:
        assert [entry.kind for entry in record.journal("chat").entries() if entry.kind in SAID] == [*SAID, "freeze"]


@pytest.mark.parametrize("word", ["status", "history", "freeze"])
def test_of_several_one_has_to_be_named(db, word):
    meet(db, "chat", "other")
    done = autotune(db, word)
    assert (done.exit_code, done.stderr) == (2, "error: say which service: there are chat, other\n")
    done = autotune(db, word, "caht")
    assert (done.exit_code, done.stderr) == (
        2, "error: there is no service 'caht' in this record — there are: chat, other\n",
    )  # fmt: skip
    assert autotune(db, word, "other").exit_code == 0


def test_a_record_without_a_service(db):
    with open_record(db):
        pass
    for word in ("status", "history", "freeze"):
        done = autotune(db, word)
        assert (done.exit_code, done.stderr) == (
            2, "error: there is no service in this record — autotune daemon run FILE\n",
        )  # fmt: skip


def test_what_a_program_said_cannot_steer_a_terminal(db):
    meet(db, "chat")
    assert "apply said no end" in autotune(db, "status").stdout
    assert "apply said no end" in autotune(db, "history").stdout
    assert json.loads(autotune(db, "status", "--json").stdout)["because"] == "apply said \x1b[31mno\nend"


def test_who_has_no_name_is_a_number(db, monkeypatch):
    meet(db, "chat")

    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert autotune(db, "freeze").exit_code == 0
    (row,) = [row for row in json.loads(autotune(db, "history", "--json").stdout) if row["kind"] == "freeze"]
    assert row["by"] == "user 4711"
