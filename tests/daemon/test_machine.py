"""What leads from one state of a service to the next, step by step and in any order."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from autotuner.daemon.machine import (
    Approved,
    Cleared,
    Froze,
    Missed,
    Plan,
    Reached,
    Recalled,
    Refused,
    Ruled,
    Thawed,
    Triggered,
    Tuned,
    advance,
    begin,
    rejected,
)
from autotuner.store import open_record
from autotuner.types import CanaryVerdict, Deployment, Phase, Ruling

AT = datetime(2030, 1, 1, tzinfo=UTC)
PLAN = Plan((10, 50))


def met(bundle):
    return advance(begin(bundle, AT), Reached(), PLAN, AT)


def ruled(ruling):
    return Ruled(CanaryVerdict(ruling, "so it was", settled=True))


def after(*events, plan=PLAN):
    state = met("old")
    for event in events:
        state = advance(state, event, plan, AT)
    return state


CANARY = (Triggered("p95 is high"), Tuned("new", "BETTER"), Reached())
PROMOTED = (*CANARY, ruled(Ruling.PASS), Reached(), ruled(Ruling.PASS), Reached())


def test_the_way_to_a_new_bundle():
    assert after(*CANARY[:1]).phase is Phase.TUNING
    canary = after(*CANARY[:2])
    assert (canary.phase, canary.wanted, canary.reached) == (Phase.CANARY, Deployment("old", "new", 10), False)
    second = after(*CANARY, ruled(Ruling.PASS))
    assert (second.phase, second.wanted, second.reached) == (Phase.CANARY, Deployment("old", "new", 50), False)
    promoting = after(*PROMOTED[:-1])
    assert (promoting.phase, promoting.wanted, promoting.last_good) == (Phase.PROMOTING, Deployment("new"), "old")
    probation = after(*PROMOTED)
    assert (probation.phase, probation.wanted) == (Phase.PROBATION, Deployment("new", "old", 10))
    assert probation.last_good == "old", "until it has stood its time"
    kept = after(*PROMOTED, Reached(), ruled(Ruling.INCONCLUSIVE))
    assert (kept.phase, kept.wanted, kept.last_good, kept.previous) == (Phase.WATCHING, Deployment("new"), "new", "old")


@pytest.mark.parametrize("ruling", [ruling for ruling in Ruling if ruling is not Ruling.PASS])
def test_only_a_pass_promotes(ruling):
    for way in (CANARY, (*CANARY, ruled(Ruling.PASS), Reached())):
        state = after(*way, ruled(ruling))
        assert (state.phase, state.wanted) == (Phase.ROLLING_BACK, Deployment("old"))
        back = advance(state, Reached(), PLAN, AT)
        assert (back.phase, back.last_good, back.candidate) == (Phase.WATCHING, "old", "new")


def test_a_verdict_on_what_is_not_in_place_counts_for_nothing():
    state = after(*CANARY[:2])
    assert advance(state, ruled(Ruling.PASS), PLAN, AT) == state


@pytest.mark.parametrize("ruling", [Ruling.FAIL, Ruling.ERROR])
def test_what_disappoints_after_promotion_is_taken_back(ruling):
    state = after(*PROMOTED, Reached(), ruled(ruling))
    assert (state.phase, state.wanted) == (Phase.ROLLING_BACK, Deployment("old"))


@pytest.mark.parametrize("event", [Missed("the hook failed"), Recalled("p95 is over its bound")])
@pytest.mark.parametrize("length", range(len(CANARY) - 1, len(PROMOTED) + 1))
def test_there_is_a_way_back_from_everywhere(event, length):
    state = advance(after(*PROMOTED[:length]), event, PLAN, AT)
    assert (state.phase, state.wanted, state.last_good) == (Phase.ROLLING_BACK, Deployment("old"), "old")


def test_when_the_way_back_fails_nothing_is_tried_until_a_person_says_so():
    alarm = after(*CANARY, ruled(Ruling.FAIL), Missed("the hook failed"))
    assert (alarm.phase, alarm.wanted) == (Phase.ALARM, Deployment("old"))
    for event in (Triggered("again"), Tuned("x", ""), ruled(Ruling.PASS), Missed("no"), Recalled("back")):
        assert advance(alarm, event, PLAN, AT) == alarm
    again = advance(alarm, Cleared("somebody"), PLAN, AT)
    assert (again.phase, again.wanted) == (Phase.ROLLING_BACK, Deployment("old"))


def test_a_first_bundle_that_cannot_be_put_in_place_ends_in_an_alarm_whatever_was_asked_meanwhile():
    for asked in ([], [Triggered("somebody asks for it")], [Triggered("somebody asks for it"), Tuned("new", "BETTER")]):
        plan = Plan((10,), approval=True)
        state = begin("old", AT)
        for event in (*asked, Missed("no"), Missed("no")):
            state = advance(state, event, plan, AT)
        assert state.phase is Phase.ALARM, asked


def test_a_person_lets_it_begin_or_not():
    plan = Plan((10,), approval=True)
    waits = after(*CANARY[:2], plan=plan)
    assert (waits.phase, waits.wanted, waits.reached) == (Phase.APPROVAL, Deployment("old"), True)
    assert advance(waits, Approved("me"), plan, AT).phase is Phase.CANARY
    assert advance(waits, Refused("me"), plan, AT).phase is Phase.WATCHING


def test_nothing_to_gain_is_an_end_too():
    state = after(Triggered("schedule"), Tuned("", "SAME"))
    assert (state.phase, state.reason, state.wanted) == (Phase.WATCHING, "SAME", Deployment("old"))


def test_what_serves_already_is_not_tried_against_itself():
    state = after(Triggered("schedule"), Tuned("old", "BETTER"))
    assert (state.phase, state.wanted, state.reason) == (
        Phase.WATCHING, Deployment("old"), "BETTER; but old serves already",
    )  # fmt: skip


def test_a_person_may_go_back_to_the_one_before():
    kept = after(*PROMOTED, Reached(), ruled(Ruling.PASS))
    back = advance(kept, Recalled("I do not like it"), PLAN, AT)
    assert (back.phase, back.wanted) == (Phase.ROLLING_BACK, Deployment("old"))
    assert advance(met("old"), Recalled("no"), PLAN, AT) == met("old"), "there is nothing before it"


def test_while_it_is_frozen_nothing_new_is_tried_and_the_way_back_is_open():
    frozen = advance(met("old"), Froze("me"), PLAN, AT)
    assert advance(frozen, Triggered("p95"), PLAN, AT) == frozen
    assert advance(advance(frozen, Thawed("me"), PLAN, AT), Triggered("p95"), PLAN, AT).phase is Phase.TUNING
    canary = advance(after(*CANARY), Froze("me"), PLAN, AT)
    assert advance(canary, ruled(Ruling.PASS), PLAN, AT) == canary
    assert advance(canary, ruled(Ruling.FAIL), PLAN, AT).phase is Phase.ROLLING_BACK
    tuning = advance(after(*CANARY[:1]), Froze("me"), PLAN, AT)
    waits = advance(tuning, Tuned("new", "BETTER"), PLAN, AT)
    assert (waits.phase, waits.wanted) == (Phase.APPROVAL, Deployment("old"))
    assert advance(waits, Approved("me"), PLAN, AT) == waits


class Service(RuleBasedStateMachine):
    """Anything in any order, on a real record that is opened anew at will; its model only counts passes."""

    @initialize(approval=st.booleans(), percents=st.sampled_from([(10,), (10, 50), (1, 10, 50)]))
    def meet(self, approval, percents):
        self.plan, self.at, self.number = Plan(percents, approval), AT, 0
        self.passes, self.good = {}, {"b0"}
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.open()
        self.token = self.journal.acquire("one", 0.0, 1e9)
        self.state = begin("b0", self.at)
        self.journal.enter(self.token, self.state, {})

    def open(self):
        self.opened = ExitStack()
        self.journal = self.opened.enter_context(open_record(f"{self.folder.name}/record.db", create=True)).journal("s")

    def teardown(self):
        if hasattr(self, "opened"):
            self.opened.close()
            self.folder.cleanup()

    def happen(self, event):
        self.at += timedelta(seconds=1)
        before, self.state = self.state, advance(self.state, event, self.plan, self.at)
        self.journal.enter(self.token, self.state, {"event": type(event).__name__})
        return before

    @rule()
    def trigger(self):
        self.happen(Triggered("something"))

    @rule(found=st.booleans())
    def tune(self, found):
        self.number += 1
        self.happen(Tuned(f"b{self.number}" if found else "", "the study has ended"))

    @rule(yes=st.booleans())
    def decide(self, yes):
        self.happen(Approved("me") if yes else Refused("me"))

    @rule(ruling=st.sampled_from(Ruling))
    def judge(self, ruling):
        before = self.happen(ruled(ruling))
        if before.phase is Phase.CANARY and before.reached:
            passed = self.passes.setdefault(before.candidate, set())
            if ruling is Ruling.PASS and not before.frozen:
                passed.add(before.step)
        if before.phase is Phase.PROBATION and before.reached and ruling in (Ruling.PASS, Ruling.INCONCLUSIVE):
            self.good.add(before.candidate)

    @rule(works=st.booleans())
    def apply(self, works):
        self.happen(Reached() if works else Missed("it did not"))

    @rule()
    def recall(self):
        self.happen(Recalled("somebody wants it"))

    @rule()
    def clear(self):
        self.happen(Cleared("me"))

    @rule(frozen=st.booleans())
    def freeze(self, frozen):
        before = self.happen(Froze("me") if frozen else Thawed("me"))
        assert before.wanted == self.state.wanted

    @rule()
    def restart(self):
        self.opened.close()
        self.open()
        assert self.journal.state() == self.state

    @rule()
    def forget(self):
        self.journal.forget(self.token, keep=3)

    @invariant()
    def one_incumbent_that_was_earned(self):
        if not hasattr(self, "state"):
            return
        every = set(range(len(self.plan.percents)))
        assert self.state.last_good in self.good
        served = self.state.wanted.stable
        assert served in self.good or self.passes.get(served) == every, "nothing serves without a PASS at every step"
        assert self.state.wanted.candidate != served
        assert 0 <= self.state.wanted.percent < 100

    @invariant()
    def a_way_back(self):
        if not hasattr(self, "state") or self.state.phase in (Phase.WATCHING, Phase.ALARM):
            return
        state = advance(self.state, Recalled("now"), self.plan, self.at)
        state = advance(state, Reached(), self.plan, self.at)
        assert (state.phase, state.wanted) == (Phase.WATCHING, Deployment(self.state.last_good))


TestService = Service.TestCase
TestService.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)


def test_the_journal_keeps_a_state_as_it_was(tmp_path):
    state = replace(after(*CANARY), since=AT + timedelta(microseconds=5))
    with open_record(str(tmp_path / "r.db"), create=True) as record:
        journal = record.journal("service")
        token = journal.acquire("one", 0.0, 10.0)
        journal.enter(token, state, {"event": "x"})
        assert journal.state() == state
        assert record.services() == ["service"]


@pytest.mark.parametrize(
    ("events", "bundle"),
    [
        ((*CANARY, ruled(Ruling.FAIL)), "new"),
        ((*CANARY, ruled(Ruling.INCONCLUSIVE)), ""),
        ((*CANARY, ruled(Ruling.ERROR)), ""),
        ((*CANARY, ruled(Ruling.PASS)), ""),
        ((*CANARY[:2], Missed("apply ended with 1")), "new"),
        ((*PROMOTED[:-1], Missed("smoke ended with 1")), "new"),
        ((*PROMOTED, Missed("apply ended with 1")), "new"),
        ((*PROMOTED, Reached(), Recalled("me")), "new"),
        ((*PROMOTED, Reached(), ruled(Ruling.PASS), Recalled("me")), "new"),
        ((*CANARY, ruled(Ruling.ERROR), Missed("the way back failed")), ""),
        ((*CANARY, ruled(Ruling.ERROR), Reached(), Triggered("again"), Recalled("me")), ""),
    ],
)
def test_what_is_not_tried_again(events, bundle):
    before = after(*events[:-1])
    assert rejected(before, events[-1], advance(before, events[-1], PLAN, AT)) == bundle


@pytest.mark.parametrize(("event", "bundle"), [(Refused("me"), "new"), (Recalled("me"), "new"), (Approved("me"), "")])
def test_what_a_person_does_not_want_is_not_tried_again(event, bundle):
    plan = Plan((10,), approval=True)
    before = after(*CANARY[:2], plan=plan)
    assert rejected(before, event, advance(before, event, plan, AT)) == bundle
