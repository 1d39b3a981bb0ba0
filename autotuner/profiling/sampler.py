"""py-spy beside the running steps: which Python line the host and its workers are at."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PTRACER = 0x59616D61
_MISSING = "no flame graph: py-spy is not installed (pip install 'autotune-loop[profile]')"
_LATE_S = 30.0


def find() -> str | None:
    """The program: beside this interpreter, or on the path."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.is_file() else shutil.which("py-spy")


def allow_tracing() -> None:
    """Let any process of this user look into this one: Yama would only let its ancestors (`ptrace_scope` 1)."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)


def sample(run: Callable[[], object], duration_s: float, rate_per_s: float, path: Path, ignored: set[int]) -> str:
    """Sample this process and those that it has started while `run` is called again and again.

    Args:
        run: One step.
        duration_s: How long to sample.
        rate_per_s: How often.
        path: Where the collapsed stacks go.
        ignored: Takes the sampler's own process id.

    Returns:
        Empty, or why there are no samples, for a person.
    """
    program = find()
    if program is None:
        return _MISSING
    allow_tracing()
    # --idle: what waits is what starves a GPU; --nonblocking: never stop the process that is being looked at
    argv = [
        program, "record", "--pid", str(os.getpid()), "--duration", str(max(1, round(duration_s))), "--rate",
        str(round(rate_per_s)), "--format", "raw", "--output", str(path), "--subprocesses", "--threads", "--idle",
        "--nonblocking",
    ]  # fmt: skip
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as spy:
        ignored.add(spy.pid)
        while spy.poll() is None:
            run()
        assert spy.stderr is not None
        words = spy.stderr.read().decode(errors="replace")
    if spy.returncode == 0 and path.is_file() and path.stat().st_size:
        return ""
    return f"no flame graph: {_reason(words)}"


def _reason(words: str) -> str:
    """py-spy's complaint in one line; it is nearly always the permission to look into another process."""
    if "ermission" in words or "EPERM" in words or "not permitted" in words:
        return "py-spy may not look into processes here (in a container: --cap-add SYS_PTRACE)"
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return f"py-spy failed: {lines[-1][:120]}" if lines else "py-spy saw nothing"
