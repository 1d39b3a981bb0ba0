"""Real processes: what goes wrong in a worker becomes a Failure of the right kind, and nothing is left behind."""

import importlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from autotuner.executors import group, server
from autotuner.executors.process import ProcessExecutor, ProcessPool
from autotuner.plugins import Job
from autotuner.testing.replay import Replay
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol

BRIEF = MeasurementProtocol(
    block_s=1e-6, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0, min_blocks=1, min_measure_s=0, max_measure_s=0,
    time_limit_s=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    with ProcessExecutor(memory_limit_bytes=2**30, output_limit_bytes=2**16).open() as opened:
        yield opened


def job(folder: Path, fault: str = "", launch: str = "search", time_limit_s: float = 20, **config: object) -> Job:
    workload = Replay(step_s="0", fault={fault: "True"} if fault else {})
    protocol = MeasurementProtocol(**{**{f: getattr(BRIEF, f) for f in BRIEF.__slots__}, "time_limit_s": time_limit_s})
    return Job(
        workload, {"a": 0, "live": 0, **config}, protocol, launch=launch, live=frozenset({"live"}),
        log_path=folder / "logs" / "trial.log", reference_path=folder / "reference.npz", writes_reference=True,
    )  # fmt: skip


def run(pool: ProcessPool, what: Job) -> Measurement | Failure:
    return pool.submit(what).result(timeout=60)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("segfault", FailureKind.CRASHED, "SIGSEGV"),
        ("exit", FailureKind.CRASHED, "exit code 7"),
        ("kill", FailureKind.CRASHED, "SIGKILL"),
        ("error", FailureKind.CRASHED, "RuntimeError: the workload is broken"),
        ("unsupported", FailureKind.UNSUPPORTED, "this machine lacks the kernel"),
        ("invalid", FailureKind.INVALID_CONFIG, "these two do not go together"),
        ("memory_error", FailureKind.OUT_OF_MEMORY, "no room"),
        ("eat_memory", FailureKind.OUT_OF_MEMORY, "GiB of host memory, limit 1.0 GiB"),
        ("not_finite", FailureKind.NOT_FINITE, "NaN or infinity"),
    ],
)
def test_fault_becomes_failure(pool: ProcessPool, tmp_path: Path, fault: str, kind: FailureKind, words: str) -> None:
    outcome = run(pool, job(tmp_path, fault))
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert words in outcome.message
    assert "\n" not in outcome.message
    assert (tmp_path / outcome.log_path).is_file()
    assert isinstance(run(pool, job(tmp_path)), Measurement), "the pool works on"


@pytest.mark.parametrize("fault", ["hang", "stop"])
def test_worker_that_never_answers_is_killed(pool: ProcessPool, tmp_path: Path, fault: str) -> None:
    outcome = run(pool, job(tmp_path, fault, time_limit_s=1.5))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TIMED_OUT
    assert isinstance(run(pool, job(tmp_path)), Measurement)


def test_traceback_is_in_the_log(pool: ProcessPool, tmp_path: Path) -> None:
    run(pool, job(tmp_path, "error"))
    assert "Traceback" in (tmp_path / "logs" / "trial.log").read_text()


def test_flood_is_capped_and_keeps_both_ends(pool: ProcessPool, tmp_path: Path) -> None:
    outcome = run(pool, job(tmp_path, "flood"))
    assert isinstance(outcome, Measurement)
    log = (tmp_path / "logs" / "trial.log").read_bytes()
    assert len(log) < 3 * 2**16
    assert b"bytes left out" in log


def test_orphan_of_a_worker_is_found_and_killed(tmp_path: Path) -> None:
    with ProcessExecutor().open() as pool:
        assert isinstance(run(pool, job(tmp_path, "orphan")), Measurement)
        orphans = [p for p in descendants() if any("time.sleep(3600)" in word for word in p.cmdline())]
        assert orphans, "the fault must really leave one, or this test shows nothing"
        pool.close("search")
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in orphans)


def test_live_parameter_reuses_the_process_and_others_do_not(pool: ProcessPool, tmp_path: Path) -> None:
    first = run(pool, job(tmp_path, launch="reuse"))
    live = run(pool, job(tmp_path, launch="reuse", live=1))
    fixed = run(pool, job(tmp_path, launch="reuse", a=1))
    other = run(pool, job(tmp_path, launch="other", a=1))
    assert [m.reused for m in (first, live, fixed, other)] == [False, True, False, False]


def test_exclusive_job_stands_alone(pool: ProcessPool, tmp_path: Path) -> None:
    run(pool, job(tmp_path, launch="one"))
    run(pool, replace(job(tmp_path, launch="two"), exclusive=True))
    assert set(pool._groups) == {"two"}


def test_leaving_kills_a_running_job(tmp_path: Path) -> None:
    with ProcessExecutor().open() as pool:
        future = pool.submit(job(tmp_path, "hang"))
        time.sleep(1.0)
    outcome = future.result(timeout=10)
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.CANCELLED


def test_death_of_the_fork_server_costs_one_job(tmp_path: Path) -> None:
    with ProcessExecutor().open() as pool:
        run(pool, job(tmp_path))
        threading.Timer(0.5, os.kill, (pool._server._process.pid, signal.SIGKILL)).start()
        outcome = run(pool, job(tmp_path, "hang"))
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.CRASHED
        assert isinstance(run(pool, job(tmp_path)), Measurement), "a new server has taken over"


def test_no_process_outlives_the_pool(tmp_path: Path) -> None:
    before = {p.pid for p in descendants()}
    with ProcessExecutor().open() as pool:
        run(pool, job(tmp_path, "orphan"))
        run(pool, job(tmp_path, "segfault", launch="b"))
    assert {p.pid for p in descendants()} <= before


def test_worker_gets_no_input_and_its_own_group(pool: ProcessPool, tmp_path: Path) -> None:
    run(pool, job(tmp_path, launch="group"))
    pid = pool._groups["group"].members[0].pid
    assert os.getpgid(pid) == pid != os.getpgrp()
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path(os.devnull)


def test_unwritable_log_is_the_environments_fault(pool: ProcessPool, tmp_path: Path) -> None:
    from autotuner.errors import MachineError

    (tmp_path / "logs").write_text("a file where a folder should be")
    with pytest.raises(MachineError, match="cannot write"):
        run(pool, job(tmp_path))


HEIR = """
import os
import signal
import time

from autotuner.testing import replay


class Heir(replay.Replay):
    def open(self, config, device):
        if os.fork() == 0:
            time.sleep(3600)
        os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_crash_is_seen_although_a_grandchild_holds_the_stream_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heir_of_a_stream.py").write_text(HEIR)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.syspath_prepend(str(tmp_path))
    workload = importlib.import_module("heir_of_a_stream").Heir()
    with ProcessExecutor().open() as pool:
        outcome = run(pool, replace(job(tmp_path), workload=workload))
        assert isinstance(outcome, Failure)
        assert (outcome.kind, "SIGSEGV" in outcome.message) == (FailureKind.CRASHED, True)
        assert isinstance(run(pool, job(tmp_path)), Measurement)


def test_worker_that_stops_in_the_middle_of_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "MESSAGE_LIMIT_S", 1)
    with ProcessExecutor().open() as pool:
        fork = pool._server.fork

        def fork_and_begin(job_socket: socket.socket, output: int, channels: Sequence[socket.socket]) -> int:
            job_socket.send(b"\0\0")  # the first half of the length of a message
            return fork(job_socket, output, channels)

        monkeypatch.setattr(pool._server, "fork", fork_and_begin)
        outcome = run(pool, job(tmp_path, "hang"))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.CRASHED


@pytest.mark.slow
def test_stuck_server_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REPLY_LIMIT_S", 3.0)
    monkeypatch.setattr(server, "CLOSE_GRACE_S", 0.1)
    with ProcessExecutor().open() as pool:
        run(pool, job(tmp_path, launch="first"))
        worker = psutil.Process(pool._groups["first"].members[0].pid)
        os.kill(pool._server._process.pid, signal.SIGSTOP)
        assert isinstance(run(pool, job(tmp_path, launch="second")), Measurement), "asked to fork"
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
        os.kill(pool._server._process.pid, signal.SIGSTOP)
        pool.close("second")
        assert isinstance(run(pool, job(tmp_path, launch="third")), Measurement), "asked to end"
        pool.close("first")  # whose server is gone


@pytest.mark.slow
def test_start_of_the_server_is_no_part_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(5)")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with ProcessExecutor().open(["slow_to_import"]) as pool:
        what = job(tmp_path, time_limit_s=4)
        outcome = run(pool, replace(what, workload=Replay(step_s="0", open_s=1.5)))
    assert isinstance(outcome, Measurement)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("kill", FailureKind.OUT_OF_MEMORY), ("segfault", FailureKind.CRASHED), ("exit", FailureKind.CRASHED)],
)
def test_kernel_out_of_memory_is_told_by_its_signal(
    pool: ProcessPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, kind: FailureKind
) -> None:
    monkeypatch.setattr(group, "oom_kills", itertools.count().__next__)  # the kernel kills all the time, anybody
    outcome = run(pool, job(tmp_path, fault))
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert ("out of memory" in outcome.message) is (kind is FailureKind.OUT_OF_MEMORY)


def test_real_time_signal_has_no_name(tmp_path: Path) -> None:
    with ProcessExecutor().open() as pool:
        run(pool, job(tmp_path))
        os.kill(pool._groups["search"].members[0].pid, signal.SIGRTMIN + 1)
        outcome = run(pool, job(tmp_path))
    assert isinstance(outcome, Failure)
    assert outcome.message == f"the worker was killed by signal {signal.SIGRTMIN + 1}"
