"""A worker's output, kept small: the beginning and the end of a flood."""

import os
from collections import deque
from pathlib import Path

from autotuner.errors import MachineError

CHUNK_BYTES = 65536


class CappedLog:
    """Drains a pipe into a file of at most `limit_bytes`: the first half as it comes, the last half when closed."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._room_bytes = 0
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._dropped_bytes = 0

    def open(self, path: Path | None, limit_bytes: int) -> None:
        """Send what comes now to `path`; None throws it away.

        Raises:
            MachineError: The folder cannot be written.
        """
        self._path, self._limit_bytes = path, limit_bytes
        self._room_bytes = limit_bytes // 2
        self._tail.clear()
        self._tail_bytes = self._dropped_bytes = 0
        if path is not None:
            self._write(path, b"", "wb")

    def drain(self, pipe: int) -> bool:
        """Take what is in the pipe now; False at its end."""
        for _ in range(64):  # a flood must not keep the caller from looking at the clock
            try:
                data = os.read(pipe, CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._keep(data)
        return True

    def _keep(self, data: bytes) -> None:
        if self._path is None:
            return
        head, rest = data[: self._room_bytes], data[self._room_bytes :]
        if head:
            self._room_bytes -= len(head)
            self._write(self._path, head, "ab")
        if rest:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
            while self._tail_bytes - len(self._tail[0]) > self._limit_bytes // 2:
                lost = len(self._tail.popleft())
                self._tail_bytes -= lost
                self._dropped_bytes += lost

    def close(self) -> None:
        """Write the end of a flood, and how much is missing before it."""
        if self._path is not None and self._tail:
            if self._dropped_bytes:
                self._write(self._path, f"\n[… {self._dropped_bytes} bytes left out …]\n".encode(), "ab")
            self._write(self._path, b"".join(self._tail), "ab")
        self._tail.clear()
        self._tail_bytes = 0

    @staticmethod
    def _write(path: Path, data: bytes, mode: str) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open(mode) as file:
                file.write(data)
        except OSError as error:
            raise MachineError(
                f"cannot write {path}: {error.strerror}", "free some space or choose another --db"
            ) from None
