"""Which study is a cycle's own, how it is begun and taken up: a real service, whose studies are not run."""

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from autotuner import api
from autotuner.daemon.service import opened
from autotuner.daemon.spec import load_service
from autotuner.types import Phase

sys.path.insert(0, str(Path(__file__).parent))
from test_service import World, prometheus


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
