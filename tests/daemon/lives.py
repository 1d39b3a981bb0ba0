"""A daemon that dies where it is told to: real bundles, real hooks, a real record; only the study and the load are not.

As a program it is a nursery: a warm interpreter that forks one life of the daemon for each line of its input, and
prints how it ended. No code of the product knows of it: points of death are calls that are wrapped here.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotuner.daemon import bundles as keeping
from autotuner.daemon import hooks as telling
from autotuner.daemon import keeper as keeper_module
from autotuner.daemon.bundles import Bundles
from autotuner.daemon.hooks import Hooks, put_in_place
from autotuner.daemon.keeper import Keeper, Terms, World
from autotuner.daemon.machine import Plan
from autotuner.daemon.sources import Reading
from autotuner.daemon.watching import Pauses, Watch
from autotuner.spec.expressions import Limit
from autotuner.store import open_record
from autotuner.types import CanaryRules, Deployment, Guard, Phase, Window

P95 = "latency_p95_s"
PERCENTS, LEAST_WINDOWS, MOST_WINDOWS = (10, 50), 4, 8
CONFIG = "config.json"
# Told to die, the hook kills the daemon and goes on much later with what it was asked; the token it does not look at.
HOOK = """#!/bin/sh
place=${0%/*}/service.json
if [ "$DIES_IN" = "$1" ]; then kill -9 $DAEMON; sleep 20; fi
case $1 in
apply) printf '{"stable": "%s", "candidate": "%s", "percent": %s}' "$2" "$3" "$4" > $place.new; mv $place.new $place;;
observe) cat $place;;
esac
"""
# What the study of a cycle finds: its latency in the canary, and as the one that serves, as a factor of today's.
FOUND = ((0.8, 0.8), (1.3, 1.3), None, (0.8, 1.5))


class Life:
    """One process of the daemon.

    Args:
        folder: Of the service.
        number: Of lives before: its clock is a minute later for each, so that the lease of the dead has lapsed.
        armed: Die at the first point at which none has died.
        cycles: So many are begun.
    """

    def __init__(self, folder, number, armed, cycles):
        self.folder, self.armed, self.cycles = folder, armed, cycles
        self.offset, self.draw = timedelta(minutes=number), random.Random(number)
        self.died = set((folder / "points").read_text().splitlines()) if (folder / "points").exists() else set()
        self.bundles = Bundles(folder / "bundles")
        program = [str(folder / "hook.sh")]
        words = ["{stable_hash}", "{candidate_hash}", "{percent}"]
        self.hooks = Hooks([*program, "apply", *words], [*program, "observe"], [*program, "smoke"], 60.0)

    def live(self, hears):
        """Until all cycles are over; who hears, is told when the record has been opened."""
        with open_record(str(self.folder / "record.db"), create=True) as record:
            self.journal = record.journal("chat")
            os.write(hears, b".")
            self._mine()
            rules = CanaryRules(least_windows=LEAST_WINDOWS, most_windows=MOST_WINDOWS)
            terms = Terms(Guard(P95, maximize=False), (), Plan(PERCENTS), rules, rules, Pauses(0.0, 10**6))
            watch = Watch([Limit.parse(f"{P95} <= 1 ms")], breaches=1)
            keeper = Keeper(self.journal, self._world(), terms, watch, f"life {os.getpid()}")
            while True:
                state = keeper.turn()
                assert state is not None, "nobody else leads"
                if state.phase is Phase.WATCHING and state.reached and state.cycle >= self.cycles:
                    break
            keeper.leave()

    def point(self, name):
        if self.armed and name not in self.died:
            self._write("points", name)
            os.kill(os.getpid(), signal.SIGKILL)

    def _write(self, file, line):
        with (self.folder / file).open("a") as out:
            out.write(line + "\n")

    def _deadly(self, call, name, acknowledge=None):
        """Points before and after a call; what it acknowledged is written down at once."""

        def wrapped(*args, **kwargs):
            told = name(*args) if callable(name) else name
            self.point(f"before {told}")
            found = call(*args, **kwargs)
            if acknowledge is not None:
                self._write("acknowledged", json.dumps(acknowledge(*args)))
            self.point(f"after {told}")
            return found

        return wrapped

    def _mine(self):
        """Every write, every hook and every step of keeping a bundle becomes a point."""
        one = self.journal
        one._insert = self._deadly(one._insert, lambda _, __, kind, *___: f"{kind} within the transaction")
        one.append = self._deadly(
            one.append, lambda _, kind, *__: f"append {kind} in {self._phase()}", lambda _, kind, *__: [kind, ""]
        )
        one.enter = self._deadly(
            one.enter, lambda _, state, because, *__: f"enter {state.phase} {state.step} after {because['event']}",
            lambda _, state, because, *__: ["state", f"{state.phase} {state.since.isoformat()}"],
        )  # fmt: skip
        for name in ("acquire", "release", "forget"):
            setattr(one, name, self._deadly(getattr(one, name), name))
        for name in ("_sync", "_sync_folder"):
            setattr(keeping, name, self._deadly(getattr(keeping, name), f"keeping a bundle: {name}"))
        run = telling.run_hook

        def hook(name, *args):
            during = f"during {name} in {self._phase()}"
            if self.armed and during not in self.died:
                self._write("points", during)
                os.environ.update(DIES_IN=name, DAEMON=str(os.getpid()))
            return run(name, *args)

        telling.run_hook = self._deadly(hook, lambda name, *_: f"{name} in {self._phase()}")

    def _phase(self):
        state = self.journal.state()
        return state.phase if state else "the beginning"

    def _world(self):
        def place(wanted, token):
            put_in_place(self.hooks, wanted, token, self.bundles.path, time.monotonic)

        return World(
            clock=lambda: datetime.now(UTC) + self.offset,
            first=self._deadly(lambda: self._keep({"latency_s": 0.25, "later_s": 0.25}), "first"),
            observe=lambda: telling.observe(self.hooks, 60.0),
            place=place,
            read=self._deadly(lambda: {P95: Reading(0.25 if self._begins() else 1e-4, 0.0)}, "read"),
            environment=dict,
            tune=self._deadly(self._tune, "tune"),
            window=self._deadly(self._window, lambda: f"window in {self._phase()}"),
            alert=self._deadly(lambda: None, "alert"),
            collect=self._deadly(lambda state, stop: {}, "collect"),
            tidy=self._deadly(self.bundles.forget, "tidy"),
        )

    def _begins(self):
        return self.journal.state().cycle < self.cycles

    def _keep(self, config):
        source = self.folder / "draft"
        source.mkdir(exist_ok=True)
        (source / CONFIG).write_text(json.dumps(config))
        return self.bundles.keep(source)

    def config(self, bundle):
        return json.loads((self.bundles.path(bundle) / CONFIG).read_text())

    def _tune(self, state, most_s, stop):
        """Finds the same for the same cycle, however often it is begun."""
        self.point("in the study")
        found = FOUND[state.cycle % len(FOUND)]
        if found is None:
            return "", "SAME"
        today = self.config(state.last_good)["later_s"]
        now, later = found
        return self._keep({"latency_s": today * now, "later_s": today * later, "cycle": state.cycle}), "BETTER"

    def _window(self):
        served = Deployment(**json.loads((self.folder / "service.json").read_text()))
        assert served.candidate, "nothing stands beside it"

        def arm(bundle, name):
            return {P95: self.config(bundle)[name] * self.draw.lognormvariate(0, 0.01)}

        return Window(arm(served.stable, "later_s"), arm(served.candidate, "latency_s"), 50, 0, 50, 0)


def nurse():
    """For each line of input one life; killed so long after its birth, when that is given. Prints its exit status."""
    for line in sys.stdin:
        asked = json.loads(line)
        kill_after_s = asked.pop("kill_after_s")
        cries, hears = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                Life(Path(asked.pop("folder")), **asked).live(hears)
                os._exit(0)
            finally:  # it failed; the nursery's own stack is none of its business
                traceback.print_exc()
                os._exit(1)
        os.close(hears)
        if kill_after_s is not None:
            os.read(cries, 1)
            time.sleep(kill_after_s)
            os.kill(pid, signal.SIGKILL)
        os.close(cries)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    keeper_module._KEPT = 10**5  # the test wants to see every entry that was ever acknowledged
    nurse()
