"""The client in a process of its own, so that neither the server's work nor ours delays a request."""

import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from autotuner.errors import MachineError
from autotuner.load.plan import Episode, Plan

_CLOSE_S = 5.0


class LoadClient:
    """Starts at once, in the background; the first episode waits for it. Ends with the `with`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "autotuner.load", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._connection: Connection[Plan, Episode] = Connection(ours.detach())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if kind is not None:  # it may be in the middle of an episode
            self._process.kill()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def run(self, plan: Plan) -> Episode:
        """One episode.

        Raises:
            MachineError: The client's process died.
        """
        try:
            self._connection.send(plan)
            return self._connection.recv()
        except (EOFError, OSError):
            raise MachineError(f"the load client died with exit code {self._process.wait()}") from None
