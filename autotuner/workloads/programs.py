"""Programs that a workload starts: without a shell, with a small environment, and with a known end."""

import fnmatch
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from autotuner.errors import AutotuneError, UnsupportedError, UsageError

# What a program gets of our environment: nothing that could be a secret, and no proxy between server and client.
INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "TERM", "XDG_*",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "PYTHON*", "CONDA_PREFIX", "JAVA_HOME", "JAVA_TOOL_OPTIONS",
    "CUDA_*", "NVIDIA_*", "HIP_*", "ROCR_*", "NCCL_*", "GLOO_*", "OMP_*", "MKL_*", "OPENBLAS_*", "KMP_*", "GOMP_*",
    "TORCH*", "PYTORCH_*", "TRITON_*", "VLLM_*", "SGLANG_*", "GGML_*", "LLAMA_*", "MALLOC_*",
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_*", "TOKENIZERS_PARALLELISM",
)  # fmt: skip
_SECRETS = ("*KEY*", "*TOKEN*", "*SECRET*", "*PASSWORD*", "*CREDENTIAL*")  # whatever else a name says
_NO_SECRET = "TOKENIZERS_PARALLELISM"
_TAIL_LINES = 40
_LONGEST_NAME = 1000
_PUMP_S = 0.5
_OUT_OF_MEMORY = (
    "out of memory", "cannot allocate memory", "std::bad_alloc", "memoryerror", "failed to allocate",
    "less than desired gpu memory utilization", "not enough memory", "insufficient memory",
)  # fmt: skip


class ProgramError(AutotuneError):
    """A program did not do what it was started for."""


def check_program(argv: Sequence[object], cwd: Path | None) -> None:
    """Whether what is to be started is there, as far as that is known before anything is filled in.

    Raises:
        UsageError: The program, or the script that our Python is to run, is not.
    """
    folder, (program, script) = cwd or Path(), [*argv, ""][:2]
    if isinstance(program, str) and "{" not in program:
        found = shutil.which(str(folder / program) if "/" in program else program)
        if found is None:
            raise UsageError(f"workload.argv: there is no program {program}", "install it, or write its path")
    is_script = program == "{python}" and isinstance(script, str) and script.endswith(".py") and "{" not in script
    if is_script and not (folder / str(script)).is_file():
        raise UsageError(f"workload.argv: there is no file {script}", f"looked in {folder.resolve()}")


def code_of(command_lines: Sequence[Sequence[object]], cwd: Path | None) -> list[Path]:
    """The words that are files, seen from where the programs run; that folder where no word is one."""
    folder = (cwd or Path()).resolve()
    words = [word for words in command_lines for word in words if isinstance(word, str) and "{" not in word]
    return [folder / word for word in words if len(word) < _LONGEST_NAME and (folder / word).is_file()] or [folder]


def environment(inherit: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    """What a program sees: of ours what is on the list, and its own.

    Args:
        inherit: Further names, or patterns of them, besides `INHERITED`.
        own: Set on top.
    """

    def matches(name: str, rows: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, row) for row in rows)

    kept = {
        name: value for name, value in os.environ.items()
        if matches(name, inherit) or (matches(name, INHERITED) and not (matches(name, _SECRETS) and name != _NO_SECRET))
    }  # fmt: skip
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
        hears: Is told every line, and whether it came from stdout; on other threads.
        by_line: Its stdout is a terminal, so that each line comes when it is said: into a pipe most programs write when
            a buffer is full, or when they end.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | None,
        grace_s: float = 3.0,
        hears: Callable[[str, bool], None] = lambda line, from_stdout: None,
        *,
        by_line: bool = False,
    ) -> None:
        self.name = Path(argv[0]).name
        self._grace_s, self._hears = grace_s, hears
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._killed, self._kernels_kills = False, _out_of_memory_kills()
        ours, theirs = _terminal() if by_line else os.pipe()
        stdout = os.fdopen(ours, "rb")
        try:
            self._process = subprocess.Popen(
                list(argv), env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE,
                process_group=0,
            )  # fmt: skip
        except OSError as error:
            stdout.close()
            raise _cannot_start(argv[0], cwd, error) from None
        finally:
            os.close(theirs)
        assert self._process.stderr is not None
        self._pumps = [
            threading.Thread(target=self._drain, args=(stream, from_stdout), name="program-output", daemon=True)
            for stream, from_stdout in ((stdout, True), (self._process.stderr, False))
        ]
        for pump in self._pumps:
            pump.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _drain(self, stream: IO[bytes], from_stdout: bool) -> None:
        with stream, suppress(OSError):  # so a terminal says that nobody is there any more
            for line in stream:
                text = line.decode(errors="replace")
                self._tail.append(text.strip())
                self._hears(text, from_stdout)
                with suppress(OSError, ValueError):  # nobody reads the log any more; the program must not wait for it
                    sys.stdout.write(text)
                    sys.stdout.flush()

    def _heard_all(self) -> None:
        """Wait for the end of its output; a stray that holds it open must not hold us up."""
        until_s = time.monotonic() + _PUMP_S
        for pump in self._pumps:
            pump.join(max(0.0, until_s - time.monotonic()))

    @property
    def pid(self) -> int:
        """Of the program itself."""
        return self._process.pid

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
        killer = threading.Timer(limit_s, self._kill)
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
        self._heard_all()
        how = f"was killed by {_signal(-status)}" if status < 0 else f"left with exit code {status}"
        said = next((line for line in reversed(self._tail) if line), "")
        message = f"{self.name} {how}{f': {said[:200]}' if said else ''}"
        starved = status == -signal.SIGKILL and not self._killed and _out_of_memory_kills() > self._kernels_kills
        if starved or any(text in line.lower() for line in self._tail for text in _OUT_OF_MEMORY):
            return MemoryError(f"{message}, by the kernel, for memory ran out" if starved else message)
        return ProgramError(message)

    def _kill(self) -> None:
        self._killed = True
        self._process.kill()

    def stop(self) -> None:
        """SIGTERM to its group, and after the grace SIGKILL to whoever is left of its tree."""
        self._killed = True
        tree = [process for pid in self.pids if (process := _process(pid)) is not None]
        self._signal_group(signal.SIGTERM)
        _, living = psutil.wait_procs(tree, self._grace_s)
        for process in {*living, *(child for one in living for child in _children(one))}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._signal_group(signal.SIGKILL)  # who joined meanwhile
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace_s)
        self._heard_all()

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _cannot_start(program: str, cwd: Path | None, error: OSError) -> UnsupportedError:
    if isinstance(error, FileNotFoundError):
        where = program if cwd is None or cwd.is_dir() else str(cwd)
        return UnsupportedError(f"there is no {where}", "is it installed, and on the PATH?")
    return UnsupportedError(f"{program} cannot be run: {(error.strerror or str(error)).lower()}")


def _terminal() -> tuple[int, int]:
    """Both ends of a terminal that changes nothing of what is written."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    return ours, theirs


def _out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory, since boot."""
    with suppress(OSError), Path("/proc/vmstat").open() as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    return 0


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
