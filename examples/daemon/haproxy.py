#!/usr/bin/env python3
"""The hook for a service behind HAProxy: weights through its runtime socket; no request fails while an arm changes.

An arm is drained before it is restarted, and gets requests again when HAProxy itself has found it up.
"""

import csv
import json
import socket

import arms

SOCKET = str(arms.HERE / "haproxy.sock")
BACKEND = "shop"
DRAIN_S = 20  # a request that takes longer than this is cut off


def ask(words: str) -> str:
    """What HAProxy answers on its socket (stats socket … level admin)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(SOCKET)
        connection.sendall(words.encode() + b"\n")
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    return answer.decode()


def rows() -> dict[str, dict[str, str]]:
    """What HAProxy knows of each arm: status, weight, requests on their way."""
    table = csv.DictReader(ask("show stat").removeprefix("# ").splitlines())
    found = {row["svname"]: row for row in table if row["pxname"] == BACKEND and row["svname"] in arms.PORTS}
    if len(found) != len(arms.PORTS):
        raise arms.RefusedError(f"HAProxy has no servers {', '.join(arms.PORTS)} in the backend {BACKEND}")
    return found


def weights(stable: int, candidate: int) -> None:
    """Give the arms their shares; who has none has no requests left afterwards."""
    wanted = {"stable": stable, "candidate": candidate}
    for arm in sorted(wanted, key=wanted.get, reverse=True):  # more comes first: never may both have none
        if wanted[arm]:
            arms.until(
                lambda arm=arm: rows()[arm]["status"].startswith("UP"), arms.START_S, f"HAProxy finds {arm} down"
            )
        if answer := ask(f"set weight {BACKEND}/{arm} {wanted[arm]}").strip():
            raise arms.RefusedError(f"HAProxy says: {answer}")
    for arm in wanted:
        if not wanted[arm]:
            arms.until(lambda arm=arm: is_idle(arm), DRAIN_S, f"{arm} is not drained")


def is_idle(arm: str) -> bool:
    """Whether HAProxy has no request on its way to it."""
    row = rows()[arm]
    return int(row["scur"]) + int(row["qcur"]) == 0


def apply(stable: str, stable_hash: str, candidate: str, candidate_hash: str, percent: str) -> None:
    """Put in place what is wanted."""
    arms.share(weights, stable, stable_hash, candidate, candidate_hash, percent)


def observe() -> None:
    """What runs, and the shares that HAProxy really gives."""
    found = {arm: int(row["weight"]) for arm, row in rows().items()}
    candidate = arms.running("candidate")
    percent = round(100 * found["candidate"] / max(1, sum(found.values()))) if candidate else 0
    print(json.dumps({"stable": arms.running("stable"), "candidate": candidate, "percent": percent}))


if __name__ == "__main__":
    arms.main(apply, observe)
