"""Runs a program to its end: how long it took, what it used, what it said, and nothing left of it."""

import ctypes
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from autotuner.workloads.programs import Program, ProgramError

_MOST_LINES, _MOST_CHARACTERS = 10_000, 2**20  # of output that is searched for numbers
_WATCH_S = 0.02
_GONE_S = 5.0
_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has run to its end.

    Attributes:
        status: Its exit code, or minus the signal that killed it.
        duration_s: From its start, or from when it said that it was ready, to its end.
        cpu_s: Of itself and of the children that it waited for.
        peak_rss_bytes: Largest sum of the resident sets of itself and all below it, as seen every 20 ms: each with the
            most that it ever had. NaN if it ended before anybody could look.
        stdout: What it said there, the last of it if it is long.
        text: That and its stderr, as they came.
        error: What is wrong with it, should its status be no success.
    """

    status: int
    duration_s: float
    cpu_s: float
    peak_rss_bytes: float
    stdout: str
    text: str
    error: Exception


def finish(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path | None, limit_s: float, ready: str | None = None
) -> Finished:
    """Run a program to its end.

    Args:
        argv: As for `Program`.
        env: Likewise.
        cwd: Likewise.
        limit_s: After it the program and all below it are killed.
        ready: A pattern; time counts from the first line of its stdout, which is a terminal then, that has it.

    Raises:
        ProgramError: It took longer, or never said that it was ready.
    """
    heard: deque[tuple[str, bool]] = deque(maxlen=_MOST_LINES)
    said_s: list[float] = []
    wanted = re.compile(ready) if ready else None

    def hears(line: str, from_stdout: bool) -> None:
        if wanted is not None and from_stdout and not said_s and wanted.search(line):
            said_s.append(time.perf_counter())
        heard.append((line[:_MOST_CHARACTERS], from_stdout))

    with _nothing_left():
        began_s = time.perf_counter()
        with (
            Program(argv, env, cwd, grace_s=0.5, hears=hears, by_line=ready is not None) as program,
            _watched(program.pid) as peaks,
        ):
            used = program.wait(limit_s)
            ended_s = time.perf_counter()
            error = program.death()  # its output is complete now
    if used is None:
        raise ProgramError(f"{program.name} did not end within {limit_s:g} s: killed")
    if wanted is not None and not said_s:
        raise ProgramError(f"{program.name} never said {ready!r} on its stdout: {error}")
    duration_s, cpu_s = ended_s - (said_s[0] if said_s else began_s), used.ru_utime + used.ru_stime
    stdout, text = ("".join(line for line, out in heard if out or both)[-_MOST_CHARACTERS:] for both in (False, True))
    return Finished(program.status, duration_s, cpu_s, max(peaks, default=float("nan")), stdout, text, error)


@contextmanager
def _watched(pid: int) -> Iterator[Sequence[float]]:
    """Resident bytes of a process and all below it, again and again.

    The kernel's own account at its end, ru_maxrss, would not do: it begins with what the process that started it had.
    """
    peaks: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while True:
            if seen := sum(_most_resident_bytes(each) for each in _tree(pid)):
                peaks.append(seen)
            if over.wait(_WATCH_S):
                return

    thread = threading.Thread(target=watch, name="program-memory", daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def _tree(pid: int) -> Iterator[int]:
    yield pid
    found: list[str] = []
    with suppress(OSError):  # it may end while we look
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += children.read_text().split()
    for child in found:
        yield from _tree(int(child))


def _most_resident_bytes(pid: int) -> float:
    with suppress(OSError), Path(f"/proc/{pid}/status").open() as file:
        return next((1024.0 * int(line.split()[1]) for line in file if line.startswith("VmHWM:")), 0.0)
    return 0.0


@contextmanager
def _nothing_left() -> Iterator[None]:
    """What a program started and left behind comes to this process, and is killed: it would disturb the next run."""
    libc, before = ctypes.CDLL(None), ctypes.c_int()
    libc.prctl(_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    ours = {child.pid for child in psutil.Process().children()}
    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        while strays := [child for child in psutil.Process().children() if child.pid not in ours]:
            for stray in strays:
                with suppress(psutil.NoSuchProcess):
                    stray.kill()
            psutil.wait_procs(strays, _GONE_S)
            ours |= {stray.pid for stray in strays if stray.is_running()}  # in the kernel's hands: it will go
        libc.prctl(_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)
