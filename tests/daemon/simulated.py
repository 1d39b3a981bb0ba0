"""A simulated world of a keeper: its service is a value, its hooks fail when told to, and it is cut off anywhere."""

import math
import random
from datetime import UTC, datetime, timedelta

from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import Keeper, Terms, World
from autotuner.daemon.machine import Plan
from autotuner.daemon.sources import Gap, Reading
from autotuner.daemon.watching import Pauses, Watch
from autotuner.spec.expressions import Limit
from autotuner.types import CanaryRules, Deployment, Guard, Window

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
        self.offers, self.broken, self.tuned = [], set(), []
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
            environment=lambda: {"driver": "1"}, tune=self.tune, window=self.window, alert=lambda: None,
            pause=self.pause,
        )  # fmt: skip

    def pause(self, seconds):
        self.now += timedelta(seconds=seconds)

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

    def tune(self, state, most_s, stop):
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
