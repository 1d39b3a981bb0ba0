"""The example's hooks alone: they may be told again, refuse an older leader, and believe only what is really there.

There is no Kubernetes here: a stub in its place keeps deployments in files and every word that it was told.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from outside import environment, free_ports, wait_until
from stage import EXAMPLE

from autotuner.daemon.spec import load_service

ONE, TWO = "1111", "2222"
STUB = """#!{python} -IS
import json, pathlib, sys
here = pathlib.Path(__file__).parent
words = [word for word in sys.argv[1:] if word not in ("--namespace", "default")]
with (here / "told").open("a") as told:
    print(json.dumps([*words, *([sys.stdin.read()] if words[:1] == ["apply"] else [])]), file=told)
def merged(old, new):
    if isinstance(old, dict) and isinstance(new, dict):
        return {{**old, **{{key: merged(old.get(key), value) for key, value in new.items()}}}}
    return new
def one(name, change=None):
    file = here / f"{{name}}.json"
    blank = {{"metadata": {{"resourceVersion": "1"}}, "spec": {{"template": {{"metadata": {{}}}}}}}}
    data = json.loads(file.read_text()) if file.exists() else blank
    if change:
        if change["metadata"].get("resourceVersion", version := data["metadata"]["resourceVersion"]) != version:
            sys.exit(f"Error from server (Conflict): deployments.apps {{name}}: the object has been modified")
        data = merged(data, change)
        data["metadata"]["resourceVersion"] = str(int(version) + 1)
        data["status"] = {{"readyReplicas": data["spec"].get("replicas", 1)}}
        file.write_text(json.dumps(data))
    return data
if words[:2] == ["get", "configmaps"]:
    label = dict([words[3].split("=")])
    print(*(file.name.replace(".", "/") for file in here.glob("configmap.*") if json.loads(file.read_text()) == label))
elif words[0] == "get":
    print(json.dumps(one(words[2])))
elif words[0] == "patch":
    if (meanwhile := here / "meanwhile.json").exists():  # what others change between a look and a patch, in turn
        if (changes := json.loads(meanwhile.read_text())) and changes[0][0] in (words[2], ""):
            meanwhile.write_text(json.dumps(changes[1:]))
            for name, change in changes[0][1]:
                one(name, change)
    one(words[2], json.loads(words[-1]))
elif words[0] == "create":
    print(json.dumps({{"kind": "ConfigMap", "metadata": {{"name": words[2]}}}}))
elif words[0] == "apply":
    made = json.loads(json.loads((here / "told").read_text().splitlines()[-1])[-1])
    (here / f"configmap.{{made['metadata']['name']}}").write_text(json.dumps(made["metadata"]["labels"]))
elif words[0] == "delete":
    (here / words[1].replace("/", ".")).unlink()
"""


class Folder:
    """A copy of the example, with bundles ONE and TWO."""

    def __init__(self, folder, hook):
        self.folder, self.program = folder / "s", f"./{hook}.py"
        shutil.copytree(EXAMPLE, self.folder)
        text = (self.folder / "arms.py").read_text()
        self.ports = dict(zip(("8001", "8002"), map(str, free_ports(2)), strict=True))
        for old, new in self.ports.items():
            text = text.replace(old, new)
        (self.folder / "arms.py").write_text(text)
        for name in (ONE, TWO):
            (self.folder / name).mkdir()
            for file in ("shop.env", "shop.docker.env"):
                (self.folder / name / file).write_text(f"AUTOTUNE_BLOCK_KIB={name[0]}\n")

    def argv(self, stable, candidate="", percent=0, token=1):
        folders = [str(self.folder / name) if name else "" for name in (stable, candidate)]
        return [self.program, "apply", folders[0], stable, folders[1], candidate, str(percent), str(token)]

    def run(self, *argv):
        return subprocess.run(
            argv, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60,
            env={**environment(), "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"},
        )  # fmt: skip

    def apply(self, *words, **more):
        done = self.run(*self.argv(*words, **more))
        assert done.returncode == 0, done.stderr
        return self.observe()

    def observe(self):
        said = json.loads(self.run(self.program, "observe").stdout)
        return said["stable"], said["candidate"], said["percent"]

    def servers(self):
        """Processes of the service that live."""
        program = str(self.folder / "server.py")
        return [one for one in psutil.process_iter(["cmdline"]) if program in (one.info["cmdline"] or [])]

    def pid(self, arm):
        return int((self.folder / "state" / f"{arm}.pid").read_text())


@pytest.fixture
def local(tmp_path):
    found = Folder(tmp_path, "local_process")
    yield found
    for one in found.servers():
        one.kill()


@pytest.fixture
def cluster(tmp_path):
    found = Folder(tmp_path, "kubectl")
    (found.folder / "kubectl").write_text(STUB.format(python=sys.executable))
    (found.folder / "kubectl").chmod(0o755)
    return found


def told(cluster):
    return [json.loads(line) for line in (cluster.folder / "told").read_text().splitlines()]


@pytest.mark.parametrize("name", ["local", "haproxy", "nginx"])
def test_each_file_describes_a_service_and_names_programs_that_are_there(name, monkeypatch):
    monkeypatch.chdir(EXAMPLE)
    spec = load_service(EXAMPLE / f"daemon-{name}.yaml")
    for argv in (spec.hooks.apply, spec.hooks.observe):
        assert os.access(argv[0], os.X_OK)


def test_a_local_process_is_started_once_and_replaced_by_another_bundle(local):
    assert local.observe() == ("", "", 0)
    assert local.apply(ONE) == (ONE, "", 0)
    first = local.pid("stable")
    assert local.apply(ONE, TWO, 50) == (ONE, TWO, 50)
    assert local.apply(ONE, TWO, 50) == (ONE, TWO, 50)
    assert local.pid("stable") == first, "told again, it does nothing"
    assert local.apply(TWO) == (TWO, "", 0)
    assert local.pid("stable") != first
    os.kill(local.pid("stable"), signal.SIGKILL)
    wait_until(lambda: local.observe() == ("", "", 0))
    assert local.apply(TWO) == (TWO, "", 0)


def test_a_process_that_hangs_is_restarted(local):
    """It runs with the right bundle, and does not answer."""
    text = (local.folder / "arms.py").read_text()
    assert "START_S, STOP_S = 20, 10" in text
    (local.folder / "arms.py").write_text(text.replace("START_S, STOP_S = 20, 10", "START_S, STOP_S = 5, 1"))
    local.apply(ONE)
    os.kill(hung := local.pid("stable"), signal.SIGSTOP)
    assert local.apply(ONE) == (ONE, "", 0)
    assert local.pid("stable") != hung


def test_an_older_leader_is_refused_and_changes_nothing(local):
    local.apply(ONE, token=7)
    done = local.run(*local.argv(TWO, token=6))
    assert done.returncode == 1
    assert "token 6 is of an older leader: the newest is 7" in done.stderr
    assert local.observe() == (ONE, "", 0)
    assert local.apply(TWO, token=7) == (TWO, "", 0)


def test_a_hook_that_is_killed_anywhere_leaves_nothing_that_the_next_does_not_know(local):
    """After each kill the same is told once more; no process is left that nobody knows."""
    for number, after_s in enumerate((0.05, 0.1, 0.15, 0.2, 0.3)):
        stable, candidate = (ONE, TWO) if number % 2 else (TWO, ONE)
        with subprocess.Popen(local.argv(stable, candidate, 50), cwd=local.folder, start_new_session=True) as hook:
            time.sleep(after_s)
            os.killpg(hook.pid, signal.SIGKILL)
        assert local.apply(stable, candidate, 50) == (stable, candidate, 50)
        assert len(local.servers()) == 2


def test_a_bundle_without_its_file_is_one_clear_line(local):
    (local.folder / ONE / "shop.env").unlink()
    done = local.run(*local.argv(ONE))
    assert done.returncode == 1
    assert done.stderr.startswith("local_process.py: there is no")


def test_kubernetes_is_told_both_deployments_whole(cluster):
    assert cluster.apply(ONE) == (ONE, "", 0)
    assert cluster.apply(ONE, TWO, 20) == (ONE, TWO, 20)
    assert cluster.apply(ONE, TWO, 20) == (ONE, TWO, 20)
    assert cluster.apply(TWO, ONE, 20) == (TWO, ONE, 20)
    assert cluster.apply(TWO, token=5) == (TWO, "", 0)
    words = told(cluster)
    assert ["create", "configmap", f"shop-{TWO}", f"--from-env-file={cluster.folder / TWO / 'shop.docker.env'}",
            "--dry-run=client", "--output", "json"] in words  # fmt: skip
    made = {"kind": "ConfigMap", "metadata": {"name": f"shop-{TWO}", "labels": {"autotune/service": "shop"}}}
    assert ["apply", "--filename", "-", json.dumps(made)] in words
    patch = json.loads(next(one[-1] for one in words if one[:3] == ["patch", "deployment", "shop-candidate"]
                            and TWO in one[-1]))  # fmt: skip
    assert patch["spec"]["replicas"] == 2
    assert patch["spec"]["template"]["spec"]["containers"][0]["envFrom"] == [{"configMapRef": {"name": f"shop-{TWO}"}}]
    rollouts = [one[2] for one in words if one[:2] == ["rollout", "status"]]
    assert rollouts[:2] == ["deployment/shop-stable", "deployment/shop-candidate"]


def test_kubernetes_refuses_an_older_leader_and_a_share_that_replicas_cannot_make(cluster):
    cluster.apply(ONE, token=7)
    before = len(told(cluster))
    done = cluster.run(*cluster.argv(TWO, token=6))
    assert (done.returncode, "older leader" in done.stderr) == (1, True)
    assert all(words[0] == "get" for words in told(cluster)[before:])
    done = cluster.run(*cluster.argv(ONE, TWO, 15, token=7))
    assert (done.returncode, "15 % of 10 replicas" in done.stderr) == (1, True)
    assert cluster.observe() == (ONE, "", 0)


def configs(cluster):
    return {file.name.removeprefix("configmap.shop-") for file in cluster.folder.glob("configmap.*")}


def meanwhile(cluster, *changes):
    """At the next patches of these deployments (any for an empty name) others change something just before."""
    (cluster.folder / "meanwhile.json").write_text(json.dumps(changes))


def led(token):
    """What a newer leader writes first."""
    noted = {"metadata": {"annotations": {"autotune/token": str(token)}}}
    return [["shop-stable", noted], ["shop-candidate", noted]]


@pytest.mark.parametrize("arm", ["stable", "candidate"])
def test_kubernetes_takes_no_patch_of_a_leader_that_a_newer_one_has_overtaken(cluster, arm):
    """It had passed the first question; the newer one comes just before its patch of this arm."""
    cluster.apply(ONE, ONE, 20, token=7)
    before = json.loads((cluster.folder / f"shop-{arm}.json").read_text())["spec"]
    turn = ["shop-" + arm, []]  # at its first patch of this arm, by which it leads
    meanwhile(cluster, turn, ["shop-" + arm, led(8)])
    done = cluster.run(*cluster.argv(TWO, TWO, 50, token=7))
    assert done.returncode == 1
    assert "token 7 is of an older leader: the newest is 8" in done.stderr
    assert json.loads((cluster.folder / f"shop-{arm}.json").read_text())["spec"] == before
    assert cluster.apply(ONE, token=8) == (ONE, "", 0)


def test_kubernetes_changes_a_deployment_that_the_cluster_itself_changed_meanwhile(cluster):
    cluster.apply(ONE, token=7)
    counted = ["", [["shop-stable", {"metadata": {}}], ["shop-candidate", {"metadata": {}}]]]
    meanwhile(cluster, *[counted] * 5)
    assert cluster.apply(TWO, token=7) == (TWO, "", 0)
    meanwhile(cluster, *[counted] * 100)
    done = cluster.run(*cluster.argv(ONE, token=7))
    assert (done.returncode, "the object has been modified" in done.stderr) == (1, True)


def test_kubernetes_keeps_the_config_maps_that_an_arm_names_and_no_others(cluster):
    (cluster.folder / "configmap.shop-theirs").write_text("{}")
    cluster.apply(ONE)
    cluster.apply(ONE, TWO, 20)
    assert configs(cluster) == {ONE, TWO, "theirs"}
    cluster.apply(TWO)
    assert configs(cluster) == {TWO, "theirs"}, "the candidate has no replicas, and names it still"
    cluster.apply(ONE)
    assert configs(cluster) == {ONE, TWO, "theirs"}
    cluster.apply(ONE, ONE, 20)
    assert configs(cluster) == {ONE, "theirs"}
