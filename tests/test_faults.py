"""Whole studies through the real command line while everything around them breaks: nothing is lost, nothing is left."""

import os
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pexpect
import pytest

from autotuner import api
from autotuner.types import Failure, FailureKind

sys.path.insert(0, str(Path(__file__).with_name("cli")))
from refusal import assert_refused

FILE = """
name: s
workload: {kind: replay, step_s: "0.004 / (1 + fast)"}
probes: []
parameters:
  fast: {int: [0, 1], default: 0, live: true}
  other: {int: [0, 9], default: 0}
objectives: [{maximize: throughput_tokens_per_s}]
budget: {trials: 8, max_pairs: 6}
protocol:
  {block_s: 0.005, warmup_min_s: 0.01, warmup_max_s: 0.1, min_measure_s: 0.03, max_measure_s: 0.1, time_limit_s: 20}
"""
SLOWLY = [
    "--set",
    "protocol.min_measure_s=0.3",
    "--set",
    "protocol.max_measure_s=0.5",
]  # the view is redrawn once a second
PROGRAM = "import sys; from autotuner.cli.main import main; print('ready', file=sys.stderr, flush=True); main()"


class Run:
    """The command line in a process of its own; everything below it can be found again by a mark."""

    def __init__(self, folder, *words, db=None):
        self.folder, self.db = folder, db or str(folder / "autotune.db")
        self.mark, self.errors = uuid.uuid4().hex, ""
        self.argv = [sys.executable, "-c", PROGRAM, *map(str, words), "--db", self.db]
        self.env = {**os.environ, "AUTOTUNE_TEST_MARK": self.mark}

    def __enter__(self):
        self.process = subprocess.Popen(
            self.argv, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder
        )
        self._guard = threading.Timer(120, self.process.kill)
        self._guard.start()
        return self

    def __exit__(self, *_):
        self._guard.cancel()
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def until(self, *starts):
        """Read on to the first line that begins so."""
        for line in self.process.stderr:
            self.errors += line
            if line.startswith(starts):
                return line
        raise AssertionError(self.errors)

    def end(self):
        """Exit code, stdout and everything on stderr; and all that it started is gone."""
        output, errors = self.process.communicate()
        assert survivors(self.mark) == []
        return self.process.returncode, output, (self.errors + errors).removeprefix("ready\n")


def run(folder, *words, db=None):
    with Run(folder, *words, db=db) as started:
        return started.end()


def survivors(mark, patience_s=10.0):
    """Processes that carry the mark in their environment, when they have had time to go."""
    until_s = time.monotonic() + patience_s
    while (found := marked(mark)) and time.monotonic() < until_s:
        time.sleep(0.05)
    return found


def marked(mark):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except OSError:  # it has gone, or is not ours
            continue
    return [command for command in found if command]  # a zombie has none


DROPPED = """
import os, time
import autotuner.loop as loop
propose = loop.propose
class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0.2)  # here the interpreter raises KeyboardInterrupt, and forgets it
def interrupted_once(*given):
    loop.propose = propose
    Interrupted()
    return propose(*given)
loop.propose = interrupted_once
"""

WRAPPED = """
import os
import autotuner.loop as loop
def propose(*given):
    try:
        os.kill(os.getpid(), {number})
    except KeyboardInterrupt as error:  # as pydantic-core does while it builds a class
        raise ValueError("schema") from error
loop.propose = propose
"""
LEAVING = """
import atexit, os
atexit.register(os.kill, os.getpid(), {number})
"""


def kept(folder, name="s"):
    with api.load_study(name, str(folder / "autotune.db")) as study:
        return study.trials()


def assert_resumable(folder, before, trials=8):
    """What was measured is still there, the study comes to its end, and nothing is measured twice."""
    code, output, errors = run(folder, "study", "resume", "s")
    assert code == 0, errors
    assert output.split()[0] in ("BETTER", "SAME", "AMBIGUOUS"), output
    after = kept(folder)
    assert after[: len(before)] == before
    assert [trial.number for trial in after] == list(range(trials))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount:
        pytest.skip("only root can mount")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder):
    """Take all the room that is left, and return what to delete to have it back."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as target:
        try:
            while target.write(bytes(4096)):
                pass
        except OSError:
            return ballast


def interrupted(errors):
    found = re.fullmatch(r"interrupted: (\d+) trials? kept\. Resume: autotune study resume s --db .*", errors)
    assert found, errors
    return int(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["trial 0", "trial 5", "verify, ", "pair 5"])
def test_an_interruption_keeps_everything(file, tmp_path, moment, number):
    with Run(tmp_path, "study", "start", file) as study:
        study.until(moment)
        study.process.send_signal(number)
        code, output, errors = study.end()
    assert (code, output) == (130, "")
    assert "Traceback" not in errors
    before = kept(tmp_path)
    assert interrupted(errors.splitlines()[-1]) == len(before) >= (8 if moment in ("verify, ", "pair 5") else 1)
    if number is signal.SIGTERM:
        assert_resumable(tmp_path, before)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_at_any_moment_is_clean(file, tmp_path, number):
    draw = random.Random(11)
    for index in range(6):
        with Run(tmp_path, "study", "start", file, "--name", f"s{index}") as study:
            study.until("ready")
            time.sleep(draw.uniform(0, 2.5))
            study.process.send_signal(number)
            code, _, errors = study.end()
        assert "Traceback" not in errors
        if code != -number:  # before the command had begun
            assert code == 130, errors
            assert "interrupted" in errors.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_the_interpreter_drops_ends_the_study_all_the_same(file, tmp_path, number):
    started = Run(tmp_path, "study", "start", file, *SLOWLY)
    started.argv[2] = DROPPED.format(number=int(number)) + PROGRAM
    with started as study:
        code, _, errors = study.end()
    assert code == 130, errors
    assert "Traceback" not in errors
    assert interrupted(errors.splitlines()[-1]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_an_extension_wraps_is_one(file, tmp_path, number):
    started = Run(tmp_path, "study", "start", file, *SLOWLY)
    started.argv[2] = (WRAPPED + LEAVING).format(number=int(number)) + PROGRAM
    with started as study:
        code, _, errors = study.end()
    assert code == -number, errors  # the second one, while it is leaving
    assert "Traceback" not in errors
    assert interrupted(errors.splitlines()[-1]) == 0


@pytest.mark.slow
def test_any_command_that_is_interrupted_says_so_in_a_line(tmp_path):
    started = Run(tmp_path, "study", "list")
    started.argv[2] = (
        "import os; from autotuner import records; records.open_record = lambda *_: os.kill(os.getpid(), 2)\n" + PROGRAM
    )
    with started as listing:
        code, output, errors = listing.end()
    assert (code, output, errors) == (130, "", "error: interrupted\n")


@pytest.mark.slow
def test_an_interrupted_confirmation_is_confirmed_again_and_not_resumed(file, tmp_path):
    assert run(tmp_path, "study", "start", file, "--set", "budget.trials=2")[0] == 0
    with Run(tmp_path, "study", "verify", "s") as study:
        study.until("verify, ")
        study.process.send_signal(signal.SIGINT)
        code, _, errors = study.end()
    assert code == 130
    assert f"Verify: autotune study verify s --db {study.db}" in errors.splitlines()[-1]


@pytest.mark.slow
def test_two_impatient_interruptions_leave_nothing_either(file, tmp_path):
    with Run(tmp_path, "study", "start", file) as study:
        study.until("trial 2")
        for _ in range(3):
            study.process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        code, _, errors = study.end()
    assert code in (130, -signal.SIGINT), errors  # the last may meet an interpreter that is already leaving
    assert "Traceback" not in errors
    assert_resumable(tmp_path, kept(tmp_path))


def on_terminal(started, *, hangup_ignored=False, output="/dev/null"):
    trap = "trap '' HUP; " if hangup_ignored else ""
    line = f'{trap}exec "$@" > {output}'
    terminal = pexpect.spawn(
        "bash", ["-c", line, "bash", *started.argv], dimensions=(24, 80), encoding="utf-8", timeout=60,
        env={**started.env, "TERM": "xterm-256color"}, cwd=str(started.folder),
    )  # fmt: skip
    for place in (terminal, terminal.ptyproc):  # a busy machine takes longer to end a process than their 0.1 s
        place.delayafterclose = place.delayafterterminate = 1.0
    return terminal


@pytest.mark.slow
def test_a_closed_terminal_ends_the_study_and_loses_nothing(file, tmp_path):
    started = Run(tmp_path, "study", "start", file, *SLOWLY)
    terminal = on_terminal(started)
    terminal.expect("[2-7] of 8 trials")
    terminal.close(force=False)
    assert survivors(started.mark) == []
    before = kept(tmp_path)
    assert len(before) >= 2
    assert_resumable(tmp_path, before)


@pytest.mark.slow
def test_a_study_that_was_told_to_outlives_its_terminal(file, tmp_path):
    started = Run(tmp_path, "study", "start", file, *SLOWLY)
    output = tmp_path / "output"
    terminal = on_terminal(started, hangup_ignored=True, output=output)
    terminal.expect("[2-7] of 8 trials")
    os.close(terminal.fileno())  # close() would end the process as well
    terminal.ptyproc.fd, terminal.child_fd = -1, -1
    assert survivors(started.mark, patience_s=60) == []
    assert len(kept(tmp_path)) == 8
    assert output.read_text().split()[0] in ("BETTER", "AMBIGUOUS")


@pytest.mark.slow
def test_a_progress_that_cannot_be_written_ends_no_study(file, tmp_path):
    started = Run(tmp_path, "study", "start", file, "--set", "budget.trials=2")
    argv = [word.replace("print('ready', file=sys.stderr, flush=True); ", "") for word in started.argv]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, env=started.env, stdout=subprocess.PIPE, stderr=full, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith((b"BETTER", b"AMBIGUOUS"))


def test_no_room_to_start(file, small_disk):
    ballast = fill(small_disk)
    code, output, errors = run(small_disk, "study", "start", file)
    assert_refused(code, output, errors, expected=3, words=[str(small_disk), "the disk is full", "free some space"])
    ballast.unlink()
    code, output, errors = run(small_disk, "study", "start", file, "--set", "budget.trials=1")
    assert code == 0, errors


@pytest.mark.slow
def test_no_room_to_go_on(file, small_disk):
    with Run(small_disk, "study", "start", file) as study:
        study.until("trial 2")
        ballast = fill(small_disk)
        code, output, errors = study.end()
    words = [str(small_disk), "free some space"]
    assert_refused(code, output, errors, expected=3, words=words)
    before = kept(small_disk)
    stopped = f"stopped: {len(before)} trials kept. Resume: autotune study resume s --db {study.db}"
    assert stopped in errors.splitlines()
    assert len(before) >= 3
    os.truncate(small_disk / "s" / ".lock", 0)
    fill(small_disk)  # not even the lock finds room for the number of its holder
    for command in (["resume", "s"], ["delete", "s", "--yes"]):
        code, output, errors = run(small_disk, "study", *command)
        assert_refused(code, output, errors, expected=3, words=words)
    assert run(small_disk, "study", "show", "s")[0] == 0, "what is there can be read"
    ballast.unlink()
    assert_resumable(small_disk, before)


@pytest.mark.slow
def test_a_quota_in_the_middle(file, tmp_path):
    with Run(tmp_path, "study", "start", file) as study:
        study.until("trial 2")
        size = (tmp_path / "autotune.db").stat().st_size
        resource.prlimit(study.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        code, output, errors = study.end()
    assert_refused(code, output, errors, expected=3, words=["autotune.db", "is the disk full, the quota used up"])
    before = kept(tmp_path)
    assert len(before) >= 3
    assert_resumable(tmp_path, before)


@pytest.mark.slow
def test_a_writer_that_does_not_let_go(file, tmp_path):
    db = f"sqlite:///{tmp_path}/autotune.db?timeout=0.2"
    with Run(tmp_path, "study", "start", file, db=db) as study:
        study.until("trial 2")
        with sqlite3.connect(tmp_path / "autotune.db", timeout=30) as writer:
            writer.execute("BEGIN IMMEDIATE")
            code, output, errors = study.end()
            writer.rollback()
    words = ["autotune.db is locked: another process is writing to it", "wait until it is done, then try again"]
    assert_refused(code, output, errors, expected=3, words=words)
    assert f"Resume: autotune study resume s --db '{db}'" in errors
    assert_resumable(tmp_path, kept(tmp_path))


@pytest.mark.slow
def test_a_record_that_is_deleted_in_the_middle(file, tmp_path):
    with Run(tmp_path, "study", "start", file) as study:
        study.until("trial 2")
        (tmp_path / "autotune.db").unlink()
        code, output, errors = study.end()
    assert_refused(code, output, errors, expected=3, words=["autotune.db"])


@pytest.mark.slow
def test_logs_that_cannot_be_written(file, tmp_path):
    with Run(tmp_path, "study", "start", file) as study:
        study.until("trial 2")
        shutil.rmtree(tmp_path / "s" / "logs")
        (tmp_path / "s" / "logs").write_text("in the way")
        code, output, errors = study.end()
    assert_refused(code, output, errors, expected=3, words=[f"cannot write {tmp_path}/s/logs", "free some space"])
    (tmp_path / "s" / "logs").unlink()
    assert_resumable(tmp_path, kept(tmp_path))


@pytest.mark.slow
def test_a_second_run_of_the_same_study(file, tmp_path):
    with Run(tmp_path, "study", "start", file, *SLOWLY) as study:
        study.until("trial 0")
        for words in (["start", file], ["resume", "s"], ["delete", "s", "--yes"]):
            code, output, errors = run(tmp_path, "study", *words)
            told = [f"study 's' is being run by process {study.process.pid}", "wait for it, or end it"]
            assert_refused(code, output, errors, expected=2, words=told)
        code, output, errors = study.end()
    assert code == 0, errors
    assert len(kept(tmp_path)) == 8


FAULTS = {
    "flood": (1, None),
    "segfault": (2, FailureKind.CRASHED),
    "exit": (3, FailureKind.CRASHED),
    "kill": (4, FailureKind.CRASHED),
    "hang": (5, FailureKind.TIMED_OUT),
    "stop": (6, FailureKind.TIMED_OUT),
    "error": (7, FailureKind.CRASHED),
    "memory_error": (8, FailureKind.OUT_OF_MEMORY),
    "orphan": (9, None),
}


@pytest.mark.slow
def test_a_workload_that_does_its_worst(file, tmp_path):
    """Each fault in one of ten configurations: the study goes on, says so, and leaves no process behind."""
    faults = ", ".join(f"{fault}: 'other == {where}'" for fault, (where, _) in FAULTS.items())
    words = ["study", "start", file, "--set", f"workload.fault={{{faults}}}", "--set", "parameters.fast.int=[0,0]",
             "--set", "budget.trials=10", "--set", "protocol.time_limit_s=2", "--set", "strategy=random"]  # fmt: skip
    code, output, errors = run(tmp_path, *words)
    assert code == 0, errors
    trials = {trial.config["other"]: trial for trial in kept(tmp_path)}
    assert len(trials) == 10
    for fault, (where, kind) in FAULTS.items():
        outcome = trials[where].outcome
        assert (outcome.kind if isinstance(outcome, Failure) else None) == kind, fault
        said = next(line for line in errors.splitlines() if line.startswith(f"trial {trials[where].number}: "))
        assert ("failed" in said) == (kind is not None), said
        if kind is not None:
            assert (tmp_path / "s" / outcome.log_path).is_file()
    assert "10 trials, 7 failed (4 crashed, 2 timed_out, 1 out_of_memory)" in output
    assert (tmp_path / "s" / "logs" / f"trial-{trials[1].number:05d}.log").stat().st_size < 2**21
    assert "last log" in output


@pytest.mark.slow
def test_a_study_whose_baseline_fails(file, tmp_path):
    code, output, errors = run(tmp_path, "study", "start", file, "--set", "workload.fault={error: 'True'}")
    assert code == 1
    assert output.startswith("INVALID  The baseline failed; nothing was measured.")
    assert "1 trial, 1 failed (1 crashed)" in output
    log = re.search(r"last log +(/.*\.log)", re.sub(r"\n {5,}", "", output))[1]  # a long path is wrapped
    assert "RuntimeError: the workload is broken" in Path(log).read_text()
    assert errors.count(": failed, crashed: RuntimeError: the workload is broken") == 1
    assert f"autotune study show s --db {tmp_path}/autotune.db".replace(" ", "") in "".join(output.split())


@pytest.mark.slow
def test_no_room_for_the_outputs_of_the_baseline(file, tmp_path):
    """They can be megabytes. The machine's fault, so no trial has failed, and the study can be resumed."""
    (tmp_path / "s" / "reference.npz" / "in the way").mkdir(parents=True)
    code, output, errors = run(tmp_path, "study", "start", file)
    assert_refused(code, output, errors, expected=3, words=["cannot write", "reference.npz"])
    shutil.rmtree(tmp_path / "s" / "reference.npz")
    assert_resumable(tmp_path, [])
