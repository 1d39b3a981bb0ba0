"""Jobs in processes of their own: forked from a warm server, reused while only live parameters change, and killable.

One job runs at a time (two would disturb each other's measurement); several launches may be open, as the contest needs.
"""

import os
import selectors
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Literal

from pydantic import Field

from autotuner.executors.group import Group, log_path, start
from autotuner.executors.reuse import reuse_key
from autotuner.executors.server import CLOSE_GRACE_S, ForkServer
from autotuner.plugins import Executor, Job, WorkerPool
from autotuner.types import Failure, FailureKind, Measurement, Outcome

WATCH_PERIOD_S = 0.5


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


class ProcessPool:
    """Runs jobs one at a time on its own thread; the caller waits on futures and stays interruptible."""

    slots = 1

    def __init__(self, preload: tuple[str, ...], memory_limit_bytes: int, output_limit_bytes: int) -> None:
        self._server = ForkServer(preload)
        self._memory_limit_bytes = memory_limit_bytes
        self._output_limit_bytes = output_limit_bytes
        self._groups: dict[str, Group] = {}
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
        for member in [member for group in list(self._groups.values()) for member in group.members]:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)  # a running job returns at once
        self._thread.shutdown(wait=True, cancel_futures=True)
        for launch in list(self._groups):
            self._end(launch, 0.0)
        self._server.stop()

    def _run(self, job: Job) -> Outcome:
        started_s = time.monotonic()
        if job.exclusive:
            for launch in [name for name in self._groups if name != job.launch]:
                self._end(launch, CLOSE_GRACE_S)
        group = self._group(job)
        group.send(job, self._output_limit_bytes)
        # the server's start is no part of the trial
        number, outcome = self._converse(group, job, time.monotonic() + job.protocol.time_limit_s)
        if isinstance(outcome, Failure):
            outcome = self._post_mortem(job, number, outcome, time.monotonic() - started_s)
        group.close_logs()
        return outcome

    def _group(self, job: Job) -> Group:
        """The launch's processes when they can take the job over, else fresh ones."""
        key = reuse_key(job)
        if (group := self._groups.get(job.launch)) is not None:
            if group.key == key:
                return group
            self._end(job.launch, CLOSE_GRACE_S)
        group = self._groups[job.launch] = start(self._server, job, key)
        return group

    def _converse(self, group: Group, job: Job, deadline_s: float) -> tuple[int, Outcome]:
        """Wait for rank 0's answer or anybody's end, keeping their output small and their time and memory bounded.

        Returns:
            The rank that answers for all, and its answer.
        """
        with selectors.DefaultSelector() as selector:
            group.register(selector)
            next_watch_s = time.monotonic() + WATCH_PERIOD_S
            while True:
                for key, _ in selector.select(WATCH_PERIOD_S):
                    member = group.members[key.data]
                    if key.fd != member.output:
                        return self._answer(group, key.data)
                    if not member.log.drain(member.output):
                        selector.unregister(member.output)
                now_s = time.monotonic()
                if self._stopping:
                    return 0, Failure(FailureKind.CANCELLED, "the study was stopped")
                if now_s > deadline_s:
                    return 0, Failure(
                        FailureKind.TIMED_OUT,
                        f"no result within {job.protocol.time_limit_s:g} s (protocol.time_limit_s): killed",
                    )
                if now_s > next_watch_s:
                    next_watch_s = now_s + WATCH_PERIOD_S
                    if (dead := group.dead_rank()) is not None:
                        return dead, group.silent_death()
                    if failure := self._overuse(group):
                        return 0, failure

    def _overuse(self, group: Group) -> Failure | None:
        if (used := group.rss_bytes()) > self._memory_limit_bytes:
            text = f"{used / 2**30:.1f} GiB of host memory, limit {self._memory_limit_bytes / 2**30:.1f} GiB"
            return Failure(FailureKind.OUT_OF_MEMORY, text)
        return None

    def _answer(self, group: Group, number: int) -> tuple[int, Outcome]:
        """What rank 0 measured, or how the first of all ranks failed."""
        ending = group.receive(number)
        if isinstance(ending.answer, Measurement):
            return number, ending.answer
        return group.root_cause({number: ending})

    def _post_mortem(self, job: Job, number: int, failure: Failure, duration_s: float) -> Failure:
        """Bury the processes, and say how one died when it could not say so itself."""
        several = len(self._groups[job.launch].members) > 1
        grace_s = 0.0 if several or failure.kind is FailureKind.TIMED_OUT else 0.2
        status = self._end(job.launch, grace_s)[number]
        kind, message = failure.kind, failure.message
        if self._stopping:
            kind, message = FailureKind.CANCELLED, "the study was stopped"
        elif not message:
            if status != -signal.SIGKILL:  # the kernel's count is of the whole machine: it killed somebody else
                kind = FailureKind.CRASHED
            message = _death(status) + (", by the kernel: out of memory" if kind is FailureKind.OUT_OF_MEMORY else "")
        if several and number:
            message = f"rank {number}: {message}"
        path = log_path(job, number)
        return Failure(kind, message, f"logs/{path.name}" if path else "", duration_s)

    def _end(self, launch: str, grace_s: float) -> list[int | None]:
        group = self._groups.pop(launch, None)
        return group.end(self._server, grace_s) if group else []


def _death(status: int | None) -> str:
    if status is None:
        return "the worker died with its server, or the kernel cannot end it"
    if status < 0:
        known = set(signal.Signals)  # all but most of the real-time signals
        return f"the worker was killed by {signal.Signals(-status).name if -status in known else f'signal {-status}'}"
    return f"the worker left with exit code {status} and no result"
