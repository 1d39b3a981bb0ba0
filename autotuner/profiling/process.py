"""One process tree with a time limit, its output capped in a file, and gone when this returns."""

import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from autotuner.errors import MachineError
from autotuner.executors.log import CappedLog
from autotuner.monitor import host

OUTPUT_LIMIT_BYTES = 2**20
_LOOK_S = 0.2


def run(name: str, argv: Sequence[str], log: Path, limit_s: float, stdout: Path | None = None) -> int:
    """Run a command to its end and return its exit code, or minus its signal.

    Args:
        name: What it is called in messages.
        argv: The command; no shell.
        log: Takes what it prints, the beginning and the end of a flood.
        limit_s: It is killed after it.
        stdout: Takes standard output apart from the log, whole.

    Raises:
        MachineError: It took longer, or cannot be started.
    """
    if stdout is None:
        return _run(name, argv, log, limit_s, None)
    with stdout.open("wb") as file:
        return _run(name, argv, log, limit_s, file.fileno())


def ending(code: int, log: Path) -> str:
    """How a process ended that should not have: its signal, the exception in its last words, or its exit code."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return (
        lines[-1][:300]
        if lines and re.match(r"[\w.]*(Error|Exception|Interrupt)\b", lines[-1])
        else f"exit code {code}"
    )


def _run(name: str, argv: Sequence[str], log: Path, limit_s: float, stdout: int | None) -> int:
    output = CappedLog()
    output.open(log, OUTPUT_LIMIT_BYTES)
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    process: subprocess.Popen[bytes] | None = None
    try:
        try:
            with _uninterrupted():
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=write_end if stdout is None else stdout, stderr=write_end,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise MachineError(f"{name} cannot be started: {error.strerror}") from None
        finally:
            os.close(write_end)
        ended = _watch(process, read_end, output, time.monotonic() + limit_s)
    finally:
        if process is not None:
            _end(process)
        output.drain(read_end)
        os.close(read_end)
        output.close()
    if not ended:
        raise MachineError(f"{name} gave no result within {limit_s:g} s and was killed", f"its output is in {log}")
    return process.returncode


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the end: an interrupted `Popen` forgets a child that lives."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    arrived: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, keep) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def _watch(process: "subprocess.Popen[bytes]", output: int, log: CappedLog, deadline_s: float) -> bool:
    """Keep what it prints until it ends; False when the time is up. Its pipe may outlive it in a grandchild."""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while process.poll() is None:
            if time.monotonic() > deadline_s:
                return False
            if selector.get_map():
                for key, _ in selector.select(_LOOK_S):
                    if not log.drain(key.fd):
                        selector.unregister(key.fd)
            else:
                time.sleep(_LOOK_S)
    return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of the tree: its session, and what has left the session but not its parent."""
    strays = host.descendants(process.pid)
    with suppress(ProcessLookupError, PermissionError):  # its session still has its number, ended or not
        os.killpg(process.pid, signal.SIGKILL)
    for pid in strays:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
