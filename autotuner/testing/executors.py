"""The contract of an executor, as a check that any test runner can call; it runs the replay workload."""

import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from autotuner.plugins import Executor, Job, WorkerPool, Workload, load_class
from autotuner.testing.options import check_options
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol, Outcome

ANSWER_LIMIT_S = 120.0
BRIEF = MeasurementProtocol(
    block_s=1e-6, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0, min_blocks=1, min_measure_s=0, max_measure_s=0,
    time_limit_s=60,
)  # fmt: skip
FAULTS = {
    "error": FailureKind.CRASHED,
    "unsupported": FailureKind.UNSUPPORTED,
    "invalid": FailureKind.INVALID_CONFIG,
    "memory_error": FailureKind.OUT_OF_MEMORY,
    "not_finite": FailureKind.NOT_FINITE,
}
DEATHS = {"segfault": FailureKind.CRASHED, "exit": FailureKind.CRASHED, "kill": FailureKind.CRASHED}


def check_executor(executor: Executor, folder: Path, *, isolated: bool = True) -> None:
    """Check that jobs are answered, failures are data, workloads reused exactly when they may be, and nothing stays.

    Args:
        executor: With any options.
        folder: An empty one, for logs and outputs.
        isolated: The death of a worker must not be the death of the study. Only an executor for debugging may say no.

    Raises:
        AssertionError: It breaks the contract; says how.
    """
    check_options(executor, "executors")
    children, threads = _children(), threading.active_count()
    with executor.open() as pool:
        assert pool.slots >= 1, "an executor has a slot at least"
        _check_faults(pool, folder, {**FAULTS, **(DEATHS if isolated else {})})
        _check_reuse(pool, folder)
        _check_exclusive(pool, folder)
    _assert_nothing_left(children, threads)
    _check_second_opening(executor.open(), folder)
    _assert_nothing_left(children, threads)


def job(folder: Path, fault: str = "", launch: str = "search", **config: int) -> Job:
    """A job of a few milliseconds; `live` is a live parameter, the others are not. A `fault` strikes at live = 9."""
    replay = load_class("workloads", "replay", Workload)
    workload = replay.model_validate({"step_s": "0", "fault": {fault: "live == 9"} if fault else {}})
    return Job(
        workload, {"fixed": 0, "live": 0, **config}, BRIEF, launch=launch, live=frozenset({"live"}),
        log_path=folder / "logs" / "trial.log", reference_path=folder / "reference.npz", writes_reference=True,
    )  # fmt: skip


def _answer(future: "Future[Outcome]") -> Outcome:
    return future.result(timeout=ANSWER_LIMIT_S)


def _measured(outcome: Outcome) -> Measurement:
    assert isinstance(outcome, Measurement), f"a healthy job failed: {outcome}"
    assert outcome.samples.get("throughput_tokens_per_s"), "a measurement holds its raw samples"
    return outcome


def _check_faults(pool: WorkerPool, folder: Path, faults: dict[str, FailureKind]) -> None:
    for fault, kind in faults.items():
        outcome = _answer(pool.submit(job(folder, fault, live=9)))
        assert isinstance(outcome, Failure), f"{fault}: a failure must be an answer, not {outcome}"
        assert outcome.kind is kind, f"{fault}: {outcome.kind} instead of {kind}: {outcome.message}"
        assert outcome.message, f"{fault}: a failure says what happened"
        assert "\n" not in outcome.message, f"{fault}: the message must be one line"
        healthy = _measured(_answer(pool.submit(job(folder, fault))))
        assert not healthy.reused, f"{fault}: what failed must not be used again"


def _check_reuse(pool: WorkerPool, folder: Path) -> None:
    jobs = {
        "a first job": (job(folder, launch="reuse"), False),
        "another live value": (job(folder, launch="reuse", live=1), True),
        "another fixed value": (job(folder, launch="reuse", fixed=1), False),
        "the same again": (job(folder, launch="reuse", fixed=1), True),
        "another launch": (job(folder, launch="other", fixed=1), False),
        "the first launch beside it": (job(folder, launch="reuse", fixed=1), True),
    }
    for what, (asked, reused) in jobs.items():
        found = _measured(_answer(pool.submit(asked))).reused
        assert found == reused, f"{what}: reused is {found}"
    pool.close("reuse")
    pool.close("no such launch")
    closed = _measured(_answer(pool.submit(job(folder, launch="reuse", fixed=1))))
    assert not closed.reused, "a closed launch must be opened again"


def _check_exclusive(pool: WorkerPool, folder: Path) -> None:
    _measured(_answer(pool.submit(job(folder, launch="one"))))
    _measured(_answer(pool.submit(replace(job(folder, launch="two"), exclusive=True))))
    after = _measured(_answer(pool.submit(job(folder, launch="one"))))
    assert not after.reused, "an exclusive job must close every other launch first"


def _check_second_opening(opening: AbstractContextManager[WorkerPool], folder: Path) -> None:
    """An executor can be opened again, and left while a job is still waiting to be run."""
    with opening as pool:
        waiting = [pool.submit(job(folder)) for _ in range(3)]
    for future in waiting:
        assert future.done(), "leaving must answer or cancel every job"


def _children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children(recursive=True)}


def _assert_nothing_left(children: Iterable[int], threads: int) -> None:
    left = _children() - set(children)
    assert not left, f"processes outlive the executor: {sorted(left)}"
    assert threading.active_count() <= threads, "threads outlive the executor"
