"""A keeper that is one of many, dies at a bad moment, finds its record locked, or works for years."""

import sqlite3
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from autotuner.daemon.keeper import LEASE_S, Keeper
from autotuner.daemon.watching import Watch
from autotuner.errors import MachineError
from autotuner.store import open_record
from autotuner.types import Phase

sys.path.insert(0, str(Path(__file__).parent))

from simulated import LEVEL, TERMS, Cut, Simulated, better, keeper, until


def test_what_was_heard_long_ago_is_not_heard_again(journal, monkeypatch):
    """Though so much has happened since that the entry of its hearing is no longer among those that are read."""
    monkeypatch.setattr("autotuner.daemon.keeper._KEPT", 20)
    world = Simulated()
    world.latency_s["b0"] = 0.1
    kept = keeper(journal, world)
    kept.turn()
    journal.tell("tune", {"by": "me"})
    for _ in range(5):
        kept.turn()
    for number in range(25):
        journal.enter(1, replace(journal.state(), reason=f"{number}"), {"event": "a test"})
    for _ in range(5):
        kept.turn()
    assert world.tuned == [1]


def test_a_rejected_candidate_is_remembered_though_the_daemon_dies_right_then(journal):
    world = Simulated()
    world.latency_s["b1"], world.offers = 0.30, ["b1"]

    def dies():
        if journal.state() is not None and journal.state().phase is Phase.ROLLING_BACK:
            raise Cut

    kept = Keeper(journal, replace(world.world(), alert=dies), TERMS, Watch([LEVEL], breaches=2), "one")
    until(kept, Phase.CANARY)
    with pytest.raises(Cut):
        until(kept, Phase.WATCHING)
    assert journal.state().phase is Phase.ROLLING_BACK
    assert [entry.payload["bundle"] for entry in journal.entries(kinds=("quarantine",))] == ["b1"]
    (alert,) = journal.entries(kinds=("alert",))
    assert alert.payload["text"].startswith("chat: rolling_back: FAIL"), "it stands there for the next one to tell"


@pytest.mark.parametrize("leaves", [True, False])
def test_what_a_daemon_saw_before_another_one_led_counts_no_more(journal, leaves):
    """One of two looks of a breach; another one looks and sees none, and changes no state: the next is the first."""
    world, asked = Simulated(), []
    world.latency_s["b0"] = 0.1
    one = Keeper(
        journal, replace(world.world(), alert=lambda: asked.append("one")), TERMS, Watch([LEVEL], breaches=2), "one"
    )
    other = keeper(journal, world, holder="other")
    one.turn()
    one.turn()
    left = journal.state()
    world.latency_s["b0"] = 0.25
    assert one.turn().phase is Phase.WATCHING
    world.now += timedelta(seconds=LEASE_S + 1)
    world.latency_s["b0"] = 0.1
    for _ in range(60):
        assert other.turn() == left
    assert one.turn() is None
    if leaves:
        other.leave()
    else:
        world.now += timedelta(seconds=LEASE_S + 1)
    world.latency_s["b0"] = 0.25
    asked.clear()
    assert one.turn().phase is Phase.WATCHING
    assert asked == ["one"], "what the other one had not told any more"
    assert one.turn().phase is Phase.TUNING


def test_a_leader_that_slept_right_after_its_last_state_drops_nothing_of_its_successors(journal):
    world, dropped = Simulated(), []
    kept = Keeper(journal, replace(world.world(), tidy=dropped.append), TERMS, Watch([LEVEL], breaches=2), "one")
    until(kept, Phase.TUNING)
    enter = journal.enter

    def sleeps(token, state, *args, **beside):
        enter(token, state, *args, **beside)
        if state.phase is Phase.WATCHING:
            world.now += timedelta(seconds=LEASE_S + 1)
            assert journal.acquire("other", world.now.timestamp(), LEASE_S)

    journal.enter = sleeps
    while (state := kept.turn()) is not None and state.phase is Phase.TUNING:
        pass
    assert journal.state().phase is Phase.WATCHING
    assert (state, dropped) == (None, [])


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_record_that_is_locked_for_a_while_costs_a_turn_and_no_lease(tmp_path):
    """Also while a hook works, and the thread that renews the lease finds it locked."""
    world, stays = Simulated(), sqlite3.connect(tmp_path / "record.db", isolation_level=None)
    with open_record(str(tmp_path / "record.db"), busy_timeout_s=0.01, create=True) as record:
        journal = record.journal("chat")

        def slowly(wanted, token):
            stays.execute("BEGIN IMMEDIATE")
            time.sleep(0.5)
            stays.execute("ROLLBACK")
            world.now += timedelta(seconds=0.5)
            time.sleep(1.0)  # long enough to renew it
            world.now += timedelta(seconds=0.5)
            assert journal.acquire("other", world.now.timestamp(), 0.6) is None
            world.served = wanted

        outside = replace(world.world(), place=slowly)
        kept = Keeper(journal, outside, replace(TERMS, lease_s=0.6), Watch([LEVEL]), "one")
        stays.execute("BEGIN IMMEDIATE")
        with pytest.raises(MachineError, match="is locked"):
            kept.turn()
        stays.execute("ROLLBACK")
        assert kept.turn().reached
    stays.close()


def test_a_canary_that_is_frozen_for_weeks_stays_small(journal, monkeypatch):
    monkeypatch.setattr("autotuner.daemon.keeper._KEPT", 60)
    world = Simulated()
    better(world)
    kept = keeper(journal, world)
    until(kept, Phase.CANARY)
    journal.tell("freeze", {"by": "me"})
    for _ in range(200):
        assert kept.turn().phase is Phase.CANARY
    assert len(list(journal.entries(kinds=("window",)))) <= 100
    journal.tell("unfreeze", {"by": "me"})
    until(kept, Phase.PROBATION)
