"""Jobs in this very process: for debugging a workload with a debugger, and for tests. No isolation at all."""

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Literal

from autotuner.executors.reuse import reuse_key
from autotuner.monitor.recorder import Recorder
from autotuner.plugins import Executor, Job, WorkerPool
from autotuner.types import Failure, Outcome


class InlineExecutor(Executor):
    """Runs each job at once, in the caller's process and thread. A crash of the workload is a crash of the study."""

    kind: Literal["inline"] = "inline"

    @contextmanager
    def open(self, preload: Sequence[str] = ()) -> Iterator[WorkerPool]:
        """Nothing to start."""
        pool = InlinePool()
        with _young_heap():
            try:
                yield pool
            finally:
                pool.shut_down()


@contextmanager
def _young_heap() -> Iterator[None]:
    """Leave what was imported out of garbage collections: each measurement needs one, and torch is large."""
    ours = not gc.get_freeze_count()
    if ours:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()


class InlinePool:
    """The same launches and reuse as the process executor's, without the processes."""

    slots = 1

    def __init__(self) -> None:
        self._launches: dict[str, tuple[object, Recorder]] = {}

    def submit(self, job: Job) -> "Future[Outcome]":
        """Run the job now; the future is done when this returns."""
        if job.exclusive:
            for launch in [name for name in self._launches if name != job.launch]:
                self.close(launch)
        key = reuse_key(job)
        if job.launch in self._launches and self._launches[job.launch][0] != key:
            self.close(job.launch)
        if job.launch not in self._launches:
            self._launches[job.launch] = (key, Recorder())
        outcome = self._launches[job.launch][1].measure(job)
        if isinstance(outcome, Failure):
            self.close(job.launch)
        done: Future[Outcome] = Future()
        done.set_result(outcome)
        return done

    def close(self, launch: str) -> None:
        """Close the launch's workload."""
        if launch in self._launches:
            with self._launches.pop(launch)[1]:
                pass

    def shut_down(self) -> None:
        """Close everything."""
        for launch in list(self._launches):
            self.close(launch)
