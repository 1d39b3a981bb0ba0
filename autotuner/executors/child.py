"""The worker's side: one job after the other on one opened workload, each answered with one tagged value."""

import os
from multiprocessing.connection import Connection

from autotuner.errors import MachineError
from autotuner.monitor.recorder import Recorder
from autotuner.plugins import Job
from autotuner.types import Failure, Outcome


def work(connection: "Connection[Outcome | MachineError, Job]") -> None:
    """Serve jobs until the parent hangs up. After a failure the process is spent: nothing in it can be trusted."""
    with Recorder() as recorder:
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            os.environ["TRACEPARENT"] = job.trace_parent
            try:
                outcome = recorder.measure(job)
            except MachineError as error:
                connection.send(error)
                return
            connection.send(outcome)
            if isinstance(outcome, Failure):
                return
