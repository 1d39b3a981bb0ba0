"""One worker group is one trial: every rank steps along, and any rank's end ends all, with that rank's log."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from autotuner.executors.inline import InlineExecutor
from autotuner.executors.process import ProcessExecutor, ProcessPool
from autotuner.plugins import Job
from autotuner.testing.replay import Replay
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol

BRIEF = MeasurementProtocol(
    block_s=1e-3, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0, min_blocks=5, min_measure_s=0, max_measure_s=1,
    time_limit_s=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    with ProcessExecutor().open() as opened:
        yield opened


def job(folder: Path, fault: dict[str, str] | None = None, **more: object) -> Job:
    workload = Replay(step_s="0.002", fault=fault or {})
    log_path = folder / "logs" / "trial.log"
    return Job(workload, {"ranks": 3, "live": 0}, BRIEF, live=frozenset({"live"}), log_path=log_path, **more)


def run(pool: ProcessPool, what: Job) -> Measurement | Failure:
    return pool.submit(what).result(timeout=60)


def workers() -> list[psutil.Process]:
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    (server,) = (child for child in living if any("forkserver" in word for word in child.cmdline()))
    return server.children()


def test_ranks_step_along_and_stay_open_for_live_changes(pool: ProcessPool, tmp_path: Path) -> None:
    first = run(pool, job(tmp_path))
    assert isinstance(first, Measurement), first
    assert len(workers()) == 3
    again = run(pool, replace(job(tmp_path), config={"ranks": 3, "live": 1}))
    assert isinstance(again, Measurement), again
    assert (first.reused, again.reused) == (False, True)
    pool.close("search")
    assert workers() == []


def test_step_lasts_as_long_as_its_slowest_rank(pool: ProcessPool, tmp_path: Path) -> None:
    slow = replace(job(tmp_path), workload=Replay(step_s="0.001 + 0.02 * (rank == 2)"))
    measured = run(pool, slow)
    assert isinstance(measured, Measurement), measured
    assert min(measured.samples["latency_s"]) >= 0.02


@pytest.mark.parametrize(
    ("fault", "kind", "words", "log"),
    [
        (
            {"error": "rank == 2"},
            FailureKind.CRASHED,
            "rank 2: RuntimeError: the workload is broken",
            "trial.rank2.log",
        ),
        ({"error": "rank == 0"}, FailureKind.CRASHED, "RuntimeError: the workload is broken", "trial.log"),
        ({"memory_error": "rank == 1"}, FailureKind.OUT_OF_MEMORY, "rank 1: MemoryError: no room", "trial.rank1.log"),
        ({"segfault": "rank == 1"}, FailureKind.CRASHED, "rank 1: the worker was killed by SIGSEGV", "trial.rank1.log"),
        ({"exit": "rank == 2"}, FailureKind.CRASHED, "rank 2: the worker left with exit code 7", "trial.rank2.log"),
    ],
)
def test_any_rank_ends_all(
    pool: ProcessPool, tmp_path: Path, fault: dict[str, str], kind: FailureKind, words: str, log: str
) -> None:
    outcome = run(pool, job(tmp_path, fault))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.log_path) == (kind, f"logs/{log}")
    assert words in outcome.message
    assert (tmp_path / outcome.log_path).exists()
    assert workers() == []


def test_hanging_rank_is_killed_with_its_group(pool: ProcessPool, tmp_path: Path) -> None:
    hanging = job(tmp_path, {"hang": "rank == 1"})
    outcome = run(pool, replace(hanging, protocol=replace(BRIEF, time_limit_s=2)))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.TIMED_OUT
    assert workers() == []


def test_flood_of_one_rank_is_capped_in_its_own_log(tmp_path: Path) -> None:
    with ProcessExecutor(output_limit_bytes=2**16).open() as pool:
        outcome = run(pool, job(tmp_path, {"flood": "rank == 1"}))
    assert isinstance(outcome, Measurement)
    assert (tmp_path / "logs/trial.rank1.log").stat().st_size < 2**17
    assert (tmp_path / "logs/trial.log").stat().st_size == 0


def test_death_between_two_jobs_is_seen(pool: ProcessPool, tmp_path: Path) -> None:
    assert isinstance(run(pool, job(tmp_path)), Measurement)
    psutil.Process(pool._groups["search"].members[2].pid).kill()
    time.sleep(0.1)
    outcome = run(pool, job(tmp_path))
    assert isinstance(outcome, Failure)
    assert "rank 2: the worker was killed by SIGKILL" in outcome.message
    assert isinstance(run(pool, job(tmp_path)), Measurement)


def test_inline_executor_says_that_it_is_one_process(tmp_path: Path) -> None:
    with InlineExecutor().open() as inline:
        outcome = inline.submit(job(tmp_path)).result()
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.UNSUPPORTED
