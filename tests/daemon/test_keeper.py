"""A keeper in a simulated world."""

import random
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import LEASE_S, Keeper, Terms
from autotuner.daemon.watching import Watch
from autotuner.types import Deployment, Phase

sys.path.insert(0, str(Path(__file__).parent))
from simulated import LEVEL, TERMS, Cut, Simulated, better, keeper, until


def told(journal):
    return [entry.payload["text"] for entry in journal.entries(kinds=("alert",))]


def test_a_breach_leads_to_a_better_bundle_and_the_service_is_quiet_again(journal):
    world = Simulated()
    better(world)
    kept = keeper(journal, world)
    until(kept, Phase.CANARY)
    assert world.served == Deployment("b0", "b1", 10)
    state, seen = until(kept, Phase.WATCHING)
    assert [phase for n, phase in enumerate(seen) if n == 0 or phase is not seen[n - 1]] == [
        Phase.CANARY, Phase.PROMOTING, Phase.PROBATION, Phase.WATCHING,
    ] or Phase.PROBATION in seen  # fmt: skip
    assert (world.served, state.last_good, state.previous) == (Deployment("b1"), "b1", "b0")
    assert told(journal) == []
    for _ in range(50):
        assert kept.turn().phase is Phase.WATCHING
    assert world.tuned == [1]


@pytest.mark.parametrize("trouble", ["worse", "failing", "no numbers", "no better"])
def test_what_must_not_be_promoted_is_taken_back(journal, trouble):
    world = Simulated()
    better(world)
    kept = keeper(journal, world)
    if trouble == "worse":
        world.latency_s["b1"] = 0.275
    if trouble == "no better":
        world.latency_s["b1"] = 0.25
    if trouble == "failing":
        world.failures["b1"] = 3
    until(kept, Phase.CANARY)
    world.gap = trouble == "no numbers"
    state, seen = until(kept, Phase.WATCHING)
    assert Phase.PROMOTING not in seen
    assert (world.served, state.last_good) == (Deployment("b0"), "b0")
    assert any("rolling_back" in text for text in told(journal))
    if trouble in ("worse", "failing"):
        world.now += timedelta(hours=1)
        until(kept, Phase.TUNING)
        state = kept.turn()
        assert (state.phase, state.reason) == (
            Phase.WATCHING,
            "b1 was rejected before, on this machine with these versions",
        )


def test_what_is_fine_in_the_canary_and_bad_when_promoted_is_taken_back(journal):
    world = Simulated()
    better(world)
    world.later_s["b1"] = 0.30
    kept = keeper(journal, world)
    until(kept, Phase.PROBATION)
    state, _ = until(kept, Phase.WATCHING)
    assert (world.served, state.last_good) == (Deployment("b0"), "b0")


def test_a_way_back_that_fails_raises_the_alarm_and_stops(journal):
    world = Simulated()
    better(world)
    kept = keeper(journal, world)
    until(kept, Phase.CANARY)
    world.broken = {"place"}
    world.failures["b1"] = 10
    for _ in range(60):
        state = kept.turn()
    assert state.phase is Phase.ALARM
    calls = world.calls
    for _ in range(20):
        kept.turn()
    assert world.calls == calls, "nothing is tried any more"
    assert any("alarm" in text for text in told(journal))
    world.broken = set()
    journal.tell("clear", {"by": "me"})
    state, _ = until(kept, Phase.WATCHING)
    assert world.served == Deployment("b0")


@pytest.mark.parametrize(("fails_s", "phase"), [(0, Phase.WATCHING), (50, Phase.WATCHING), (70, Phase.ALARM)])
def test_the_way_back_is_tried_until_it_is_late(journal, fails_s, phase):
    """A failure of a moment leaves nothing bad serving."""
    world, begun, tries = Simulated(), [], []
    better(world)
    world.failures["b1"] = 10

    def place(wanted, token):
        if journal.state().phase is Phase.ROLLING_BACK:
            begun.append(world.now)
            tries.append(wanted)
            if fails_s and world.now < begun[0] + timedelta(seconds=fails_s):
                raise HookError("smoke ended with 1")
        world.place(wanted, token)

    outside = replace(world.world(), place=place)
    kept = Keeper(journal, outside, replace(TERMS, back_s=60.0), Watch([LEVEL], breaches=2), "one")
    until(kept, Phase.CANARY)
    for _ in range(30):
        if (state := kept.turn()).phase in (Phase.WATCHING, Phase.ALARM):
            break
    assert state.phase is phase
    assert set(tries) == {Deployment("b0")}
    assert len(tries) == (1 if not fails_s else len(tries)) <= 31
    assert (begun[-1] - begun[0]).total_seconds() == pytest.approx(min(fails_s, 60), abs=4)
    assert world.served == (Deployment("b0") if phase is Phase.WATCHING else Deployment("b0", "b1", 10))


@pytest.mark.parametrize("why", ["a clock that stands still", "a damaged bundle", "a word", "another daemon"])
def test_the_way_back_is_not_tried_without_end_nor_without_use(journal, why):
    world, tries, fails = Simulated(), [], []
    better(world)

    def place(wanted, token):
        if not fails:
            return world.place(wanted, token)
        tries.append(wanted)
        raise HookError("smoke ended with 1")

    def pause(seconds):
        if why == "a word":
            journal.tell("freeze", {"by": "me"})
        if why == "another daemon":
            world.now += timedelta(seconds=LEASE_S + 1)
            journal.acquire("other", world.now.timestamp(), LEASE_S)

    damage = (lambda bundle: "it was changed") if why == "a damaged bundle" else lambda bundle: ""
    outside = replace(world.world(), place=place, pause=pause, damage=damage)
    kept = Keeper(journal, outside, replace(TERMS, back_s=60.0), Watch([LEVEL], breaches=2), "one")
    until(kept, Phase.CANARY)
    fails.append(True)
    journal.tell("rollback", {"by": "me"})
    state = kept.turn()
    expected = {"a clock that stands still": 31, "a damaged bundle": 1, "a word": 1, "another daemon": 1}
    assert len(tries) == expected[why]
    phases = {"a word": Phase.ROLLING_BACK, "another daemon": None}
    assert (state and state.phase) == phases.get(why, Phase.ALARM)


def test_what_people_say_is_heard_once(journal):
    world = Simulated()
    world.latency_s["b0"] = 0.1
    kept = keeper(journal, world)
    kept.turn()
    journal.tell("tune", {"by": "me"})
    assert kept.turn().phase in (Phase.TUNING, Phase.WATCHING)
    for _ in range(5):
        kept.turn()
    other = keeper(journal, world)
    for _ in range(5):
        other.turn()
    assert world.tuned == [1]
    journal.tell("freeze", {"by": "me"})
    journal.tell("tune", {"by": "me"})
    for _ in range(3):
        state = kept.turn()
    assert (state.frozen, world.tuned) == (True, [1])


def test_who_watches_a_service_that_nobody_sees_any_more_says_so_once(journal):
    world = Simulated()
    world.latency_s["b0"] = 0.1
    kept, counts = keeper(journal, world), []
    for gone in (True, False, True):
        world.gap = gone
        for _ in range(50):
            kept.turn()
        counts.append(len(told(journal)))
    assert counts == [1, 1, 2]
    assert set(told(journal)) == {f"{journal.service}: no number for 20 looks in a row: latency_p95_s: down"}


def test_a_dry_run_decides_and_changes_nothing(journal):
    world = Simulated()
    better(world)
    kept = keeper(journal, world, Terms(TERMS.aim, pauses=TERMS.pauses, dry_run=True))
    for _ in range(30):
        kept.turn()
    assert world.served == Deployment("b0")
    assert world.tuned


def test_two_daemons_and_one_leader(journal):
    world = Simulated()
    better(world)
    one, other = keeper(journal, world), keeper(journal, world, holder="other")
    assert one.turn() is not None
    assert other.turn() is None
    world.now += timedelta(seconds=LEASE_S + 1)
    assert other.turn() is not None
    assert one.turn() is None
    other.leave()
    assert one.turn() is not None, "it leads again"
    assert other.turn() is None
    until(one, Phase.CANARY)
    assert {entry.token for entry in journal.entries(kinds=("tuning",))} == {3}, "as the third leader"


def test_a_hook_that_takes_longer_than_the_lease_does_not_lose_it(journal):
    world, rivals = Simulated(), []

    def slowly(wanted, token):
        for _ in range(6):  # twice as long as the lease
            time.sleep(0.3)
            world.now += timedelta(seconds=0.2)
            rivals.append(journal.acquire("other", world.now.timestamp(), 0.6))
        world.served = wanted

    outside = replace(world.world(), place=slowly)
    state = Keeper(journal, outside, replace(TERMS, lease_s=0.6), Watch([LEVEL]), "one").turn()
    assert (rivals, state.reached) == ([None] * 6, True)


def test_a_journal_of_many_cycles_stays_small(journal, monkeypatch):
    monkeypatch.setattr("autotuner.daemon.keeper._KEPT", 5)
    world = Simulated()
    kept, sizes = keeper(journal, world), []
    for cycle in range(12):
        world.latency_s[f"b{cycle}x"] = 0.275
        world.offers = [f"b{cycle}x"]
        until(kept, Phase.CANARY)
        until(kept, Phase.WATCHING)
        world.now += timedelta(hours=1)
        sizes.append(len(list(journal.entries())))
    kinds = {entry.kind for entry in journal.entries()}
    assert max(sizes) <= 5 * len(kinds)
    assert sizes[-1] == sizes[6]
    assert len(world.tuned) == 12


@pytest.mark.parametrize("seed", range(25))
def test_cut_off_at_any_call_the_next_one_takes_it_up(journal, seed):
    """Dead at a random call, again and again: in the end everything is as if it had never been."""
    world = Simulated(seed)
    better(world)
    if seed % 3 == 0:
        world.latency_s["b1"] = 0.28
    draw = random.Random(seed)
    world.cut_at = draw.randrange(1, 30)
    for life in range(60):
        kept = keeper(journal, world, holder=f"life {life}")
        world.now += timedelta(seconds=LEASE_S + 1)
        try:
            for _ in range(draw.randrange(5, 60)):
                state = kept.turn()
                if state.reached:
                    assert state.wanted == world.served
                if state.phase is Phase.WATCHING and state.reached and world.tuned and state.cycle:
                    break
        except Cut:
            pass
        world.cut_at = world.calls + draw.randrange(1, 40)
        if (found := journal.state()) and found.phase is Phase.WATCHING and found.reached and found.cycle:
            break
    state = journal.state()
    assert state.phase is Phase.WATCHING, state
    assert world.served == Deployment("b0" if seed % 3 == 0 else "b1") == state.wanted
