"""Jobs in processes of their own: forked from a warm server, reused while only live parameters change, and killable.

One job runs at a time (two would disturb each other's measurement); several launches may be open, as the contest needs.
"""

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field

from autotuner.errors import MachineError
from autotuner.executors.log import CappedLog
from autotuner.executors.reuse import reuse_key
from autotuner.executors.watch import oom_kills, tree_rss_bytes
from autotuner.plugins import Executor, Job, WorkerPool
from autotuner.types import Failure, FailureKind, Outcome

logger = logging.getLogger(__name__)

WATCH_PERIOD_S = 0.5
CLOSE_GRACE_S = 5.0


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


class ForkServer:
    """The parent's end of the fork server; starts it again after it died."""

    def __init__(self, preload: tuple[str, ...]) -> None:
        self._preload = preload
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `stop`, lives as long as this
        self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", "autotuner.executors.forkserver", str(theirs.fileno()), *self._preload]
        self._process = subprocess.Popen(
            argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors,
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self._ready = False

    def fork(self, job_socket: socket.socket, output: int) -> int:
        """Fork a worker that talks over `job_socket` and writes to `output`; returns its process id.

        Raises:
            MachineError: The server cannot start.
        """
        for attempt in (1, 2):
            try:
                self._await_ready()
                socket.send_fds(self._control, [b'{"op": "fork"}'], [job_socket.fileno(), output])
                return int(self._receive()["pid"])
            except (OSError, EOFError):
                self._stop()
                if attempt == 2:
                    raise MachineError("the worker server does not start", self._last_error()) from None
                self._start()
        raise AssertionError

    def end(self, pid: int, grace_s: float) -> int | None:
        """End a worker and all that it started; its exit code, minus its signal, or None when the server died."""
        try:
            self._control.send(json.dumps({"op": "end", "pid": pid, "grace_s": grace_s}).encode())
            return int(self._receive()["status"])
        except (OSError, EOFError):
            _kill_session(pid)
            return None

    def _await_ready(self) -> None:
        if not self._ready:
            self._receive()
            self._ready = True

    def _receive(self) -> dict[str, Any]:
        message = self._control.recv(4096)
        if not message:
            raise EOFError
        return dict(json.loads(message))

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.poll()}"

    def _stop(self) -> None:
        self._control.close()  # the server kills its workers and leaves
        try:
            self._process.wait(CLOSE_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End the server and everything below it."""
        self._stop()
        self._errors.close()


def _kill_session(leader: int) -> None:
    """Without the server: every process of the worker's session."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(entry.name)) == leader:
                    os.kill(int(entry.name), signal.SIGKILL)


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
        outcome = self._converse(worker, job, started_s + job.protocol.time_limit_s)
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
                    if (used := tree_rss_bytes(worker.pid)) > self._memory_limit_bytes:
                        text = (
                            f"{used / 2**30:.1f} GiB of host memory, limit {self._memory_limit_bytes / 2**30:.1f} GiB"
                        )
                        return Failure(FailureKind.OUT_OF_MEMORY, text)

    def _answer(self, worker: Worker, kills_before: int) -> Outcome:
        try:
            answer: Outcome | MachineError = worker.connection.recv()
        except (EOFError, OSError):
            killed = oom_kills() > kills_before
            return Failure(FailureKind.OUT_OF_MEMORY if killed else FailureKind.CRASHED, "")
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


def _death(status: int | None) -> str:
    if status is None:
        return "the worker died with its server"
    if status < 0:
        return f"the worker was killed by {signal.Signals(-status).name}"
    return f"the worker left with exit code {status} and no result"
