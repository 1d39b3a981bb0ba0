"""Programs that a workload starts: without a shell, with a small environment, and with a known end."""

import fnmatch
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from autotuner.errors import AutotuneError, UnsupportedError

# What a program gets of our environment: nothing that could be a secret, and no proxy between server and client.
INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "TERM", "XDG_*",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "PYTHON*", "CONDA_PREFIX", "JAVA_HOME", "JAVA_TOOL_OPTIONS",
    "CUDA_*", "NVIDIA_*", "HIP_*", "ROCR_*", "NCCL_*", "GLOO_*", "OMP_*", "MKL_*", "OPENBLAS_*", "KMP_*", "GOMP_*",
    "TORCH*", "PYTORCH_*", "TRITON_*", "VLLM_*", "SGLANG_*", "GGML_*", "LLAMA_*", "MALLOC_*",
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_*", "TOKENIZERS_PARALLELISM",
)  # fmt: skip
_TAIL_LINES = 40
_PUMP_S = 0.5  # a stray that holds the pipe open must not hold us up
_MOST_LINES, _MOST_CHARACTERS = 10_000, 2**20  # of output that is searched for numbers
_OUT_OF_MEMORY = ("out of memory", "cannot allocate memory", "std::bad_alloc", "memoryerror", "failed to allocate")


class ProgramError(AutotuneError):
    """A program did not do what it was started for."""


def environment(inherit: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    """What a program sees: of ours what is on the list, and its own.

    Args:
        inherit: Further names, or patterns of them, besides `INHERITED`.
        own: Set on top.
    """
    allowed = (*INHERITED, *inherit)
    kept = {name: value for name, value in os.environ.items() if any(fnmatch.fnmatchcase(name, row) for row in allowed)}
    return {**kept, **own}


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write what a program reads.

    Raises:
        UnsupportedError: A name leads out of the folder.
    """
    for name, text in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise UnsupportedError(f"the file {name} does not lie in its folder", "give a name without ..")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class Program:
    """A running program and all processes below it; leaving the `with` ends them.

    Its output goes where this process' output goes, which is the trial's log; the last lines are kept.

    Args:
        argv: The program and its arguments, as they are.
        env: All that it sees of an environment.
        cwd: Where it runs.
        grace_s: From SIGTERM to SIGKILL.
        hears: Is told every line, on another thread.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | None,
        grace_s: float = 3.0,
        hears: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = Path(argv[0]).name
        self._grace_s, self._hears = grace_s, hears
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        try:
            self._process = subprocess.Popen(
                list(argv), env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, process_group=0,
            )  # fmt: skip
        except FileNotFoundError:
            where = argv[0] if cwd is None or cwd.is_dir() else str(cwd)
            raise UnsupportedError(f"there is no {where}", "is it installed, and on the PATH?") from None
        except PermissionError:
            raise UnsupportedError(f"{argv[0]} cannot be run: permission denied") from None
        self._pump = threading.Thread(target=self._drain, name="program-output", daemon=True)
        self._pump.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _drain(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode(errors="replace")
            self._tail.append(text.strip())
            self._hears(text)
            with suppress(OSError, ValueError):  # nobody reads the log any more; the program must not wait for it
                sys.stdout.write(text)
                sys.stdout.flush()

    @property
    def pids(self) -> list[int]:
        """Of the program and of all below it that live."""
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root.pid, *(child.pid for child in root.children(recursive=True))]
        return []

    @property
    def status(self) -> int:
        """Its exit code, or minus the signal that ended it; it has ended."""
        return self._process.wait()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait(self, limit_s: float) -> "resource.struct_rusage | None":
        """Wait for its end; what it and the children that it waited for have used, or None after the limit."""
        killer = threading.Timer(limit_s, self._process.kill)
        began_s = time.monotonic()
        killer.start()
        try:
            _, status, used = os.wait4(self._process.pid, 0)
        finally:
            killer.cancel()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return None if time.monotonic() - began_s >= limit_s else used

    def death(self) -> Exception:
        """Why it is no longer there, as an error: by its status and its last lines."""
        status = self._process.wait()
        self._pump.join(_PUMP_S)
        how = f"was killed by {_signal(-status)}" if status < 0 else f"left with exit code {status}"
        said = next((line for line in reversed(self._tail) if line), "")
        message = f"{self.name} {how}{f': {said[:200]}' if said else ''}"
        if any(text in line.lower() for line in self._tail for text in _OUT_OF_MEMORY):
            return MemoryError(message)
        return ProgramError(message)

    def stop(self) -> None:
        """SIGTERM to its group, and after the grace SIGKILL to whoever is left of its tree."""
        tree = [process for pid in self.pids if (process := _process(pid)) is not None]
        self._signal_group(signal.SIGTERM)
        _, living = psutil.wait_procs(tree, self._grace_s)
        for process in {*living, *(child for one in living for child in _children(one))}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._signal_group(signal.SIGKILL)  # who joined meanwhile
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace_s)
        self._pump.join(_PUMP_S)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has run to its end.

    Attributes:
        status: Its exit code, or minus the signal that killed it.
        duration_s: From its start, or from when it said that it was ready, to its end.
        cpu_s: Of itself and of the children that it waited for.
        peak_rss_bytes: The largest resident set among them.
        text: Its output, the last of it if it is long.
        error: What is wrong with it, should its status be no success.
    """

    status: int
    duration_s: float
    cpu_s: float
    peak_rss_bytes: int
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
        ready: A pattern; the time counts from the first line in which it is found.

    Raises:
        ProgramError: It took longer, or never said that it was ready.
    """
    lines: deque[str] = deque(maxlen=_MOST_LINES)
    said_s: list[float] = []
    wanted = re.compile(ready) if ready else None

    def hears(line: str) -> None:
        if wanted is not None and not said_s and wanted.search(line):
            said_s.append(time.perf_counter())
        lines.append(line[:_MOST_CHARACTERS])

    began_s = time.perf_counter()
    with Program(argv, env, cwd, grace_s=0.5, hears=hears) as program:
        used = program.wait(limit_s)
        ended_s = time.perf_counter()
        error = program.death()  # its output is complete now
    if used is None:
        raise ProgramError(f"{program.name} did not end within {limit_s:g} s: killed")
    if wanted is not None and not said_s:
        raise ProgramError(f"{program.name} never said {ready!r}: {error}")
    duration_s = ended_s - (said_s[0] if said_s else began_s)
    text = "".join(lines)[-_MOST_CHARACTERS:]
    return Finished(program.status, duration_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, text, error)


def _process(pid: int) -> psutil.Process | None:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def wait_until(deadline_s: float, pause_s: float) -> bool:
    """Sleep a little; False when the deadline, by the monotonic clock, has passed."""
    if time.monotonic() >= deadline_s:
        return False
    time.sleep(min(pause_s, max(0.0, deadline_s - time.monotonic())))
    return True
