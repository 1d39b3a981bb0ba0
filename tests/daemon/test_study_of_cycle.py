"""Which study is a cycle's own, how it is begun and taken up: a real service, whose studies are not run."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotuner import api
from autotuner.daemon.service import opened
from autotuner.daemon.spec import load_service
from autotuner.errors import MachineError, UsageError
from autotuner.types import Decision, Phase, Verification

sys.path.insert(0, str(Path(__file__).parent))
from test_service import STUDY, World, prometheus


class Studies:
    """What would be done by a process of its own is written down, and ends as the test says."""

    def __init__(self, folder, db, monkeypatch):
        self.folder, self.db, self.asked, self.ends = folder, db, [], lambda request: None
        monkeypatch.setattr("autotuner.daemon.service.work", self.work)

    def work(self, request, log, stop):
        self.asked.append(request)
        return self.ends(request)

    @contextmanager
    def service(self, **changes):
        spec = load_service(self.folder / "daemon.yaml")
        watch = spec.watch.model_copy(update=changes)
        with opened(spec.model_copy(update={"watch": watch}), self.db) as service:
            yield service

    def create(self, service, name):
        service._record.create(api.read_spec(self.folder / "speed.yaml", ()), name)


@pytest.fixture
def studies(tmp_path, monkeypatch):
    with prometheus(tmp_path) as url:
        yield Studies(tmp_path, World(tmp_path, url).db, monkeypatch)


def tuning(service):
    """Turns of a new daemon until the study was asked for."""
    kept = service.keeper()
    kept.turn()
    if service.journal.state().phase is Phase.WATCHING:
        service.journal.tell("tune", {"by": "me"})
        kept.turn()
    kept.leave()
    return service.journal.state()


def test_a_foreign_study_of_the_name_is_not_the_cycles_own(studies):
    """Somebody's, or one of an older life of the service: finished or not."""
    with studies.service() as service:
        studies.create(service, "chat-1")
        service._record.study("chat-1").append_event("finished", {})
        studies.create(service, "chat-1-2")
        state = tuning(service)
    assert (state.phase, state.study) == (Phase.TUNING, "chat-1-3")
    assert [(one["do"], one["name"]) for one in studies.asked] == [("start", "chat-1-3")]


def test_the_study_that_the_cycle_began_before_it_died_is_taken_up(studies):
    with studies.service() as service:
        assert tuning(service).study == "chat-1"
        studies.create(service, "chat-1")
    with studies.service() as service:
        assert tuning(service).study == "chat-1"
    assert [(one["do"], one["name"]) for one in studies.asked] == [("start", "chat-1"), ("resume", "chat-1")]


def finish(studies, service, name):
    """A study that is over, and found that `fast` is better."""
    studies.create(service, name)
    study, found = service._record.study(name), {"fast": 1}
    proof = Verification(Decision.BETTER, "it is.", found, {"fast": 0}, "throughput_tokens_per_s", 2.0, (1.9, 2.1))
    study.append_verification(proof)
    study.append_event("finished", {})


def turn_again(service):
    kept = service.keeper()
    try:
        return kept.turn()
    finally:
        kept.leave()


def alerts(service):
    return [entry.payload["text"] for entry in service.journal.entries(kinds=("alert",))]


def test_a_winner_that_the_exporter_refuses_ends_the_cycle(studies, monkeypatch):
    """In every turn it would refuse it anew."""

    class Refuses:
        def draft(self, config, found):
            raise UsageError("3 micro batches of 5 samples are no global batch of 16")

    with studies.service() as service:
        assert tuning(service).phase is Phase.TUNING
        finish(studies, service, "chat-1")
        monkeypatch.setattr(service, "_exporter", Refuses())
        state = turn_again(service)
        assert (state.phase, state.candidate) == (Phase.WATCHING, "")
        assert "chat-1 found cannot be used: 3 micro batches of 5 samples" in state.reason
        assert alerts(service)[-1] == f"chat: {state.reason}"


@pytest.mark.parametrize("place", ["names", "recommendation", "_bundle"])
def test_what_cannot_be_read_or_written_just_now_throws_no_winner_away(studies, monkeypatch, place):
    """A record that is locked, or a disk that is full, while a study is finished."""

    def fail(*_):
        raise MachineError("the record is locked by another process")

    with studies.service() as service:
        tuning(service)
        finish(studies, service, "chat-1")
        with monkeypatch.context() as patch:
            where = {"names": service._record, "_bundle": service}
            patch.setattr(*([where[place], place] if place in where else [f"autotuner.daemon.service.{place}"]), fail)
            with pytest.raises(MachineError, match="locked"):
                turn_again(service)
        assert service.journal.state().phase is Phase.TUNING
        state = turn_again(service)
    assert (state.phase, state.candidate != state.last_good) == (Phase.CANARY, True)


def test_a_study_whose_process_fails_ends_the_cycle(studies):
    def fail(request):
        raise MachineError("its process ended with 1")

    studies.ends = fail
    with studies.service() as service:
        assert tuning(service).phase is Phase.WATCHING
        assert alerts(service) == ["chat: the study chat-1 could not be run: its process ended with 1"]


def test_a_study_that_cannot_begin_from_a_damaged_bundle_ends_the_cycle(studies):
    with studies.service() as service:
        turn_again(service)
        (service.bundles.path(service.journal.state().last_good) / "config.json").write_text("{}")
        assert tuning(service).phase is Phase.WATCHING
        assert "chat-1 cannot begin from what serves: the files of" in alerts(service)[-1]


@pytest.mark.parametrize(
    ("parameters", "overrides"),
    [
        ("{fast: {int: [0, 1], default: 1, live: true}}", ["parameters.fast.default=0"]),
        ("{fast: {int: [0, 1], default: 1}, more: {bool: true, default: true}}", ["parameters.fast.default=0"]),
        ("{fast: {int: [1, 2], default: 1, live: true}}", []),  # what serves is no value any more
        ("{other: {int: [0, 1], default: 1, live: true}}", []),  # it was taken out
    ],
)
def test_what_serves_is_the_baseline_as_far_as_the_study_file_knows_it(studies, parameters, overrides):
    with studies.service() as service:
        turn_again(service)
        text = STUDY.replace("\n  fast: {int: [0, 1], default: 0, live: true}", f" {parameters}")
        if "other" in parameters:
            text = text.replace("(1 + fast)", "(1 + other)")
        (studies.folder / "speed.yaml").write_text(text)
        assert tuning(service).phase is Phase.TUNING
        assert studies.asked[-1]["overrides"] == overrides
        api.read_spec(studies.folder / "speed.yaml", overrides)
