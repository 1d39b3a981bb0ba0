#!/usr/bin/env python3
"""The hook for a service in Kubernetes: two deployments behind one Service, shares by how many replicas each has.

The Service selects a label that the pods of both have. A bundle becomes a ConfigMap named by its hash, which never
changes; a deployment's pods take it by `envFrom`, so that another bundle is a rolling update: with a readinessProbe
no request fails. One that neither deployment names is deleted. It is told whole each time, so it may be told again.
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
ARMS = ("stable", "candidate")
TOKEN, BUNDLE, PERCENT = "autotune/token", "autotune/bundle", "autotune/percent"
OURS = "autotune/service"  # a label of the ConfigMaps: only those are deleted
CHANGED, TRIES = "the object has been modified", 10  # the cluster counts its pods there, too, and we try again


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


def patch(arm: str, token: str, annotations: dict[str, str], **more: Any) -> None:
    """Change an arm's deployment, unless a newer leader did: by the version, what is read and written is one step."""
    for attempt in range(1, TRIES + 1):
        metadata = deployment(arm)["metadata"]
        newest = int(metadata.get("annotations", {}).get(TOKEN, 0))
        if int(token) < newest:
            raise RefusedError(f"token {token} is of an older leader: the newest is {newest}")
        version, noted = metadata["resourceVersion"], {**annotations, TOKEN: str(int(token))}
        what = json.dumps({"metadata": {"resourceVersion": version, "annotations": noted}, **more})
        try:
            kubectl("patch", "deployment", f"{NAME}-{arm}", "--type", "strategic", "--patch", what)
            return
        except RefusedError as error:
            if CHANGED not in str(error) or attempt == TRIES:
                raise


def lead(token: str) -> None:
    """Refuse an older leader; from here on each of its patches is refused, too."""
    for arm in ARMS:
        patch(arm, token, {})


def config(name: str, folder: str) -> str:
    """Bring a bundle to the cluster; the name of its ConfigMap."""
    named = f"{NAME}-{name}"
    file = f"--from-env-file={Path(folder) / FILE}"
    made = json.loads(kubectl("create", "configmap", named, file, "--dry-run=client", "--output", "json"))
    made["metadata"]["labels"] = {OURS: NAME}
    kubectl("apply", "--filename", "-", given=json.dumps(made))
    return named


def bring(arm: str, token: str, folder: str, name: str, replicas: int, percent: str) -> None:
    """Let a deployment run a bundle with so many replicas, and wait until they do."""
    template: dict[str, Any] = {}
    if name:
        container = {"name": CONTAINER, "envFrom": [{"configMapRef": {"name": config(name, folder)}}]}
        template = {"metadata": {"annotations": {BUNDLE: name}}, "spec": {"containers": [container]}}
    patch(arm, token, {PERCENT: str(percent)}, spec={"replicas": replicas, "template": template})
    kubectl("rollout", "status", f"deployment/{NAME}-{arm}", f"--timeout={ROLLOUT}")


def clean(token: str) -> None:
    """Delete the ConfigMaps that neither arm names: those from before we looked that we lead still.

    Should a newer leader take one up again just then, its rollout fails, and it makes it anew when it is told again.
    """
    found = kubectl("get", "configmaps", "--selector", f"{OURS}={NAME}", "--output", "name").split()
    arms = [deployment(arm) for arm in ARMS]
    if all(int(arm["metadata"]["annotations"][TOKEN]) == int(token) for arm in arms):
        used = {f"configmap/{NAME}-{bundle(arm)}" for arm in arms}
        for one in sorted(set(found) - used):
            kubectl("delete", one, "--ignore-not-found")


def apply(stable: str, stable_hash: str, candidate: str, candidate_hash: str, percent: str, token: str) -> None:
    """Put in place what is wanted."""
    lead(token)
    beside = REPLICAS * int(percent) // 100
    if beside * 100 != REPLICAS * int(percent):
        raise RefusedError(f"{percent} % of {REPLICAS} replicas is no whole number: change REPLICAS, or percents")
    steps = [("stable", stable, stable_hash, REPLICAS - beside), ("candidate", candidate, candidate_hash, beside)]
    if replicas("stable") > REPLICAS - beside:  # who gets more is first: never are there fewer than all
        steps.reverse()
    for arm, folder, name, count in steps:
        bring(arm, token, folder, name, count, percent)
    clean(token)


def replicas(arm: str) -> int:
    """How many it is to have."""
    return deployment(arm)["spec"].get("replicas", 1)


def bundle(one: dict[str, Any]) -> str:
    """The hash of the bundle that a deployment is to run; empty when none was told."""
    return one["spec"]["template"]["metadata"].get("annotations", {}).get(BUNDLE, "")


def observe() -> None:
    """What is ready, and not only what was asked for."""
    found = {arm: deployment(arm) for arm in ARMS}
    ready = {arm: one.get("status", {}).get("readyReplicas", 0) for arm, one in found.items()}
    names = {arm: bundle(one) for arm, one in found.items()}
    percent = round(100 * ready["candidate"] / max(1, sum(ready.values())))
    candidate = names["candidate"] if ready["candidate"] else ""
    print(
        json.dumps({"stable": names["stable"] if ready["stable"] else "", "candidate": candidate, "percent": percent})
    )


def main() -> None:
    """`kubectl.py apply STABLE STABLE_HASH CANDIDATE CANDIDATE_HASH PERCENT TOKEN`, or `kubectl.py observe`."""
    try:
        match sys.argv[1:]:
            case ["apply", *words] if len(words) == 6:
                apply(*words)
            case ["observe"]:
                observe()
            case _:
                raise RefusedError(f"apply with six words, or observe; got {sys.argv[1:]}")
    except (RefusedError, OSError) as error:
        sys.exit(f"kubectl.py: {error}")


if __name__ == "__main__":
    main()
