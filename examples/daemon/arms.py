"""Two processes of a service, one an arm: what the hooks of this folder have in common.

`stable` serves; `candidate` is there while something is tried. Copy this file beside the hook that you take and change
the five lines below. With systemd, start and stop units instead, and let `running` say which bundle a unit has.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
PORTS = {"stable": 8001, "candidate": 8002}
COMMAND = [sys.executable, str(HERE / "server.py"), "--port", "{port}"]
FILE = "shop.env"  # of the bundle: SERVICE.env
STATE = HERE / "state"  # on the machine that serves, and kept over a reboot
START_S, STOP_S = 20, 10  # the hooks' deadline in the daemon's file must be longer than both, and the draining

# The number is written down before the program exists, so that a hook that is killed here leaves nothing unknown.
START = 'echo $$ > "$1.new" && mv "$1.new" "$1"; set -a; . "$2"; set +a; shift 2; exec "$@"'


class RefusedError(Exception):
    """Why a hook does not do what it is told; its text is what the daemon tells its people."""


@contextmanager
def leading(token: str) -> Iterator[None]:
    """One hook at a time, and none of a daemon that leads no more: `token` grows with every new leader."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # is free again when this process ends, however that is
        file = STATE / "token"
        newest = int(file.read_text()) if file.exists() else 0
        if int(token) < newest:
            raise RefusedError(f"token {token} is of an older leader: the newest is {newest}")
        new = file.with_suffix(".new")
        new.write_text(str(int(token)))
        new.replace(file)
        yield


def running(arm: str) -> str:
    """The hash of the bundle that an arm's process was started with; empty when there is no process.

    The process itself is asked, by its environment: a file would still say it after a crash or a reboot.
    """
    return seen(arm)[1]


def seen(arm: str) -> tuple[int, str]:
    """(number, hash) of the arm's process."""
    try:
        pid = int((STATE / f"{arm}.pid").read_text())
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0, ""
    said = dict(line.split(b"=", 1) for line in environment if b"=" in line)
    if said.get(b"SERVICE_ARM") != str(STATE / arm).encode():  # the number belongs to another program by now
        return 0, ""
    return pid, said.get(b"SERVICE_BUNDLE", b"").decode()


def is_up(arm: str) -> bool:
    """Whether it answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[arm]}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def replace(arm: str, folder: str, name: str) -> None:
    """Stop what an arm runs, start the bundle in `folder` there, and wait until it answers. Nobody may be using it."""
    stop(arm)
    file = Path(folder) / FILE
    if not file.is_file():
        raise RefusedError(f"there is no {file}: FILE in {__file__} is another")
    program = [word.format(port=PORTS[arm]) for word in COMMAND]
    with (STATE / f"{arm}.log").open("ab") as log:
        subprocess.Popen(
            ["sh", "-c", START, "start", str(STATE / f"{arm}.pid"), str(file), *program],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,  # a hook ends when nobody holds its output any more
            start_new_session=True,  # what stays in the hook's group may die with it
            env={**os.environ, "SERVICE_ARM": str(STATE / arm), "SERVICE_BUNDLE": name},
        )  # fmt: skip
    await_up(arm)


def serves(arm: str, name: str) -> bool:
    """Whether it answers with this bundle; with no name, whether nothing runs. One that hangs does not serve."""
    if running(arm) != name:
        return False
    try:
        if name:
            await_up(arm)
        return True
    except RefusedError:
        return False


def await_up(arm: str) -> None:
    """Until it answers; a process that an earlier hook has started may still be on its way."""
    until(lambda: is_up(arm) and running(arm), START_S, f"{arm} does not answer: see {STATE / arm}.log")


def stop(arm: str) -> None:
    """End the arm's process, and be sure that it has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid, _ = seen(arm)
        if not pid:
            return
        os.kill(pid, number)
        try:
            until(lambda: not seen(arm)[0], STOP_S, f"{arm} does not end")
            return
        except RefusedError:
            if number == signal.SIGKILL:
                raise


def until(condition: Callable[[], object], limit_s: float, complaint: str) -> None:
    """Ask again and again."""
    ends_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > ends_s:
            raise RefusedError(complaint)
        time.sleep(0.02)


def share(
    weights: Callable[[int, int], None],
    stable: str,
    stable_hash: str,
    candidate: str,
    candidate_hash: str,
    percent: str,
) -> None:
    """Bring both arms to what is wanted, while at every moment somebody serves who is up.

    Each step looks at what is there and not at what was done, so it may be killed anywhere and called again with the
    same words or with others.

    Args:
        weights: Gives the arms their shares, `weights(stable, candidate)` of 100, and returns when no request is left
            on an arm that has none.
        stable: Folder of the bundle that serves.
        stable_hash: Its name.
        candidate: Folder of the one beside it; empty for none.
        candidate_hash: Its name.
        percent: Share of the candidate.
    """
    if not serves("stable", stable_hash):
        if is_up("stable") and not serves("candidate", stable_hash):  # the other arm has to stand in for this one
            weights(100, 0)
            replace("candidate", stable, stable_hash)
        if is_up("candidate"):
            weights(0, 100)
        replace("stable", stable, stable_hash)
    if not serves("candidate", candidate_hash):
        weights(100, 0)
        if candidate:
            replace("candidate", candidate, candidate_hash)
        else:
            stop("candidate")
    weights(100 - int(percent), int(percent))


def main(apply: Callable[..., None], observe: Callable[[], None]) -> None:
    """`HOOK apply STABLE STABLE_HASH CANDIDATE CANDIDATE_HASH PERCENT TOKEN`, or `HOOK observe`."""
    try:
        match sys.argv[1:]:
            case ["apply", *words, token] if len(words) == 5:
                with leading(token):
                    apply(*words)
            case ["observe"]:
                observe()
            case _:
                raise RefusedError(f"{sys.argv[0]}: apply with six words, or observe; got {sys.argv[1:]}")
    except (RefusedError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
