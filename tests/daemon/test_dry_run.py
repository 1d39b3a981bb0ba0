"""A dry run looks and decides, and leaves everything as it is: also what somebody else has put there, or has begun."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import Keeper
from autotuner.daemon.watching import Watch
from autotuner.errors import MachineError
from autotuner.telling import sentence_of
from autotuner.types import Deployment, Phase

sys.path.insert(0, str(Path(__file__).parent))
from simulated import LEVEL, TERMS, Simulated, better, keeper, until

DRY = replace(TERMS, dry_run=True)


@pytest.fixture
def world():
    found = Simulated()
    better(found)
    found.place = lambda wanted, token: pytest.fail("nothing is put in place")
    return found


def reasons(journal):
    return [entry.payload["state"]["reason"] for entry in journal.entries(kinds=("state",))]


def test_it_says_what_it_would_try(journal, world):
    kept = keeper(journal, world, DRY)
    seen = {kept.turn().phase for _ in range(30)}
    assert seen == {Phase.WATCHING, Phase.TUNING}
    assert "BETTER; a dry run does not try b1" in reasons(journal)
    assert not list(journal.entries(kinds=("alert", "quarantine")))


@pytest.mark.parametrize("served", [Deployment("by hand"), None])
def test_what_was_deployed_by_hand_is_told_once_and_left(journal, world, served, caplog):
    def observe():
        if served is None:
            raise HookError("observe ended with 1")
        return served

    outside = replace(world.world(), observe=observe)
    kept = Keeper(journal, outside, DRY, Watch([LEVEL], breaches=2), "one")
    for _ in range(10):
        assert kept.turn().phase in (Phase.WATCHING, Phase.TUNING)
    assert world.tuned == [1], "it goes on all the same"
    line = "by hand serves, and b0 would be put in place" if served else "observe ended with 1"
    (entry,) = journal.entries(kinds=("dry run",))
    assert sentence_of(entry) == f"differs {line}"
    assert caplog.messages == [f"a dry run: {line}"]


def test_what_is_under_way_is_left_to_a_daemon_that_may_act(journal, world):
    acting = Simulated()
    better(acting)
    other = keeper(journal, acting, holder="other")
    before, _ = until(other, Phase.CANARY)
    other.leave()
    dry = keeper(journal, world, DRY)
    journal.tell("rollback", {"by": "me"})
    for _ in range(3):
        with pytest.raises(MachineError, match="chat is at canary, which a dry run leaves as it is"):
            dry.turn()
    assert journal.state() == before, "and your word is still to be heard"
    assert "me wants it back" in other.turn().reason, "it does not wait for the lease of the dry run"


def test_no_rollback_in_a_dry_run(journal, world):
    acting = Simulated()
    better(acting)
    other = keeper(journal, acting, holder="other")
    until(other, Phase.CANARY)
    until(other, Phase.WATCHING)
    other.leave()
    world.served, world.latency_s = acting.served, {**acting.latency_s, "b1": 0.1}
    dry = keeper(journal, world, DRY)
    journal.tell("rollback", {"by": "me"})
    assert dry.turn().phase is Phase.WATCHING
    (*_, newest) = journal.entries(kinds=("state",))
    assert sentence_of(newest) == "watching: nothing comes of rollback by me: a dry run changes nothing"
