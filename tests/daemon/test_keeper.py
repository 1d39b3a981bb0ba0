"""A keeper in a simulated world: its service is a value, its hooks fail when told to, and it is cut off anywhere."""

import math
import random
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import LEASE_S, Keeper, Terms, World
from autotuner.daemon.machine import Plan
from autotuner.daemon.sources import Gap, Reading
from autotuner.daemon.watching import Pauses, Watch
from autotuner.spec.expressions import Limit
from autotuner.store import open_record
from autotuner.types import CanaryRules, Deployment, Guard, Phase, Window

P95 = "latency_p95_s"
LEVEL = Limit.parse(f"{P95} <= 200 ms")


class Cut(BaseException):
    """The process is gone."""


class Simulated:
    """A service whose bundles have a true latency, and the world around it.

    Attributes:
        latency_s: `{bundle: its p95}`; in probation another one may show: `later_s`.
        offers: What the next studies find.
        broken: Hooks that fail now.
        cut_at: Calls of the world after which the process dies.
    """

    def __init__(self, seed=0):
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.draw = random.Random(seed)
        self.served = Deployment("b0")
        self.latency_s, self.later_s = {"b0": 0.25}, {}
        self.offers, self.broken, self.alerts, self.tuned = [], set(), [], []
        self.gap, self.failures, self.noise = False, {}, 0.01
        self.calls, self.cut_at = 0, math.inf

    def _called(self, name):
        self.calls += 1
        self.now += timedelta(seconds=1)
        if self.calls >= self.cut_at:
            self.cut_at = math.inf
            raise Cut
        if name in self.broken:
            raise HookError(f"{name} failed")

    def world(self):
        return World(
            clock=lambda: self.now, first=lambda: "b0", observe=self.observe, place=self.place, read=self.read,
            environment=lambda: {"driver": "1"}, tune=self.tune, window=self.window, alert=self.alerts.append,
        )  # fmt: skip

    def observe(self):
        self._called("observe")
        return self.served

    def place(self, wanted, token):
        self._called("place")
        self.served = wanted
        self._called("place, after it was done")

    def read(self):
        self._called("read")
        value = self.true_s(self.served.stable) * self.draw.lognormvariate(0, self.noise)
        return {P95: Gap("down") if self.gap else Reading(value, 0.0)}

    def true_s(self, bundle):
        promoted = self.served.stable == bundle != "b0"
        return self.later_s.get(bundle, self.latency_s[bundle]) if promoted else self.latency_s[bundle]

    def tune(self, state):
        self._called("tune")
        self.tuned.append(state.cycle)
        return (self.offers[0], "BETTER") if self.offers else ("", "SAME: nothing better was found")

    def window(self):
        self._called("window")
        assert self.served.candidate, "nothing stands beside it"

        def arm(bundle):
            value = math.nan if self.gap else self.true_s(bundle) * self.draw.lognormvariate(0, self.noise)
            return {P95: value}

        failed = self.failures.get(self.served.candidate, 0)
        return Window(arm(self.served.stable), arm(self.served.candidate), 50, 0, 50, failed)


TERMS = Terms(
    Guard(P95, maximize=False), plan=Plan((10, 50)), rules=CanaryRules(most_windows=40),
    probation=CanaryRules(most_windows=20), pauses=Pauses(cooldown_s=60, per_day=1000),
)  # fmt: skip


@pytest.fixture
def journal(tmp_path):
    with open_record(str(tmp_path / "record.db"), create=True) as record:
        yield record.journal("chat")


def keeper(journal, world, terms=TERMS, holder="one"):
    return Keeper(journal, world.world(), terms, Watch([LEVEL], breaches=2), holder)


def until(kept, *phases, most=400):
    seen = []
    for _ in range(most):
        state = kept.turn()
        seen.append(state.phase)
        if state.phase in phases and state.reached:
            return state, seen
    raise AssertionError((state, seen[-5:]))


def better(world):
    world.latency_s["b1"], world.offers = 0.15, ["b1"]


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
    assert world.alerts == []
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
    assert any("rolling_back" in text for text in world.alerts)
    if trouble in ("worse", "failing"):
        world.now += timedelta(hours=1)
        until(kept, Phase.TUNING)
        state = kept.turn()
        assert (state.phase, state.reason) == (Phase.WATCHING, "b1 was rejected before")


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
    assert any("alarm" in text for text in world.alerts)
    world.broken = set()
    journal.tell("clear", {"by": "me"})
    state, _ = until(kept, Phase.WATCHING)
    assert world.served == Deployment("b0")


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
    monkeypatch.setattr("autotuner.daemon.keeper._KEPT", 50)
    world = Simulated()
    kept, sizes = keeper(journal, world), []
    for cycle in range(12):
        world.latency_s[f"b{cycle}x"] = 0.275
        world.offers = [f"b{cycle}x"]
        until(kept, Phase.CANARY)
        until(kept, Phase.WATCHING)
        world.now += timedelta(hours=1)
        sizes.append(len(list(journal.entries())))
    assert max(sizes) < 5 * 50
    assert sizes[-1] == pytest.approx(sizes[5], abs=60)
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
