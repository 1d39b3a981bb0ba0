"""What a keeper may spend, keeps as evidence, rejects and forgets; the world is the simulated one of test_keeper."""

import math
import sys
import time
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from autotuner.daemon import spans
from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import Keeper
from autotuner.daemon.spending import spent_device_s
from autotuner.daemon.watching import Pauses, Watch, broken_by_candidate
from autotuner.daemon.world import StudyError
from autotuner.spec.expressions import Limit
from autotuner.types import Phase, Window

sys.path.insert(0, str(Path(__file__).parent))
from simulated import LEVEL, P95, TERMS, Simulated, better, keeper, until


def of(journal, kind):
    return [entry.payload for entry in journal.entries(kinds=(kind,))]


def texts(journal):
    return [alert["text"] for alert in of(journal, "alert")]


def kept_in(journal, world, terms=TERMS, **parts):
    return Keeper(journal, replace(world.world(), **parts), terms, Watch([LEVEL], breaches=2), "one")


def test_before_a_study_it_is_written_down_what_was_seen_and_found_once(journal):
    world, asked = Simulated(), []

    def collect(state, stop):
        asked.append(state.cycle)
        return {"folder": "there", "findings": ["it waits for data"]}

    kept = kept_in(journal, world, collect=collect, tune=lambda *_: None)
    for _ in range(6):
        state = kept.turn()
    assert state.phase is Phase.TUNING, "it was told to stop, and goes on another time"
    assert asked == [1]
    (incident,) = of(journal, "incident")
    assert incident["findings"] == ["it waits for data"]
    assert incident["reason"].startswith(f"{P95} is 2")
    (begun,) = of(journal, "tuning")
    assert 0.2 < begun["readings"][P95] < 0.3


def test_a_study_stops_when_a_person_says_something(journal):
    world, stopped = Simulated(), []

    def tune(state, most_s, stop):
        stopped.append(stop())
        journal.tell("rollback", {"by": "me"})
        stopped.append(stop())

    kept = kept_in(journal, world, tune=tune)
    for _ in range(4):
        state = kept.turn()
        if stopped:
            break
    assert stopped == [False, True]
    assert state.phase is Phase.TUNING
    assert kept.turn().reason == "me wants it back"


def test_a_study_stops_when_another_daemon_leads(journal):
    world, stopped = Simulated(), []

    def tune(state, most_s, stop):
        world.now += timedelta(hours=1)  # it was suspended for longer than its lease
        journal.acquire("other", world.now.timestamp(), 100)
        for _ in range(100):
            if stop():
                stopped.append(True)
                return
            time.sleep(0.02)

    kept = kept_in(journal, world, replace(TERMS, lease_s=0.3), tune=tune)
    states = [kept.turn() for _ in range(4)]
    assert stopped == [True]
    assert states[-1] is None


def test_no_more_than_a_days_minutes_are_spent(journal):
    world, allowed = Simulated(), []

    def tune(state, most_s, stop):
        allowed.append(most_s)
        world.now += timedelta(minutes=8)
        return "", "nothing better was found"

    terms = replace(TERMS, pauses=Pauses(cooldown_s=1, per_day=1000, device_s_per_day=40 * 60))
    kept = kept_in(journal, world, terms, tune=tune, devices=lambda: 2)
    for _ in range(60):
        kept.turn()
        world.now += timedelta(seconds=10)
    assert [round(seconds / 60) for seconds in allowed] == [20, 12, 4], "of two devices at once"
    world.now += timedelta(days=1)
    while len(allowed) == 3:
        kept.turn()
    assert allowed[3] == 20 * 60
    assert spent_device_s(journal.entries(kinds=("stretch",)), world.now) == pytest.approx(16 * 60, abs=60)


def test_a_study_that_is_taken_up_has_what_is_left_and_the_profile_counts(journal):
    world, allowed = Simulated(), []

    def collect(state, stop):
        world.now += timedelta(minutes=5)
        return {}

    def tune(state, most_s, stop):
        allowed.append(most_s)
        world.now += timedelta(minutes=8)

    terms = replace(TERMS, pauses=Pauses(cooldown_s=1, per_day=1000, device_s_per_day=40 * 60))
    kept = kept_in(journal, world, terms, tune=tune, collect=collect, devices=lambda: 2)
    until(kept, Phase.TUNING)
    for _ in range(4):
        kept.turn()
    assert [round(seconds / 60) for seconds in allowed] == [15, 7, 1, 1], "and a minute to come to its end"


def test_what_a_person_wants_beyond_the_days_stays_without_bound(journal):
    world, allowed = Simulated(), []
    world.latency_s["b0"] = 0.1
    terms = replace(TERMS, pauses=Pauses(device_s_per_day=30))
    kept = kept_in(journal, world, terms, tune=lambda state, most_s, stop: allowed.append(most_s))
    kept.turn()
    journal.tell("tune", {"by": "me"})
    kept.turn()
    kept.turn()
    assert allowed == [math.inf] * 2


@pytest.mark.parametrize("asked", [False, True])
def test_only_a_person_lifts_the_bound(journal, asked):
    """The daemon died between its decision and the study, and all is spent when the next one begins it."""
    world, allowed = Simulated(), []
    world.latency_s["b0"] = 0.1 if asked else 0.25
    kept = kept_in(
        journal, world, replace(TERMS, pauses=Pauses(device_s_per_day=300)),
        tune=lambda state, most_s, stop: allowed.append(most_s),
    )  # fmt: skip
    kept.turn()
    if not asked:
        until(kept, Phase.TUNING)
    for payload in ({"cycle": 0, "devices": 1, "most_s": 290.0}, {"cycle": 0}):
        journal.append(1, "stretch", payload, world.now)
        world.now += timedelta(seconds=290)
    if asked:
        journal.tell("tune", {"by": "me"})
    kept.turn()
    kept.turn()
    assert allowed == [math.inf if asked else 60.0] * 2
    assert of(journal, "tuning")[0]["asked"] is asked


def test_a_minute_of_every_device_must_be_left():
    now = Simulated().now
    pauses = Pauses(device_s_per_day=400.0)
    assert pauses.reason(now, [], 100.0, 4) == ""
    assert pauses.reason(now, [], 200.0, 4) == "of the day's 6.66667 minutes of devices 3.3 are spent"
    assert pauses.reason(now, [], 200.0, 1) == ""


def test_a_study_that_cannot_be_run_is_told_once_a_cycle(journal):
    world = Simulated()

    def tune(state, most_s, stop):
        raise StudyError("the study chat-1 could not be run: no GPU")

    kept = kept_in(journal, world, tune=tune)
    until(kept, Phase.TUNING)
    assert kept.turn().reason == "the study chat-1 could not be run: no GPU"
    for _ in range(5):
        kept.turn()
    assert texts(journal) == ["chat: the study chat-1 could not be run: no GPU"]
    assert "devices" not in of(journal, "stretch")[-1], "it uses no device any more"
    world.now += timedelta(hours=1)
    until(kept, Phase.TUNING)
    kept.turn()
    assert len(texts(journal)) == 2


@pytest.mark.parametrize("lost", [False, True])
def test_a_study_that_breaks_off_spends_no_more_than_it_took_and_fills_no_journal(journal, monkeypatch, lost):
    monkeypatch.setattr("autotuner.daemon.keeper._KEPT", 40)
    world, allowed = Simulated(), []

    def tune(state, most_s, stop):
        allowed.append(most_s)
        world.now += timedelta(seconds=1)
        if lost:
            world.now += timedelta(hours=1)
            journal.acquire("other", world.now.timestamp(), 30)
        raise OSError("no room")

    kept = kept_in(journal, world, replace(TERMS, pauses=Pauses(device_s_per_day=3600.0)), tune=tune)
    until(kept, Phase.TUNING)
    for _ in range(1 if lost else 50):
        with pytest.raises(OSError, match="no room"):
            kept.turn()
        world.now += timedelta(seconds=60)
    assert lost or "devices" not in of(journal, "stretch")[-1]
    assert lost or 3500 < allowed[-1] < 3600, "the time between counts for nothing"
    assert len(of(journal, "stretch")) <= 42


def test_what_is_found_out_before_a_study_spends_no_more_than_it_took_either(journal):
    world = Simulated()

    def collect(state, stop):
        raise OSError("no room")

    kept = kept_in(journal, world, collect=collect)
    until(kept, Phase.TUNING)
    with pytest.raises(OSError, match="no room"):
        kept.turn()
    assert ["devices" in one for one in of(journal, "stretch")] == [True, False]


def test_a_schedule_begins_when_the_service_is_met(journal):
    world = Simulated()
    world.latency_s["b0"] = 0.1
    kept = Keeper(journal, world.world(), TERMS, Watch([], every_s=7 * 86400.0), "one")
    days = []
    for day in range(16):
        for _ in range(3):
            if kept.turn().phase is Phase.TUNING:
                days.append(day)
        world.now += timedelta(days=1)
    assert days == [7, 14], "not at once, and not never"


def test_a_stretch_that_was_cut_off_counts_for_as_long_as_it_may_have_taken(journal):
    token = journal.acquire("one", 0, 100)
    journal.append(token, "stretch", {"devices": 1, "most_s": 50.0})
    (entry,) = journal.entries()
    assert spent_device_s([entry], entry.at + timedelta(seconds=20)) == pytest.approx(20)
    assert spent_device_s([entry], entry.at + timedelta(hours=9)) == 50
    assert spent_device_s([entry], entry.at + timedelta(days=2)) == 0


def test_of_a_stretch_that_began_before_the_day_what_lies_within_it_counts(journal):
    """A study of two days is a day's, and not nothing; cut off, it counts no longer than it may have taken."""
    token, begun, hour = journal.acquire("one", 0, 100), Simulated().now, timedelta(hours=1)
    journal.append(token, "stretch", {"devices": 2, "most_s": 30 * 3600.0}, begun)
    (entry,) = journal.entries()
    assert spent_device_s([entry], begun + 48 * hour) == 2 * 3600 * 6
    journal.append(token, "stretch", {}, begun + 40 * hour)
    assert spent_device_s(journal.entries(), begun + 48 * hour) == 2 * 3600 * 16


def test_what_was_rejected_may_be_tried_again_elsewhere(journal):
    world, around = Simulated(), {"driver": "1"}
    better(world)
    world.latency_s["b1"] = 0.275
    kept = kept_in(journal, world, environment=lambda: around)
    until(kept, Phase.CANARY)
    until(kept, Phase.WATCHING)
    for driver, phase in (("1", Phase.WATCHING), ("2", Phase.CANARY)):
        around["driver"] = driver
        world.now += timedelta(hours=1)
        until(kept, Phase.TUNING)
        assert kept.turn().phase is phase


@pytest.mark.parametrize("why", ["it cannot be put in place", "a person takes it back"])
def test_what_did_not_come_to_a_verdict_is_not_tried_again_either(journal, why):
    world = Simulated()
    better(world)

    def place(wanted, token):
        if wanted.candidate and why.startswith("it"):
            raise HookError("smoke ended with 1")
        world.place(wanted, token)

    kept = kept_in(journal, world, place=place)
    until(kept, Phase.TUNING)
    if kept.turn().phase is Phase.CANARY and why.startswith("a"):
        journal.tell("rollback", {"by": "me"})
    until(kept, Phase.WATCHING)
    assert [one["bundle"] for one in of(journal, "quarantine")] == ["b1"]
    world.now += timedelta(hours=1)
    until(kept, Phase.TUNING)
    assert kept.turn().reason.startswith("b1 was rejected before")


def test_an_environment_that_cannot_be_told_is_neither_a_change_nor_another_one(journal):
    world, around = Simulated(), {"driver": "1"}
    better(world)
    world.latency_s["b1"] = 0.275
    fails = []

    def environment():
        if fails:
            raise HookError("environment ended with 1")
        return around

    kept = kept_in(journal, world, environment=environment)
    until(kept, Phase.CANARY)
    fails.append(True)
    until(kept, Phase.WATCHING)
    world.latency_s["b0"] = 0.1
    world.now += timedelta(hours=1)
    for _ in range(5):
        assert kept.turn().phase is Phase.WATCHING, "it is no change"
    assert [text for text in texts(journal) if "environment" in text] == ["chat: environment ended with 1"]
    journal.tell("tune", {"by": "me"})
    assert kept.turn().reason.startswith("b1 was rejected before"), "it is no other machine"
    assert of(journal, "environment") == [around] * 2
    fails.clear()
    for _ in range(5):
        assert kept.turn().phase is Phase.WATCHING
    fails.append(True)
    kept.turn()
    assert len([text for text in texts(journal) if "environment" in text]) == 2


def test_a_slow_program_for_the_environment_does_not_lose_the_lease(journal):
    world, rivals = Simulated(), []
    world.latency_s["b0"] = 0.1

    def slowly():
        for _ in range(4):  # twice as long as the lease
            time.sleep(0.3)
            world.now += timedelta(seconds=0.2)
            rivals.append(journal.acquire("other", world.now.timestamp(), 0.4))
        return {}

    kept = kept_in(journal, world, replace(TERMS, lease_s=0.6), environment=slowly)
    kept.turn()
    assert kept.turn() is not None
    journal.tell("tune", {"by": "me"})
    assert kept.turn() is not None
    assert set(rivals) == {None}


@pytest.mark.parametrize(("warm_up", "served"), [(0, "b0"), (12, "b1")])
def test_the_first_windows_after_a_change_count_for_nothing(journal, warm_up, served):
    """The candidate is slow until it is warm: that is no reason to take it back."""
    world = Simulated()
    better(world)
    cold = iter([True] * 12)

    def window():
        seen = world.window()
        return (
            replace(seen, candidate={name: 9 * value for name, value in seen.candidate.items()})
            if next(cold, False)
            else seen
        )

    kept = kept_in(journal, world, replace(TERMS, warm_up_windows=warm_up), window=window)
    until(kept, Phase.CANARY)
    until(kept, Phase.WATCHING)
    assert world.served.stable == served


def test_a_candidate_that_breaks_a_level_which_the_other_keeps_is_taken_back_at_once(journal):
    world = Simulated()
    world.latency_s["b0"] = 0.19
    better(world)
    world.latency_s["b1"] = 0.21
    kept = kept_in(journal, world, replace(TERMS, levels=[LEVEL], breaches=3))
    kept.turn()
    journal.tell("tune", {"by": "me"})
    until(kept, Phase.CANARY)
    state, _ = until(kept, Phase.WATCHING)
    assert "3 windows in a row over" in state.reason
    assert len(of(journal, "window")) == 3
    assert of(journal, "quarantine")[0]["bundle"] == "b1"


def test_a_level_that_both_break_is_no_reason():
    limit = Limit.parse(f"{P95} <= 200 ms")
    both = [Window({P95: 0.25}, {P95: 0.24})] * 5
    own = [Window({P95: 0.19}, {P95: 0.24})] * 5
    gap = [*own[:4], Window({}, {P95: 0.24})]
    assert broken_by_candidate(both, [limit], 3) == ""
    assert broken_by_candidate(own[:2], [limit], 3) == ""
    assert broken_by_candidate(own, [limit], 3).startswith(f"its {P95} is 240 ms, 3 windows in a row")
    assert broken_by_candidate(gap, [limit], 3) == ""
    assert broken_by_candidate([*own[:4], Window({P95: 0.19}, {})], [limit], 3) == ""


def test_a_candidate_without_numbers_breaks_no_level_but_ends_at_once_when_it_fails(journal):
    """Nobody saw it slow: its scraper is down, or nothing of what it is asked is answered."""
    unseen = [Window({P95: 0.19}, {})] * 5
    assert (
        broken_by_candidate(unseen, [Limit.parse(f"{P95} <= 200 ms"), Limit.parse("throughput_requests_per_s >= 5")], 3)
        == ""
    )
    for failures, windows, words in (
        (0, 4, "ERROR: 4 of 4 windows have no usable numbers"),
        (50, 1, "FAIL: it failed"),
    ):
        world = Simulated()
        better(world)

        def window(failed=failures):
            return replace(unseen[0], candidate_requests=50, candidate_failures=failed, baseline_requests=50)

        kept = kept_in(journal, world, replace(TERMS, levels=[LEVEL], breaches=3), window=window)
        begun = len(of(journal, "window"))
        kept.turn()
        journal.tell("tune", {"by": "me"})
        until(kept, Phase.CANARY)
        state, _ = until(kept, Phase.WATCHING)
        assert words in state.reason
        assert len(of(journal, "window")) - begun == windows


def test_only_the_bundles_of_the_way_back_are_kept(journal):
    world, needed = Simulated(), []
    better(world)
    kept = kept_in(journal, world, tidy=needed.append)
    until(kept, Phase.CANARY)
    until(kept, Phase.WATCHING)
    assert needed == [{"b1", "b0"}]


def test_a_word_outlives_a_thousand_states(journal, monkeypatch):
    """A rollback of a year ago must not be heard again by a daemon that starts today."""
    monkeypatch.setattr("autotuner.daemon.keeper._KEPT", 20)
    world = Simulated()
    world.latency_s["b0"] = 0.1
    kept = keeper(journal, world)
    kept.turn()
    journal.tell("tune", {"by": "me"})
    for _ in range(4):
        kept.turn()
    for _ in range(40):
        journal.tell("freeze", {"by": "me"})
        journal.tell("unfreeze", {"by": "me"})
        kept.turn()
    token = journal.acquire("one", world.now.timestamp(), 30)
    journal.forget(token, 20)
    other = keeper(journal, world)
    other.turn()
    assert world.tuned == [1]


def test_a_cycle_is_told_as_a_trace_of_its_phases(journal, monkeypatch):
    told = []

    def record_span(name, start_s, end_s, attributes, under=""):
        told.append((name, start_s, end_s, attributes, under))
        return "above"

    monkeypatch.setattr(spans.telemetry, "enabled", lambda: True)
    monkeypatch.setattr(spans.telemetry, "record_span", record_span)
    world = Simulated()
    better(world)
    kept = keeper(journal, world)
    until(kept, Phase.CANARY)
    until(kept, Phase.WATCHING)
    names = [name for name, *_ in told]
    assert names == ["daemon cycle", "daemon tuning", "daemon canary", "daemon canary", "daemon promoting",
                     "daemon probation"]  # fmt: skip
    _, start_s, end_s, attributes, under = told[0]
    assert (attributes["autotune.end"], attributes["autotune.bundle"], under) == ("watching", "b1", "")
    assert [below for *_, below in told[1:]] == ["above"] * 5
    assert (told[1][1], told[-1][2]) == (start_s, end_s)
    assert all(one[2] == following[1] for one, following in pairwise(told[1:]))
    assert [one[3]["autotune.percent"] for one in told[2:4]] == [10, 50]


def test_a_driver_that_came_with_a_reboot_asks_for_tuning_after_the_pause(journal):
    """The daemon was not there when it changed, and must not begin at once."""
    world, around = Simulated(), {"driver": "1"}
    world.latency_s["b0"] = 0.1
    kept = kept_in(journal, world, environment=lambda: around)
    for _ in range(4):
        kept.turn()
    assert world.tuned == []
    around["driver"] = "2"
    paused = replace(TERMS, pauses=Pauses(per_day=0))
    for terms, tuned in ((paused, []), (TERMS, [1])):
        kept = kept_in(journal, world, terms, environment=lambda: around)
        for _ in range(4):
            kept.turn()
        assert world.tuned == tuned
    assert of(journal, "tuning")[0]["reason"] == "the environment is another: driver"
    world.now += timedelta(days=2)
    for _ in range(4):
        kept.turn()
    assert world.tuned == [1], "it is known now"
