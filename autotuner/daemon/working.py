"""Studies and profiles run in a process of their own: a daemon that lives for months imports no torch, keeps no memory
of them, and survives them.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from autotuner.errors import AutotuneError, MachineError

_LOOK_S = 0.5
_SET_PDEATHSIG = 1  # linux/prctl.h


def work(request: Mapping[str, Any], log: Path, stop: Callable[[], bool]) -> Mapping[str, Any] | None:
    """Have it done, and wait.

    Args:
        request: What `_do` is given.
        log: Where everything goes that it prints; is overwritten.
        stop: Asked twice a second; then it is killed, which a study survives.

    Returns:
        What it found; None when it was stopped.

    Raises:
        MachineError: It failed, or died.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "autotuner.daemon.working", str(os.getpid())], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=output, text=True, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise MachineError(f"its process cannot be started: {error.strerror or error}", f"see {log}") from error
    try:
        said = _answer(process, json.dumps(dict(request)), stop)
        if said is None:
            return None
        answer = json.loads(said or "{}")
    except ValueError:
        answer = {}
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what it did not read cannot be flushed
                pipe.close()  # type: ignore[union-attr]  # both are pipes
    if process.returncode or "error" in answer:
        raise MachineError(str(answer.get("error", f"its process ended with {process.returncode}")), f"see {log}")
    return dict(answer)


def _answer(process: "subprocess.Popen[str]", request: str, stop: Callable[[], bool]) -> str | None:
    """All that it prints until it ends, read meanwhile: it would wait for ever at a full pipe. None when stopped."""
    asked: str | None = request
    while True:
        try:
            return process.communicate(asked, _LOOK_S)[0]
        except subprocess.TimeoutExpired:
            asked = None  # is on its way
            if stop():
                return None


def _main() -> None:
    """Answer on stdout, and print on stderr only; die with who has asked."""
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):  # it died before the line above
        return
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = _do(json.load(sys.stdin))
    except AutotuneError as error:
        answer = {"error": f"{error.message}{f' ({error.hint})' if error.hint else ''}"}
    with os.fdopen(answers, "w") as pipe:
        json.dump(answer, pipe)


def _do(request: Mapping[str, Any]) -> dict[str, Any]:
    """Do what is asked: `{"do": "start" | "resume" | "profile", …}`."""
    from autotuner import api, profiling

    match request["do"]:
        case "start":
            api.start(Path(request["file"]), overrides=request["overrides"], name=request["name"], db=request["db"])
            return {}
        case "resume":
            api.resume(request["name"], db=request["db"], most_s=request["most_s"])
            return {}
        case _:
            spec = api.read_spec(Path(request["file"]), ())
            found = profiling.profile(spec, request["config"], Path(request["folder"]))
            return {"page": found.files["page"], "findings": [f"{one.title}: {one.evidence}" for one in found.patterns]}


if __name__ == "__main__":
    _main()
