"""Thousands of cycles of the daemon on a simulated service: does anything grow, and does every cycle end as it should?

A cycle is trigger, study, canary, promotion, probation, end, by the real keeper on a real SQLite record. Meanwhile
hooks fail before and after they did their work, windows lack numbers, candidates are better, worse, alike, failing, or
bad as soon as they serve alone; people say words; clocks are set forwards and back; the record is locked; the daemon
dies at any call; and a second daemon takes over whenever the lease has lapsed.

Run `python benchmarks/daemon_months.py [--cycles 10000] [--json OUT]`. The record lies in memory (`/dev/shm`) where
there is such a place: what a disk costs for each acknowledged entry is no subject here.
"""

import argparse
import gc
import math
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import median
from unittest.mock import patch

import psutil
import results

from autotuner.daemon.hooks import HookError
from autotuner.daemon.keeper import Keeper, Terms, World
from autotuner.daemon.machine import Plan
from autotuner.daemon.sources import Gap, Read, Reading
from autotuner.daemon.watching import Pauses, Watch
from autotuner.errors import MachineError
from autotuner.spec.expressions import Limit
from autotuner.store import open_record
from autotuner.store.journal import Journal
from autotuner.types import CanaryRules, Deployment, Guard, Phase, ServiceState, Window

P95, LEVEL_S, TODAY_S = "latency_p95_s", 0.2, 0.25
PERCENTS, LEAST_WINDOWS, MOST_WINDOWS = (10, 50), 4, 8
MOST_TURNS = 3000  # of one cycle
WORDS = ("approve", "refuse", "rollback", "freeze", "unfreeze", "tune", "clear")
KINDS_OF_ENTRIES = ("state", "window", "tuning", "quarantine", "alert", *WORDS)
# What a study finds: how often, and its latency beside what serves and in its place, as a factor.
KINDS = {"better": (4, 0.8, 0.8), "worse": (2, 1.3, 1.3), "alike": (1, 1.0, 1.0), "later": (1, 0.8, 1.5),
         "failing": (1, 0.8, 0.8), "nothing": (1, 1.0, 1.0)}  # fmt: skip


class Cut(BaseException):
    """The daemon has died."""


@dataclass(frozen=True)
class Sample:
    """What was measured after so many cycles."""

    cycles: int
    cpu_s_per_cycle: float
    rss_bytes: int
    file_bytes: int
    entries: int


class Months:
    """A service and two daemons that keep it.

    Args:
        journal: Of the service.
        path: The record's file.
        seed: Of everything that happens.
    """

    def __init__(self, journal: Journal, path: Path, seed: int = 0) -> None:
        self.journal, self.path, self.draw = journal, path, Random(seed)
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.served = Deployment("b0")
        self.latency_s, self.later_s, self.failing = {"b0": TODAY_S}, {"b0": TODAY_S}, {""}
        self.happened: Counter[str] = Counter()
        self.lives, self.hooks_broken = 0, False
        self.keepers = [self.born(), self.born()]

    def born(self) -> Keeper:
        self.lives += 1
        rules = CanaryRules(least_windows=LEAST_WINDOWS, most_windows=MOST_WINDOWS)
        terms = Terms(Guard(P95, maximize=False), (), Plan(PERCENTS), rules, rules, Pauses(3600.0, 12))
        watch = Watch([Limit.parse(f"{P95} <= {LEVEL_S} s")], [P95], breaches=2)
        return Keeper(self.journal, self.world(), terms, watch, f"life {self.lives}")

    def world(self) -> World:
        return World(
            clock=lambda: self.now, first=lambda: "b0", observe=lambda: self.served, place=self.place, read=self.read,
            environment=lambda: {"driver": "1"}, tune=self.tune, window=self.window,
            alert=lambda: self.called("alert"), pause=lambda _seconds: self.called("pause"),
        )  # fmt: skip

    def chance(self, probability: float, what: str) -> bool:
        happens = self.draw.random() < probability
        self.happened[what] += happens
        return happens

    def called(self, name: str) -> None:
        """Time passes, and a daemon may die."""
        self.now += timedelta(seconds=self.draw.uniform(0, 10))
        if self.chance(0.001, "the clock was set"):
            self.now += timedelta(seconds=self.draw.uniform(-7200, 7200))
        if self.chance(0.004, f"died in {name}"):
            raise Cut

    def place(self, wanted: Deployment, _token: int) -> None:
        self.called("place")
        if self.hooks_broken or self.chance(0.02, "a hook failed"):
            raise HookError("it failed before it did anything")
        self.served = wanted
        self.called("place, after it was done")
        if self.chance(0.02, "a hook failed late"):
            raise HookError("it failed after all was done")

    def read(self) -> Mapping[str, Read]:
        self.called("read")
        self.now += timedelta(seconds=self.draw.uniform(0, 3600))
        if self.chance(0.05, "no reading"):
            return {P95: Gap("down")}
        return {P95: Reading(self.draw.lognormvariate(0, 0.01) * TODAY_S, 0.0)}

    def tune(self, state: ServiceState, most_s: float, stop: Callable[[], bool]) -> tuple[str, str]:
        """What serves is today's level again; the same is found for the same cycle."""
        self.called("tune")
        chosen = Random(state.cycle).choices([*KINDS], [weight for weight, _, _ in KINDS.values()])[0]
        self.called("tune, at its end")
        if chosen == "nothing":
            return "", "SAME"
        _, now, later = KINDS[chosen]
        today, name = state.last_good, f"c{state.cycle} {chosen}"
        self.latency_s = {state.previous: TODAY_S, today: TODAY_S, name: TODAY_S * now}
        self.later_s = {state.previous: TODAY_S, today: TODAY_S, name: TODAY_S * later}
        self.failing = {name} if chosen == "failing" else set()
        return name, "BETTER"

    def window(self) -> Window:
        self.called("window")
        assert self.served.candidate, "nothing stands beside it"

        def arm(true_s: float) -> dict[str, float]:
            if self.chance(0.01, "a window without a number"):
                return self.draw.choice([{}, {P95: math.nan}, {P95: math.inf}])
            return {P95: true_s * self.draw.lognormvariate(0, 0.01)}

        stable, beside = arm(self.later_s[self.served.stable]), arm(self.latency_s[self.served.candidate])
        return Window(stable, beside, 50, 0, 50, 5 if self.served.candidate in self.failing else 0)

    def turn(self) -> ServiceState | None:
        """Of one of the two; a dead one is born again."""
        one = int(self.draw.random() < 0.1)
        if self.chance(0.002, "the leader slept"):
            self.now += timedelta(seconds=100)
        try:
            with self.locked() if self.chance(0.003, "the record was locked") else nullcontext():
                return self.keepers[one].turn()
        except MachineError as error:
            if "is locked" not in error.message:
                raise
        except Cut:
            self.keepers[one] = self.born()
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        other = sqlite3.connect(self.path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()

    def people(self, state: ServiceState) -> None:
        """Say something now and then; in the end somebody clears, thaws, approves."""
        if self.chance(0.003, "somebody said something"):
            self.say(self.draw.choice(WORDS))
        needed = {Phase.ALARM: "clear", Phase.APPROVAL: "approve"}.get(state.phase, "unfreeze" * state.frozen)
        if needed and self.draw.random() < 0.05:
            self.hooks_broken = False
            self.say(needed)
        if self.chance(0.0005, "hooks broke for long"):
            self.hooks_broken = True

    def say(self, word: str) -> None:
        self.journal.tell(word, {"by": "somebody"})

    def cycle(self) -> None:
        """Until the next one is over; what must hold is looked at after every turn."""
        before = self.journal.state()
        number = before.cycle if before else 0
        for _ in range(MOST_TURNS):
            state = self.turn()
            if state is None:
                self.now += timedelta(seconds=5)
                continue
            self.look(before, state)
            if state.phase is Phase.WATCHING and state.reached and state.cycle > number:
                return
            self.people(state)
            before = state
        raise AssertionError(f"a cycle has no end: {self.journal.state()}")

    def look(self, before: ServiceState | None, state: ServiceState) -> None:
        assert state.wanted.stable
        assert state.last_good
        assert state.last_good in (state.wanted.stable, state.wanted.candidate) or state.phase is Phase.PROMOTING
        if state.reached:
            assert self.served == state.wanted
        if before is not None and state.phase is not before.phase:
            self.happened[state.phase] += 1
            assert state.cycle >= before.cycle
            if state.phase is Phase.PROMOTING:
                self.proven(state)

    def proven(self, state: ServiceState) -> None:
        """The PASS of every step is in the journal; what was promoted is one that looks better."""
        entries = self.journal.entries(kinds=("state",), last=40)
        own = [entry for entry in entries if entry.payload["state"]["cycle"] == state.cycle]
        ruled = [one.payload["because"]["verdict"]["ruling"] for one in own if "verdict" in one.payload["because"]]
        assert ruled == ["PASS"] * len(PERCENTS)
        assert state.candidate.split()[-1] in ("better", "later"), state.candidate


def fast_folder() -> Path | None:
    """In memory; None where there is no such place."""
    return Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@contextmanager
def months(seed: int = 0) -> Iterator[Months]:
    """On a new record, whose entries bear the simulated time."""
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        path = Path(folder) / "record.db"
        with open_record(str(path), busy_timeout_s=0.0, create=True) as record:
            simulated = Months(record.journal("chat"), path, seed)

            def provenance() -> dict[str, str]:
                return {"created_at": simulated.now.isoformat(), "code_version": "simulated"}

            with patch("autotuner.store.journal.provenance", provenance):
                yield simulated


def measure(simulated: Months, cycles: int, parts: int) -> Iterator[Sample]:
    """One sample after each part of the cycles."""
    for part in range(1, parts + 1):
        begun_s, count = time.process_time(), cycles // parts
        for _ in range(count):
            simulated.cycle()
        used_s = time.process_time() - begun_s
        gc.collect()
        yield Sample(
            part * count, used_s / count, psutil.Process().memory_info().rss, simulated.path.stat().st_size,
            sum(1 for _ in simulated.journal.entries()),
        )  # fmt: skip


def goals(samples: list[Sample]) -> dict[str, bool]:
    """Time and memory between the first tenth and the end; the journal keeps so many of each kind, and no more."""
    tenth = max(1, len(samples) // 10)
    early, late = samples[tenth : 2 * tenth], samples[-tenth:]
    cpu = median(one.cpu_s_per_cycle for one in late) / median(one.cpu_s_per_cycle for one in early)
    rss = late[-1].rss_bytes - samples[tenth - 1].rss_bytes
    file, entries, most = late[-1].file_bytes, late[-1].entries, 1000 * len(KINDS_OF_ENTRIES)
    return {
        f"a cycle costs {cpu:.2f}x the time at the end, at most 1.3x": cpu <= 1.3,
        f"the process has grown by {rss / 2**20:.1f} MiB, at most 8 MiB": rss <= 8 * 2**20,
        f"the journal has {entries:,} entries, at most 1,000 of each kind, {most:,}": entries <= most,
        f"the record has {file / 2**20:.1f} MiB, at most 4 MiB": file <= 4 * 2**20,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    print("{:>7} {:>13} {:>9} {:>10} {:>8}".format("cycles", "CPU ms/cycle", "RSS MiB", "file KiB", "entries"))
    with months(given.seed) as simulated:
        begun, samples = simulated.now, []
        for one in measure(simulated, given.cycles, 50):
            samples.append(one)
            print(f"{one.cycles:7} {1e3 * one.cpu_s_per_cycle:13.2f} {one.rss_bytes / 2**20:9.1f} "
                  f"{one.file_bytes / 2**10:10.0f} {one.entries:8}", flush=True)  # fmt: skip
        days = (simulated.now - begun) / timedelta(days=1)
        print(f"{days:.0f} simulated days, {simulated.lives} lives of a daemon; {dict(simulated.happened)}")
        document = {"parts": [vars(one) for one in samples], "happened": dict(simulated.happened), "days": days}
    results.publish(given.json, document, goals(samples))


if __name__ == "__main__":
    main()
