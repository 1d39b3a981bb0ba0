"""Jobs in processes of their own: forked from a warm server, reused while only live parameters change, and killable.

One job runs at a time (two would disturb each other's measurement); several launches may be open, as the contest needs.
"""

import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from pydantic import Field

from autotuner.errors import MachineError
from autotuner.executors.log import CappedLog
from autotuner.executors.reuse import reuse_key
from autotuner.executors.server import CLOSE_GRACE_S, ForkServer
from autotuner.executors.watch import has_ended, oom_kills, tree_rss_bytes
from autotuner.plugins import Executor, Job, WorkerPool
from autotuner.types import Failure, FailureKind, Outcome

WATCH_PERIOD_S = 0.5
MESSAGE_LIMIT_S = 60  # for the rest of a message that has begun


class ProcessExecutor(Executor):
    """Each launch a process tree of its own on this machine."""

    kind: Literal["process"] = "process"
    memory_limit_bytes: int | None = Field(
        None, gt=0, description="Host memory of a worker; default 90 % of what is free."
    )
    output_limit_bytes: int = Field(2**20, gt=0, description="Output kept of a worker: its beginning and its end.")

    @contextmanager
    def open(self, preload: Sequence[str] = ()) -> Iterator[WorkerPool]:
        """Start the fork server; it imports `preload` while the caller goes on."""
        limit_bytes = self.memory_limit_bytes or int(0.9 * _available_memory_bytes())
        pool = ProcessPool(tuple(preload), limit_bytes, self.output_limit_bytes)
        try:
            yield pool
        finally:
            pool.shut_down()


def _available_memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


@dataclass(slots=True)
class Worker:
    """A living worker process and what it has open."""

    pid: int
    connection: Any
    output: int
    key: tuple[object, ...]
    log: CappedLog = field(default_factory=CappedLog)


class ProcessPool:
    """Runs jobs one at a time on its own thread; the caller waits on futures and stays interruptible."""

    slots = 1

    def __init__(self, preload: tuple[str, ...], memory_limit_bytes: int, output_limit_bytes: int) -> None:
        self._server = ForkServer(preload)
        self._memory_limit_bytes = memory_limit_bytes
        self._output_limit_bytes = output_limit_bytes
        self._workers: dict[str, Worker] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="autotune-worker")
        self._stopping = False

    def submit(self, job: Job) -> "Future[Outcome]":
        """Queue a job."""
        return self._thread.submit(self._run, job)

    def close(self, launch: str) -> None:
        """End a launch's processes, after the jobs that were submitted before."""
        self._thread.submit(self._end, launch, CLOSE_GRACE_S).result()

    def shut_down(self) -> None:
        """Kill every worker, a running one too, and the server."""
        self._stopping = True
        for worker in list(self._workers.values()):
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)  # a running job returns at once
        self._thread.shutdown(wait=True, cancel_futures=True)
        for launch in list(self._workers):
            self._end(launch, 0.0)
        self._server.stop()

    def _run(self, job: Job) -> Outcome:
        started_s = time.monotonic()
        if job.exclusive:
            for launch in [name for name in self._workers if name != job.launch]:
                self._end(launch, CLOSE_GRACE_S)
        worker = self._worker(job)
        worker.log.open(job.log_path, self._output_limit_bytes)
        # the server's start is no part of the trial
        outcome = self._converse(worker, job, time.monotonic() + job.protocol.time_limit_s)
        if isinstance(outcome, Failure):
            outcome = self._post_mortem(job, outcome, time.monotonic() - started_s)
        worker.log.close()
        return outcome

    def _worker(self, job: Job) -> Worker:
        """The launch's worker when it can take the job over, else a fresh one."""
        key = reuse_key(job)
        if (worker := self._workers.get(job.launch)) is not None:
            if worker.key == key:
                return worker
            self._end(job.launch, CLOSE_GRACE_S)
        ours, theirs = socket.socketpair()
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # a worker may stop in the middle of a message
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", MESSAGE_LIMIT_S, 0))
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            pid = self._server.fork(theirs, write_end)
        finally:
            theirs.close()
            os.close(write_end)
        worker = self._workers[job.launch] = Worker(pid, Connection(ours.detach()), read_end, key)
        return worker

    def _converse(self, worker: Worker, job: Job, deadline_s: float) -> Outcome:
        """Send the job and wait for its one answer, keeping its output small and its time and memory bounded."""
        kills_before = oom_kills()
        with suppress(OSError):  # it died between two jobs: the wait below sees the end of its stream
            worker.connection.send(job)
        with selectors.DefaultSelector() as selector:
            selector.register(worker.connection, selectors.EVENT_READ)
            selector.register(worker.output, selectors.EVENT_READ)
            next_watch_s = time.monotonic() + WATCH_PERIOD_S
            while True:
                for key, _ in selector.select(WATCH_PERIOD_S):
                    if key.fd == worker.output:
                        if not worker.log.drain(worker.output):
                            selector.unregister(worker.output)
                    else:
                        return self._answer(worker, kills_before)
                now_s = time.monotonic()
                if self._stopping:
                    return Failure(FailureKind.CANCELLED, "the study was stopped")
                if now_s > deadline_s:
                    return Failure(FailureKind.TIMED_OUT, f"no result within {job.protocol.time_limit_s:g} s: killed")
                if now_s > next_watch_s:
                    next_watch_s = now_s + WATCH_PERIOD_S
                    if failure := self._watch(worker, kills_before):
                        return failure

    def _watch(self, worker: Worker, kills_before: int) -> Failure | None:
        """What the parent must see for itself. A process forked by the worker may keep its stream open after it."""
        if has_ended(worker.pid) and not worker.connection.poll(0):
            return _silent_death(kills_before)
        if (used := tree_rss_bytes(worker.pid)) > self._memory_limit_bytes:
            text = f"{used / 2**30:.1f} GiB of host memory, limit {self._memory_limit_bytes / 2**30:.1f} GiB"
            return Failure(FailureKind.OUT_OF_MEMORY, text)
        return None

    def _answer(self, worker: Worker, kills_before: int) -> Outcome:
        try:
            answer: Outcome | MachineError = worker.connection.recv()
        except (EOFError, OSError):
            return _silent_death(kills_before)
        if isinstance(answer, MachineError):
            raise answer
        return answer

    def _post_mortem(self, job: Job, failure: Failure, duration_s: float) -> Failure:
        """Bury the worker, and say how it died when it could not say so itself."""
        grace_s = 0.0 if failure.kind is FailureKind.TIMED_OUT else 0.2
        status = self._end(job.launch, grace_s)
        kind, message = failure.kind, failure.message
        if self._stopping:
            kind, message = FailureKind.CANCELLED, "the study was stopped"
        elif not message:
            if status != -signal.SIGKILL:  # the kernel's count is of the whole machine: it killed somebody else
                kind = FailureKind.CRASHED
            message = _death(status) + (", by the kernel: out of memory" if kind is FailureKind.OUT_OF_MEMORY else "")
        log = f"logs/{job.log_path.name}" if job.log_path else ""
        return Failure(kind, message, log, duration_s)

    def _end(self, launch: str, grace_s: float) -> int | None:
        if (worker := self._workers.pop(launch, None)) is None:
            return None
        worker.connection.close()
        status = self._server.end(worker.pid, grace_s)
        worker.log.drain(worker.output)
        os.close(worker.output)
        return status


def _silent_death(kills_before: int) -> Failure:
    """The end of a worker that gave no answer; how it died is for the post-mortem to say."""
    return Failure(FailureKind.OUT_OF_MEMORY if oom_kills() > kills_before else FailureKind.CRASHED, "")


def _death(status: int | None) -> str:
    if status is None:
        return "the worker died with its server, or the kernel cannot end it"
    if status < 0:
        known = set(signal.Signals)  # all but most of the real-time signals
        return f"the worker was killed by {signal.Signals(-status).name if -status in known else f'signal {-status}'}"
    return f"the worker left with exit code {status} and no result"
