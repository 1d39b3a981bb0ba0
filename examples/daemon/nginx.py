#!/usr/bin/env python3
"""The hook for a service behind nginx: shares in a small file that its configuration includes, and a reload.

A reload loses no request: the old workers end what they have begun. An arm is restarted when they are gone.
"""

import json
import subprocess
import urllib.request
from pathlib import Path

import arms

NGINX = ["nginx", "-p", str(arms.HERE), "-c", "nginx.conf", "-e", "nginx.log"]
FILE = arms.HERE / "arms.conf"  # nginx.conf includes it
PID = arms.HERE / "nginx.pid"
SHARES = "http://127.0.0.1:8404/shares"  # what nginx has loaded: the file may say already what it does not know yet
DRAIN_S = 35  # longer than worker_shutdown_timeout


def weights(stable: int, candidate: int) -> None:
    """Give the arms their shares of 100; no request of the earlier shares is left afterwards."""
    arm = {0: "* stable;", 100: "* candidate;"}.get(candidate, f"{candidate}% candidate; * stable;")
    new = FILE.with_suffix(".new")
    new.write_text(
        f'split_clients "$request_id" $arm {{ {arm} }}\nmap "" $shares {{ default "{stable} {candidate}"; }}\n'
    )
    new.replace(FILE)
    nginx("-t", "-q")  # a file with a mistake would leave the old shares, and nobody would be told
    old = workers()
    nginx("-s", "reload")
    arms.until(lambda: not old & workers(), DRAIN_S, "nginx' old workers do not end")
    arms.until(lambda: shares() == (stable, candidate), arms.START_S, f"nginx has other shares: {shares()}")


def nginx(*words: str) -> None:
    """Its own program; what it complains of is an error."""
    done = subprocess.run([*NGINX, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise arms.RefusedError(f"nginx {' '.join(words)}: {done.stdout}")


def workers() -> set[str]:
    """Numbers of the processes whose parent is nginx' first one."""
    master, found = PID.read_text().strip(), set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        if parent == master and state != "Z":
            found.add(stat.parent.name)
    return found


def shares() -> tuple[int, int]:
    """(stable, candidate) as nginx has them."""
    with urllib.request.urlopen(SHARES, timeout=5) as answer:
        stable, candidate = answer.read().split()
    return int(stable), int(candidate)


def apply(stable: str, stable_hash: str, candidate: str, candidate_hash: str, percent: str) -> None:
    """Put in place what is wanted."""
    arms.share(weights, stable, stable_hash, candidate, candidate_hash, percent)


def observe() -> None:
    """What runs, and the shares that nginx really gives."""
    candidate = arms.running("candidate")
    percent = shares()[1] if candidate else 0
    print(json.dumps({"stable": arms.running("stable"), "candidate": candidate, "percent": percent}))


if __name__ == "__main__":
    arms.main(apply, observe)
