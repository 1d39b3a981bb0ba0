"""Of the studies of a service's cycles, those that are kept; in a real record, with real folders."""

import pytest

from autotuner.daemon.keeper import STUDY
from autotuner.daemon.retention import forget_studies
from autotuner.executors.process import ProcessExecutor
from autotuner.spec.model import StudySpec
from autotuner.store import open_record
from autotuner.testing.replay import Replay
from autotuner.types import Decision, Verification

SPEC = StudySpec.model_validate({
    "name": "s", "workload": Replay(), "executor": ProcessExecutor(),
    "parameters": {"batch": {"int": [1, 1000], "default": 1}}, "objectives": [{"maximize": "throughput_steps_per_s"}],
})  # fmt: skip


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "record.db")


@pytest.fixture
def record(db):
    with open_record(db) as opened:
        yield opened


@pytest.fixture
def study(record):
    """`study(name, batch, *decisions)`, with a folder."""

    def make(name, batch=1, *decisions, noted=True):
        if noted:
            record.journal("chat").tell(STUDY, {"name": name})
        made = record.create(SPEC, name)
        record.folder(name).mkdir(parents=True)
        (record.folder(name) / "log").write_text("x")
        for decision in decisions:
            claim = Verification(decision, "", {"batch": batch}, {"batch": 1}, SPEC.objective.metric, 1.2, (1.1, 1.3))
            made.append_verification(claim)

    return make


def kept(record, db, keep, serving=()):
    forget_studies(record, db, record.journal("chat"), keep, serving)
    assert all(record.folder(name).exists() for name in record.names())
    return record.names()


def test_the_newest_are_kept_and_the_others_go_with_their_folders(record, db, study):
    for number in range(1, 7):
        study(f"chat-{number}", 1, Decision.SAME)
    assert kept(record, db, 4) == ["chat-3", "chat-4", "chat-5", "chat-6"]
    assert not record.folder("chat-1").exists()
    study("chat-7")  # without a verdict
    assert kept(record, db, 4) == ["chat-4", "chat-5", "chat-6", "chat-7"]


def test_what_others_began_is_never_deleted_whatever_it_is_called(record, db, study):
    study("chat-1", noted=False)
    study("speed", noted=False)
    for number in range(2, 5):
        study(f"chat-{number}")
    assert kept(record, db, 1) == ["chat-1", "speed", "chat-4"]


def test_what_a_new_study_starts_from_is_kept_as_well(record, db, study):
    """A service that is tuned well finds nothing for a year, and must not forget why."""
    for number in range(1, 5):
        study(f"chat-{number}", number, Decision.BETTER)
    study("chat-5", 5, Decision.BETTER, Decision.SAME)  # verified again, and not confirmed
    for number in range(6, 9):
        study(f"chat-{number}", 1, Decision.SAME)
    assert kept(record, db, 2) == ["chat-3", "chat-4", "chat-7", "chat-8"]


def test_what_the_bundles_of_the_way_back_came_from_is_kept(record, db, study):
    for number in range(1, 7):
        study(f"chat-{number}", number, Decision.BETTER)
    study("chat-7", 1, Decision.SAME)
    assert kept(record, db, 1, [{"batch": 2}, {"batch": 4}]) == ["chat-2", "chat-4", "chat-6", "chat-7"]


def test_what_somebody_runs_just_now_is_left_for_the_next_time(record, db, study, caplog):
    for number in range(1, 4):
        study(f"chat-{number}")
    with record.lock("chat-1"):
        assert "chat-1" in kept(record, db, 1)
    assert "older studies of chat are kept for now" in caplog.text
    assert kept(record, db, 1) == ["chat-3"]
