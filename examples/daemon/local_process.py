#!/usr/bin/env python3
"""The hook for one process on this machine: it is restarted with a bundle's .env file; no proxy stands before it.

What is tried runs beside it on a port of its own and gets no users: under `load:` the daemon's own client asks both.
While the stable process is restarted, nobody answers: where that must not be, take haproxy.py or nginx.py.
"""

import json

import arms

SHARE = arms.STATE / "percent"  # only remembered: there is nobody whose requests could be shared


def apply(stable: str, stable_hash: str, candidate: str, candidate_hash: str, percent: str) -> None:
    """Put in place what is wanted."""
    for arm, folder, name in (("stable", stable, stable_hash), ("candidate", candidate, candidate_hash)):
        if not name:
            arms.stop(arm)
        elif not arms.serves(arm, name):
            arms.replace(arm, folder, name)
    new = SHARE.with_suffix(".new")
    new.write_text(percent)
    new.replace(SHARE)


def observe() -> None:
    """What runs."""
    candidate = arms.running("candidate")
    percent = int(SHARE.read_text()) if candidate and SHARE.exists() else 0
    print(json.dumps({"stable": arms.running("stable"), "candidate": candidate, "percent": percent}))


if __name__ == "__main__":
    arms.main(apply, observe)
