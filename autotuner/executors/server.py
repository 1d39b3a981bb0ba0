"""The parent's end of the fork server: asks it for workers, and replaces it when it died or does not answer."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from autotuner.errors import MachineError

logger = logging.getLogger(__name__)

START_LIMIT_S = 600.0  # it imports torch, perhaps from a cold network disk
REPLY_LIMIT_S = 60.0  # longer than it waits for any worker's end
CLOSE_GRACE_S = 5.0


class ForkServer:
    """Forks and ends workers; whatever happens to the server, both calls return.

    It stays in the working directory and the environment in which it was made: a server that replaces another one must
    find the same code.
    """

    def __init__(self, preload: tuple[str, ...]) -> None:
        self._preload = preload
        self._folder, self._environment = Path.cwd(), dict(os.environ)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `stop`, lives as long as this
        self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", "autotuner.executors.forkserver", str(theirs.fileno()), *self._preload]
        self._process = subprocess.Popen(
            argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors,
            start_new_session=True, cwd=self._folder, env=self._environment,
        )  # fmt: skip
        theirs.close()
        self._ready = False
        self._workers: set[int] = set()

    def fork(self, job_socket: socket.socket, output: int, channels: Sequence[socket.socket] = ()) -> int:
        """Fork a worker; returns its process id.

        Args:
            job_socket: Over which it talks.
            output: Where it writes to.
            channels: To the other ranks of its group.

        Raises:
            MachineError: The server cannot start.
        """
        for attempt in (1, 2):
            try:
                self._await_ready()
                descriptors = [job_socket.fileno(), output, *(channel.fileno() for channel in channels)]
                socket.send_fds(self._control, [b'{"op": "fork"}'], descriptors)
                pid = int(self._receive()["pid"])
            except (OSError, EOFError):  # it died, or it is stuck: a TimeoutError is an OSError
                self._give_up()
                if attempt == 2:
                    raise MachineError("the worker server does not start", self._last_error()) from None
                self._start()
            else:
                self._workers.add(pid)
                return pid
        raise AssertionError

    def end(self, pid: int, grace_s: float) -> int | None:
        """End a worker and all that it started.

        Returns:
            Its exit code, minus its signal, or None when the server died or is stuck, or cannot end the worker.
        """
        if pid not in self._workers:  # it went with an earlier server
            return None
        try:
            self._control.send(json.dumps({"op": "end", "pid": pid, "grace_s": grace_s}).encode())
            status: int | None = self._receive()["status"]
        except (OSError, EOFError):
            self._give_up()
            self._start()
            return None
        self._workers.discard(pid)
        if status is None:
            logger.warning("process %d cannot be killed: the kernel holds it, and with it what it uses", pid)
        return status

    def _await_ready(self) -> None:
        if not self._ready:
            self._receive(START_LIMIT_S)
            self._ready = True

    def _receive(self, limit_s: float | None = None) -> dict[str, Any]:
        self._control.settimeout(limit_s or REPLY_LIMIT_S)
        message = self._control.recv(4096)
        if not message:
            raise EOFError
        return dict(json.loads(message))

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.poll()}"

    def _give_up(self) -> None:
        """End a server that died or is stuck, and the workers that it no longer ends itself."""
        self._stop()
        for pid in self._workers:
            _kill_session(pid)
        self._workers.clear()

    def _stop(self) -> None:
        self._control.close()  # the server kills its workers and leaves
        if not self._ready:  # it has no workers yet, and would go on importing
            self._process.kill()
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
