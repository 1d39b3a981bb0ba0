"""The worker's side: one job after the other on one opened workload, each answered with one tagged value."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TypeAlias

from autotuner.errors import MachineError
from autotuner.monitor.recorder import Recorder
from autotuner.plugins import Job, Rank
from autotuner.types import Failure, Outcome

Answer: TypeAlias = tuple[Outcome | MachineError, float]  # and when it was given, by the host's monotonic clock
Channel: TypeAlias = "Connection[object, object]"


def work(connection: "Connection[Answer, Job]", channels: Sequence[Channel] = ()) -> None:
    """Serve jobs until the parent hangs up. After a failure the process is spent: nothing in it can be trusted.

    Args:
        connection: To the parent.
        channels: Of rank 0, to the other ranks in order; of another rank, to rank 0.
    """
    with Recorder(channels) as recorder:
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            os.environ.update(environment(job.rank) | {"TRACEPARENT": job.trace_parent})
            try:
                outcome = recorder.follow(job) if job.rank.number else recorder.measure(job)
            except MachineError as error:
                connection.send((error, time.monotonic()))
                return
            with suppress(BrokenPipeError):  # the parent has hung up, and rank 0 has left for that
                connection.send((outcome, time.monotonic()))
            if isinstance(outcome, Failure):
                return


def environment(rank: Rank) -> dict[str, str]:
    """What torchrun sets; nothing for a process that works alone."""
    if rank.count == 1:
        return {}
    number, count = str(rank.number), str(rank.count)
    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(rank.port)}
