"""Anything in any order, on a real keeper and a real record: what is proposed, killed, locked, set back, said.

Where `test_machine.py` plays with the pure machine, here two daemons share a record, hooks fail, and the model only
counts what was seen from outside.
"""

import sqlite3
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import LEASE_S, Keeper, Terms, World
from autotuner.daemon.machine import Plan
from autotuner.daemon.sources import Reading
from autotuner.daemon.watching import Pauses, Watch
from autotuner.errors import MachineError
from autotuner.spec.expressions import Limit
from autotuner.store import open_record
from autotuner.types import CanaryRules, Deployment, Guard, Phase, Window

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from daemon_months import fast_folder

P95, LEAST = "latency_p95_s", 3
FACTORS = (0.5, 0.5, 1.0, 2.0)
RULES = CanaryRules(least_windows=LEAST, most_windows=6)
ENDS = 250  # turns in which every cycle ends, once people and hooks help
DAEMONS = st.integers(0, 1)


class Cut(BaseException):
    """The process is gone."""


class Daemons(RuleBasedStateMachine):
    @initialize(approval=st.booleans(), percents=st.sampled_from([(10,), (10, 50)]))
    def meet(self, approval, percents):
        self.terms = Terms(Guard(P95, maximize=False), (), Plan(percents, approval), RULES, RULES, Pauses(60.0, 10**6))
        self.now, self.served, self.latency_s = datetime(2030, 1, 1, tzinfo=UTC), Deployment("b0"), {"b0": 0.25}
        self.offer, self.broken, self.cut_in, self.lives, self.busy, self.tuned = "", set(), None, 0, False, 0
        self.promoted, self.newest, self.tokens = {"b0"}, None, 0
        self.opened = ExitStack()
        self.path = Path(self.opened.enter_context(tempfile.TemporaryDirectory(dir=fast_folder()))) / "record.db"
        record = self.opened.enter_context(open_record(str(self.path), busy_timeout_s=0.0, create=True))
        self.journal = record.journal("s")
        self.other = sqlite3.connect(self.path, isolation_level=None)
        self.keepers = [self.born(), self.born()]

    def teardown(self):
        if hasattr(self, "opened"):
            self.other.close()
            self.opened.close()

    def born(self):
        self.lives += 1
        world = World(
            clock=lambda: self.now, first=lambda: "b0", observe=lambda: self.served, place=self.place,
            read=lambda: {P95: Reading(0.25, 0.0)}, environment=dict, tune=self.tune, window=self.window,
            alert=lambda: self.called("alert"), pause=lambda seconds: self.called("pause"),
        )  # fmt: skip
        watch = Watch([Limit.parse(f"{P95} <= 1 ms")], breaches=2)
        return Keeper(self.journal, world, self.terms, watch, f"life {self.lives}")

    def called(self, name):
        self.now += timedelta(seconds=1)
        if self.cut_in == name:
            self.cut_in = None
            raise Cut

    def place(self, wanted, token):
        assert token >= self.tokens, "an older leader changes nothing any more"
        self.tokens = token
        self.called("before place")
        if "place" in self.broken:
            raise HookError("it failed")
        self.served = wanted
        self.called("after place")
        if "late" in self.broken:
            raise HookError("it failed when all was done")

    def tune(self, state, most_s, stop):
        self.called("tune")
        return self.offer, "BETTER" if self.offer else "SAME"

    def window(self):
        self.called("window")
        arms = (self.served.stable, self.served.candidate)
        stable, beside = ({} if "numbers" in self.broken else {P95: self.latency_s[arm]} for arm in arms)
        return Window(stable, beside)

    def turn(self, one=0):
        """The state afterwards; None for a daemon that does not lead, finds the record locked, or dies."""
        state = None
        try:
            state = self.keepers[one].turn()
        except MachineError:
            if not self.busy:
                raise
        except Cut:
            self.keepers[one] = self.born()
        self.one_incumbent_and_a_way_back()
        return state

    @rule(factor=st.sampled_from(FACTORS), nothing=st.booleans())
    def propose(self, factor, nothing):
        self.offer = "" if nothing else f"b{len(self.latency_s)}"
        state = self.journal.state()
        self.latency_s[self.offer] = factor * self.latency_s[state.last_good if state else "b0"]

    @rule(one=DAEMONS, turns=st.integers(1, 12))
    def start(self, one, turns):
        for _ in range(turns):
            self.turn(one)

    @rule(one=DAEMONS, at=st.sampled_from(["before place", "after place", "tune", "window", "alert"]))
    def kill(self, one, at):
        self.cut_in = at
        self.start(one, 6)
        self.cut_in = None

    @rule(one=DAEMONS)
    def restart(self, one):
        self.keepers[one].leave() if not self.busy else None
        self.keepers[one] = self.born()

    @rule()
    def expire(self):
        self.now += timedelta(seconds=LEASE_S + 1)

    @rule(hours=st.integers(-48, 48))
    def clock_jump(self, hours):
        self.now += timedelta(hours=hours)

    @rule(one=DAEMONS)
    def database_busy(self, one):
        self.other.execute("BEGIN IMMEDIATE")
        self.busy = True
        before = self.served
        assert self.turn(one) is None
        self.other.execute("ROLLBACK")
        self.busy = False
        assert self.served == before, "what cannot be written down first is not done"

    @rule(word=st.sampled_from(["tune", "approve", "refuse", "freeze", "unfreeze", "clear", "rollback"]))
    def say(self, word):
        self.journal.tell(word, {"by": "me"})

    @rule(what=st.sampled_from(["place", "late", "numbers"]))
    def break_something(self, what):
        self.broken.add(what)

    @rule()
    def mend(self):
        self.broken.clear()

    @rule()
    def promote(self):
        """A better one, from the beginning to its end, when nothing is in its way."""
        self.finish()
        self.propose(0.4, nothing=False)
        offered, cycle = self.offer, self.journal.state().cycle
        self.journal.tell("tune", {"by": "me"})
        self.finish(cycle + 1)
        assert self.journal.state().last_good == offered
        assert self.served == Deployment(offered)

    @precondition(lambda self: self.journal.state() is not None)
    @rule()
    def rollback(self):
        self.finish()
        state, self.offer = self.journal.state(), ""  # a pause may be over: another cycle begins, and finds nothing
        self.journal.tell("rollback", {"by": "me"})
        self.finish()
        assert self.served == Deployment(state.previous or state.last_good)

    @rule()
    def finish(self, cycle=0):
        """Every cycle ends, when hooks work and people answer."""
        self.broken.clear()
        self.now += timedelta(seconds=LEASE_S + 1)
        self.turn()  # whatever was said before is heard
        for _ in range(ENDS):
            state = self.turn()
            if state is None:
                self.now += timedelta(seconds=LEASE_S)
                continue
            if state.phase is Phase.WATCHING and state.reached and not state.frozen and state.cycle >= cycle:
                return
            answers = {Phase.ALARM: "clear", Phase.APPROVAL: "approve"}
            if word := "unfreeze" if state.frozen else answers.get(state.phase):
                self.journal.tell(word, {"by": "me"})
        raise AssertionError(f"it has no end: {state}")

    @invariant()
    def one_incumbent_and_a_way_back(self):
        if not hasattr(self, "journal") or (state := self.journal.state()) is None:
            return
        assert state.last_good in self.latency_s
        assert state.wanted.stable in (state.last_good, state.candidate)
        assert state.wanted.candidate != state.wanted.stable
        if state.reached:
            assert self.served == state.wanted
        if state.phase in (Phase.PROMOTING, Phase.PROBATION) and state.candidate not in self.promoted:
            self.promoted.add(state.candidate)
            assert [one["verdict"]["ruling"] for one in self.ruled(state)] == ["PASS"] * len(self.terms.plan.percents)
        assert state.wanted.stable in self.promoted, "nothing serves without a PASS at every step"

    def ruled(self, state):
        """What the judge said in this cycle before the promotion."""
        for entry in self.journal.entries(kinds=("state",)):
            because, phase = entry.payload["because"], entry.payload["state"]["phase"]
            if entry.payload["state"]["cycle"] == state.cycle and because["event"] == "ruled" and phase in (
                Phase.CANARY, Phase.PROMOTING,
            ):  # fmt: skip
                yield because

    @invariant()
    def what_was_spent_stays_spent(self):
        if hasattr(self, "journal"):
            tuned = sum(1 for _ in self.journal.entries(kinds=("tuning",)))
            state = self.journal.state()
            assert self.tuned <= tuned <= (state.cycle if state else 0)
            self.tuned = tuned


TestDaemons = pytest.mark.slow(Daemons.TestCase)
# A failure is told as it was found: to make it shorter takes longer than a test may.
TestDaemons.settings = settings(
    max_examples=8, stateful_step_count=14, deadline=None, phases=[hypothesis.Phase.generate]
)
