"""One study for all: the storage has moved away, the daemon has found what is better now, and waits for a person."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from outside import program, wait_until
from stage import FAR, Stage

from autotuner.types import Phase

APPROVAL = [("lease: 5 s", "lease: 2 s\napproval: true")]


def skip_without(*names):
    for name in names:
        if program(name) is None:
            pytest.skip(f"there is no {name} here: `make prometheus servers` unpacks Debian's")


@pytest.fixture(scope="session")
def found(tmp_path_factory):
    """(folder of the record in APPROVAL, its state, how many requests were answered and which failed until then)."""
    skip_without("haproxy", "prometheus")
    folder = tmp_path_factory.mktemp("found")
    with Stage(folder / "s", changes=APPROVAL) as stage, stage.daemon() as daemon:
        stage.until(lambda state: state.phase is Phase.WATCHING and state.reached, daemon)
        stage.users.begin()
        wait_until(lambda: stage.users.answered > 100)
        stage.is_live(FAR)
        stage.in_study(FAR)
        state = stage.until(lambda state: state.phase is Phase.APPROVAL, daemon)
        users = stage.users
        before = stage.config(state.last_good), stage.config(state.candidate)
        return stage.snapshot(folder / "record"), state, before, users


@pytest.fixture
def waiting(found, tmp_path):
    """Makes a stage in which what is stable serves, users ask, and a person has let the canary begin.

    Args of what it gives: what to write instead of what in the daemon's file, and what is wrong with the service.
    """
    record, state, *_ = found
    with ExitStack() as stack:

        def begin(*changes, proxy="haproxy", **faults):
            skip_without(proxy)
            stage = stack.enter_context(Stage(tmp_path / "s", proxy, record, [*APPROVAL, *changes]))
            stage.is_live(FAR, **faults)
            stage.resume(state.last_good)
            stage.users.begin()
            stage.say("approve")
            return stage

        yield begin
