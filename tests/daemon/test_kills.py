"""kill -9 of the daemon before, in and after everything that it does, and at any moment: the next one goes on.

What must hold after every death is in `check`; what dies and how is in lives.py.
"""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from autotuner.daemon.bundles import Bundles
from autotuner.store import open_record
from autotuner.types import Deployment, Phase

sys.path.insert(0, str(Path(__file__).parent))

from lives import HOOK, LEAST_WINDOWS, PERCENTS

KILLS = 150


class Nursery:
    """Lives of a daemon in a folder, and what must hold after each."""

    def __init__(self, folder):
        self.folder, self.lives, self.tuned = folder, 0, 0
        (folder / "hook.sh").write_text(HOOK)
        (folder / "hook.sh").chmod(0o755)
        argv = [sys.executable, str(Path(__file__).with_name("lives.py"))]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def live(self, cycles, armed=False, kill_after_s=None):
        """The exit status."""
        self.lives += 1
        asked = {"folder": str(self.folder), "number": self.lives, "armed": armed, "cycles": cycles}
        print(json.dumps({**asked, "kill_after_s": kill_after_s}), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def say(self, word):
        with open_record(str(self.folder / "record.db")) as record:
            record.journal("chat").tell(word, {"by": "somebody"})

    def entries(self):
        with open_record(str(self.folder / "record.db")) as record:
            return list(record.journal("chat").entries())

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def check(self):
        nothing_runs(self.folder)
        if not (self.folder / "record.db").exists():
            return
        with open_record(str(self.folder / "record.db")) as record:
            entries, state = list(record.journal("chat").entries()), record.journal("chat").state()
        if state is None:
            return
        bundles = Bundles(self.folder / "bundles")
        for name in filter(None, (state.last_good, state.previous, state.wanted.stable, state.wanted.candidate)):
            bundles.path(name)  # is there, and its bytes are what its name says
        states = [entry for entry in entries if entry.kind == "state"]
        tuned = sum(entry.kind == "tuning" for entry in entries)
        assert tuned == state.cycle >= self.tuned, "a cycle and its entry are written at once, and never lost"
        self.tuned = tuned
        tokens = [entry.token for entry in entries if entry.token]  # people have none
        assert tokens == sorted(tokens), "an older leader writes nothing more"
        nothing_is_lost(self.folder, entries)
        what_serves_was_wanted(self.folder, [entry.payload["state"] for entry in states])
        what_was_promoted_has_passed(states, entries)


def nothing_runs(folder):
    """No hook outlives its daemon: only the nursery itself may still speak of the folder."""
    deadline_s = time.monotonic() + 10
    while strays := [one for one in psutil.process_iter(["cmdline"]) if str(folder / "hook.sh") in words_of(one)]:
        assert time.monotonic() < deadline_s, [words_of(one) for one in strays]
        time.sleep(0.005)


def words_of(process):
    return process.info["cmdline"] or []


def nothing_is_lost(folder, entries):
    """What was acknowledged last is the newest of its kind, or the one before: one more may have been on its way."""
    if not (folder / "acknowledged").exists():
        return
    last = dict(json.loads(line) for line in (folder / "acknowledged").read_text().splitlines())
    counts = {}
    for line in (folder / "acknowledged").read_text().splitlines():
        counts[json.loads(line)[0]] = counts.get(json.loads(line)[0], 0) + 1
    for kind, count in counts.items():
        found = [entry.payload for entry in entries if entry.kind == kind]
        assert len(found) >= count
        if kind == "state":
            assert last[kind] in [f"{one['state']['phase']} {one['state']['since']}" for one in found[-2:]]


def what_serves_was_wanted(folder, states):
    """What was put in place last, or what is being put there."""
    since = max((number for number, state in enumerate(states) if state["reached"]), default=0)
    may = [state["wanted"] for state in states[since:]]
    if (folder / "service.json").exists():
        served = Deployment(**json.loads((folder / "service.json").read_text()))
        assert served in [Deployment(**wanted) for wanted in may]
        if states[-1]["reached"]:
            assert served == Deployment(**states[-1]["wanted"])


def what_was_promoted_has_passed(states, entries):
    """Each step of each promoted candidate has a PASS of its own, from enough windows of that step."""
    for number, entry in enumerate(states):
        state = entry.payload["state"]
        before = states[number - 1].payload["state"] if number else None
        if state["phase"] == Phase.PROMOTING and before["phase"] != Phase.PROMOTING:
            passed = [
                one.payload["because"] for one in states[: number + 1]
                if one.payload["because"]["event"] == "ruled" and one.payload["state"]["cycle"] == state["cycle"]
            ]  # fmt: skip
            assert [one["verdict"]["ruling"] for one in passed] == ["PASS"] * len(PERCENTS)
            sinces = {
                one.payload["state"]["since"] for one in states[:number]
                if (one.payload["state"]["phase"], one.payload["state"]["cycle"]) == (Phase.CANARY, state["cycle"])
            }  # fmt: skip
            assert len(sinces) == len(PERCENTS)
            for since in sinces:
                windows = [one for one in entries if one.kind == "window" and one.payload["since"] == since]
                assert len(windows) >= LEAST_WINDOWS


def end_of(nursery):
    with open_record(str(nursery.folder / "record.db")) as record:
        state = record.journal("chat").state()
    served = json.loads((nursery.folder / "service.json").read_text())
    return state.phase, state.reached, state.wanted, state.last_good, state.previous, state.cycle, served


@pytest.fixture
def nursery(tmp_path):
    found = Nursery(tmp_path)
    yield found
    found.close()


CYCLES = 5  # one of each kind of FOUND, and one more


@pytest.mark.slow
def test_killed_before_in_and_after_everything_it_does(nursery, tmp_path):
    """Each life dies at the first point at which none has died; the last finds none, and the end is the usual one."""
    while (status := nursery.live(CYCLES, armed=True)) == -signal.SIGKILL:
        nursery.check()
    nursery.check()
    assert status == 0
    points = (tmp_path / "points").read_text().splitlines()
    assert len(points) == len(set(points)) == nursery.lives - 1
    for word in ("enter", "append", "during apply", "during observe", "during smoke", "keeping a bundle", "study"):
        assert any(word in point for point in points), word
    for phase in Phase:
        assert any(phase in point for point in points) or phase in (Phase.APPROVAL, Phase.ALARM), phase
    (tmp_path / "undisturbed").mkdir()
    other = Nursery(tmp_path / "undisturbed")
    assert other.live(CYCLES) == 0
    other.close()
    assert end_of(nursery) == end_of(other)


@pytest.mark.slow
def test_killed_at_any_moment_many_times(nursery):
    """While people say words at random, each of which is heard once."""
    draw, said, begun_s = random.Random(0), 0, time.monotonic()
    assert nursery.live(cycles=2) == 0
    cycle_s = (time.monotonic() - begun_s) / 2
    for _ in range(KILLS):
        assert nursery.live(10**6, kill_after_s=draw.uniform(0.0, cycle_s / 6)) == -signal.SIGKILL
        nursery.check()
        if draw.random() < 0.2:
            nursery.say(draw.choice(["rollback", "freeze", "unfreeze", "approve", "clear"]))
            said += 1
    assert nursery.tuned > 5, "lives were too short to mean anything"
    nursery.say("unfreeze")
    assert nursery.live(nursery.tuned + 1) == 0
    nursery.check()
    heard = [one.payload["because"].get("heard") for one in nursery.entries() if one.kind == "state"]
    heard = [number for number in heard if number]
    assert len(heard) == len(set(heard)) == said + 1
