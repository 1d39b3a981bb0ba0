#!/usr/bin/env python3
"""The hook for a service in Kubernetes: two deployments behind one Service, shares by how many replicas each has.

The Service selects a label that the pods of both have. A bundle becomes a ConfigMap named by its hash, which never
changes; a deployment's pods take it by `envFrom`, so that another bundle is a rolling update: with a readinessProbe
no request fails. It is told whole each time, so it may be told again.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

KUBECTL = ["kubectl", "--namespace", "default"]
NAME = "shop"  # deployments shop-stable and shop-candidate
CONTAINER = "server"
FILE = "shop.docker.env"  # of the bundle: ConfigMaps take quotes for a part of the value, as docker does
REPLICAS = 10  # of both together: shares are in steps of 10 %; with a gateway, patch its weights instead
ROLLOUT = "50s"  # shorter than the hooks' deadline
TOKEN, BUNDLE, PERCENT = "autotune/token", "autotune/bundle", "autotune/percent"


class RefusedError(Exception):
    """Why nothing is done."""


def kubectl(*words: str, given: str | None = None) -> str:
    """What it prints; its complaint is an error."""
    done = subprocess.run([*KUBECTL, *words], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"kubectl {' '.join(words[:3])}: {done.stderr.strip()}")
    return done.stdout


def deployment(arm: str) -> dict[str, Any]:
    """As it is now."""
    return json.loads(kubectl("get", "deployment", f"{NAME}-{arm}", "--output", "json"))


def lead(token: str) -> None:
    """Refuse an older leader; what is read and written is one step, by the version that was read."""
    metadata = deployment("stable")["metadata"]
    newest = int(metadata.get("annotations", {}).get(TOKEN, 0))
    if int(token) < newest:
        raise RefusedError(f"token {token} is of an older leader: the newest is {newest}")
    told = {"resourceVersion": metadata["resourceVersion"], "annotations": {TOKEN: str(int(token))}}
    patch("stable", {"metadata": told})


def patch(arm: str, what: dict[str, Any]) -> None:
    """Change an arm's deployment."""
    kubectl("patch", "deployment", f"{NAME}-{arm}", "--type", "strategic", "--patch", json.dumps(what))


def bring(arm: str, folder: str, name: str, replicas: int, percent: str) -> None:
    """Let a deployment run a bundle with so many replicas, and wait until they do."""
    template: dict[str, Any] = {}
    if name:
        config = f"{NAME}-{name}"
        made = kubectl(
            "create",
            "configmap",
            config,
            f"--from-env-file={Path(folder) / FILE}",
            "--dry-run=client",
            "--output",
            "yaml",
        )
        kubectl("apply", "--filename", "-", given=made)
        container = {"name": CONTAINER, "envFrom": [{"configMapRef": {"name": config}}]}
        template = {"metadata": {"annotations": {BUNDLE: name}}, "spec": {"containers": [container]}}
    told = {"metadata": {"annotations": {PERCENT: str(percent)}}, "spec": {"replicas": replicas, "template": template}}
    patch(arm, told)
    kubectl("rollout", "status", f"deployment/{NAME}-{arm}", f"--timeout={ROLLOUT}")


def apply(stable: str, stable_hash: str, candidate: str, candidate_hash: str, percent: str) -> None:
    """Put in place what is wanted."""
    beside = REPLICAS * int(percent) // 100
    if beside * 100 != REPLICAS * int(percent):
        raise RefusedError(f"{percent} % of {REPLICAS} replicas is no whole number: change REPLICAS, or percents")
    steps = [("stable", stable, stable_hash, REPLICAS - beside), ("candidate", candidate, candidate_hash, beside)]
    if replicas("stable") > REPLICAS - beside:  # who gets more is first: never are there fewer than all
        steps.reverse()
    for arm, folder, name, count in steps:
        bring(arm, folder, name, count, percent)


def replicas(arm: str) -> int:
    """How many it is to have."""
    return deployment(arm)["spec"].get("replicas", 1)


def observe() -> None:
    """What is ready, and not only what was asked for."""
    found = {arm: deployment(arm) for arm in ("stable", "candidate")}
    ready = {arm: one.get("status", {}).get("readyReplicas", 0) for arm, one in found.items()}
    names = {
        arm: one["spec"]["template"]["metadata"].get("annotations", {}).get(BUNDLE, "") for arm, one in found.items()
    }
    percent = round(100 * ready["candidate"] / max(1, sum(ready.values())))
    candidate = names["candidate"] if ready["candidate"] else ""
    print(
        json.dumps({"stable": names["stable"] if ready["stable"] else "", "candidate": candidate, "percent": percent})
    )


def main() -> None:
    """`kubectl.py apply STABLE STABLE_HASH CANDIDATE CANDIDATE_HASH PERCENT TOKEN`, or `kubectl.py observe`."""
    try:
        match sys.argv[1:]:
            case ["apply", *words, token] if len(words) == 5:
                lead(token)
                apply(*words)
            case ["observe"]:
                observe()
            case _:
                raise RefusedError(f"apply with six words, or observe; got {sys.argv[1:]}")
    except (RefusedError, OSError) as error:
        sys.exit(f"kubectl.py: {error}")


if __name__ == "__main__":
    main()
