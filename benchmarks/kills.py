"""SIGKILL at random points of a running study: is a finished trial ever lost, is a process ever left?

    python benchmarks/kills.py [--kills 150] [--seed 0] [--json OUT]

A study of a workload that only sleeps runs in a process of its own. At random moments its parent, its fork server or a
worker is killed. After a parent's death the record is checked (`quick_check`, every trial that was reported is there),
every process below it must be gone within 15 s, and `autotune study resume` goes on. Goal: nothing lost, nothing left.
"""

import argparse
import contextlib
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import psutil
from results import describe_machine, publish

STUDY = """
workload: {kind: replay, step_s: "0.001", tokens: "1"}
parameters:
  a: {int: [1, 300], default: 1}
  b: {int: [1, 300], default: 1, live: true}
objectives: [{maximize: throughput_tokens_per_s}]
strategy: random
budget: {trials: 100000}
protocol: {block_s: 0.002, warmup_min_s: 0.005, warmup_max_s: 0.1, min_measure_s: 0.01, max_measure_s: 0.02}
"""
TARGETS = ("parent", "fork server", "worker")


@dataclass
class Running:
    """A study in a process of its own, and what it has reported."""

    process: subprocess.Popen[str]
    reported: list[int] = field(default_factory=list)

    @classmethod
    def begin(cls, folder: Path, *words: str) -> "Running":
        argv = [str(Path(sys.executable).with_name("autotune")), "study", *words, "--db", str(folder / "record.db")]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, bufsize=1)
        running = cls(process)
        Thread(target=running._listen, daemon=True).start()
        return running

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.match(r"trial (\d+):", line):
                self.reported.append(int(found[1]))

    def await_trials(self, count: int, limit_s: float = 60) -> bool:
        goal, deadline_s = len(self.reported) + count, time.monotonic() + limit_s
        while len(self.reported) < goal and time.monotonic() < deadline_s and self.process.poll() is None:
            time.sleep(0.005)
        return len(self.reported) >= goal

    def below(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def parent_of(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return -1


def check_record(folder: Path, reported: list[int]) -> list[str]:
    """What is wrong with the record after a death."""
    with sqlite3.connect(folder / "record.db") as connection:
        wrong = [] if connection.execute("PRAGMA quick_check").fetchone() == ("ok",) else ["quick_check"]
        kept = {row[0] for row in connection.execute("SELECT number FROM trial")}
    lost = [number for number in reported if number not in kept]
    if lost or kept != set(range(len(kept))):
        wrong.append(f"lost trials {lost}, kept {len(kept)}")
    return wrong


def run(kills: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    rng, wrong, done = random.Random(seed), list[str](), Counter[str]()
    (folder / "kills.yaml").write_text(STUDY)
    running, reported = Running.begin(folder, "start", str(folder / "kills.yaml")), list[int]()
    running.await_trials(1)
    for number in range(kills):
        time.sleep(rng.uniform(0, 0.3))
        target, below = rng.choice(TARGETS), running.below()
        done[target] += 1
        if target != "parent":
            victims = [p for p in below if (parent_of(p) != running.process.pid) == (target == "worker")]
            for victim in victims[:1]:
                kill(victim)
            if not running.await_trials(2):
                wrong.append(f"kill {number}: no trial after the {target}'s death")
            continue
        running.process.kill()
        running.process.wait()
        _, alive = psutil.wait_procs(below, timeout=15)
        wrong += [f"kill {number}: process {process.pid} is left" for process in alive]
        reported += running.reported
        wrong += [f"kill {number}: {text}" for text in check_record(folder, reported)]
        running = Running.begin(folder, "resume", "kills")
        if not running.await_trials(1):
            wrong.append(f"kill {number}: resume does not go on")
    below = running.below()
    running.process.send_signal(signal.SIGINT)
    running.process.wait(30)
    _, alive = psutil.wait_procs(below, timeout=15)
    wrong += [f"process {process.pid} is left at the end" for process in alive]
    reported += running.reported
    wrong += check_record(folder, reported)
    done["trials reported"] = len(reported)
    return done, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(describe_machine())
    began_s = time.monotonic()
    with TemporaryDirectory() as folder:
        done, wrong = run(options.kills, options.seed, Path(folder))
    print(", ".join(f"{count} x {what}" for what, count in done.items()), f"in {time.monotonic() - began_s:.0f} s")
    for text in wrong:
        print("  ", text)
    publish(options.json, {"done": dict(done), "wrong": wrong}, {"no trial lost, no process left": not wrong})


if __name__ == "__main__":
    main()
