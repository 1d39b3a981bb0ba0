"""`autotune bench` on a real git repository with real revisions: real worktrees, real processes, real time."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
import typer
import yaml
from typer.testing import CliRunner

from autotuner.cli.main import app
from autotuner.store import open_record
from autotuner.types import BenchDecision, BenchKey

ROOT = Path(__file__).parents[2]
PROGRAM = "from autotuner.cli.main import app; app()"
FAST, SLOW, BROKEN = "STEP_S = 0.010\n", "STEP_S = 0.014\n", "raise RuntimeError('not today')\n"
LOOP = """
import time
from speed import STEP_S

def loop(config):
    while True:
        time.sleep(STEP_S)
        yield {"samples": 1}
"""
STUDY = """
workload: {kind: python, object: "loop.py:loop", imports: [], device: cpu}
parameters:
  count: {int: [1, 2], default: 1}
objectives:
  - maximize: throughput_samples_per_s
limits: ["latency_p50_s <= 1 s"]
probes: []
protocol: {block_s: 0.02, warmup_min_s: 0.02, warmup_max_s: 0.1, min_measure_s: 0.1, max_measure_s: 0.3}
"""
COMMAND = STUDY.replace(
    '{kind: python, object: "loop.py:loop", imports: [], device: cpu}',
    "{kind: command, argv: [sh, run.sh], work: {samples: 1}, env: {COUNT: '{count}'}}",
)
KEY = BenchKey("bench.yaml", "main", "", "throughput_samples_per_s", True)


class Project:
    """A repository: a loop that imports a module from `src/`, which PYTHONPATH names as an installed one would be."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.db = folder, str(folder / "record.db")
        (folder / "src").mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.write("loop.py", LOOP)
        self.write("bench.yaml", STUDY)
        self.write(".gitignore", "__pycache__/\nrecord.db*\nbench-bench/\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def commit(self, speed: str) -> None:
        self.write("src/speed.py", speed)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "another")

    def git(self, *words: str) -> str:
        argv = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com", *words]
        return subprocess.run(argv, cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def start(self, *words: str, **options) -> "subprocess.Popen[str]":
        own = os.pathsep.join([str(self.folder / "src"), str(ROOT)])
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "bench", *words, "--db", self.db], cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": own}, **options,
        )  # fmt: skip

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*words) as process:
            out, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        return subprocess.CompletedProcess(words, process.returncode, out, errors)

    def worktrees(self) -> list[str]:
        """Besides the checkout itself."""
        return self.git("worktree", "list", "--porcelain").split("worktree ")[2:]

    def runs(self):
        with open_record(self.db) as record:
            return record.benches.runs(KEY, samples=True)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


@pytest.mark.alone
def test_a_revision_that_is_slower_fails_the_build(project):
    project.commit(FAST)
    project.commit(SLOW)
    files = ["--junit", "junit.xml", "--markdown", "summary.md"]
    done = project.run("bench.yaml", "--base", "HEAD~1", *files)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("REGRESSION  throughput_samples_per_s is ")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "side by side" in done.stderr
    assert project.worktrees() == []

    (run,) = project.runs()
    assert run.decision is BenchDecision.REGRESSION
    assert run.gain_interval[0] < 10 / 14 * 1.1
    assert run.gain_interval[1] < 0.95
    assert len(run.launch_values) >= 3
    assert run.base_revision == project.git("rev-parse", "--short=12", "HEAD~1").strip()
    assert len(run.samples["throughput_samples_per_s"]) > run.pairs

    suite = ElementTree.parse(project.folder / "junit.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert "worse than at" in suite.find("testcase/failure").get("message")
    summary = (project.folder / "summary.md").read_text()
    assert summary.startswith("### autotune bench: REGRESSION")
    assert "| metric | baseline | now | gain |" in summary


@pytest.mark.alone
def test_the_same_code_twice_is_no_regression(project):
    project.commit(FAST)
    project.write("readme.txt", "not code")
    project.commit(FAST)
    done = project.run("bench.yaml", "--base", "HEAD~1", "--margin", "0.2", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["verdict"] in ("SAME", "UNCLEAR", "INVALID")
    assert found["run"]["pairs"] >= 6
    assert found["run"]["gain_interval"][0] < 1.02
    assert found["run"]["gain_interval"][1] > 0.98
    assert json.loads(done.stderr.splitlines()[0])["event"] == "stage_started"


@pytest.mark.alone
def test_a_program_is_that_of_the_revision(project):
    project.write("bench.yaml", COMMAND)
    project.write("run.sh", "sleep 0.01")
    project.commit(FAST)
    project.write("run.sh", "sleep 0.05")
    done = project.run("bench.yaml", "--base", "main", "--minutes", "1")  # the changed file is not even committed
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.startswith("REGRESSION")
    assert project.runs()[0].revision.endswith("+")


def test_what_does_not_run_any_more_is_a_regression(project):
    project.commit(FAST)
    project.commit(BROKEN)
    done = project.run("bench.yaml", "--base", "HEAD~1", "--junit", "junit.xml")
    assert done.returncode == 1
    assert done.stdout.startswith("REGRESSION  It does not run any more.")
    assert "not today" in " ".join(done.stdout.split())
    assert "not today" in ElementTree.parse(project.folder / "junit.xml").getroot().find(".//failure").text
    assert project.runs()[0].value is None
    assert project.worktrees() == []


def test_a_base_that_does_not_run_leaves_the_history_to_compare_with(project):
    project.commit(BROKEN)
    project.commit(FAST)
    done = project.run("bench.yaml", "--base", "HEAD~1")
    assert done.returncode == 0
    (note,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert note.startswith("note: --base: the base does not run: ")
    assert note.endswith("; compared with the history instead")
    assert done.stdout.startswith(("UNCLEAR", "INVALID"))  # a first run tells nothing; a busy machine still less
    run = project.runs()[0]
    assert run.base_revision == ""
    assert 10 < run.value < 110


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_worktree_no_process_and_no_row(project, number):
    project.commit(FAST)
    project.commit(SLOW)
    with project.start("bench.yaml", "--base", "HEAD~1", start_new_session=True) as process:
        wait_for(lambda: workers_of(process) >= 2)
        assert len(project.worktrees()) == 1
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    wait_for(lambda: not project.worktrees())
    gone, alive = psutil.wait_procs(below, 10)
    assert alive == []
    assert len(gone) >= 4  # the guard, two fork servers, two workers
    assert project.runs() == []
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "error: interrupted: nothing was appended"


def workers_of(process):
    """Workers of the fork servers; the guard's children are git's."""
    found = 0
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):  # a zombie is one too
            found += len(child.children()) if "autotuner.executors.forkserver" in child.cmdline() else 0
    return found


def wait_for(true, limit_s=30.0):
    until_s = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_mistakes_are_one_line(project, monkeypatch):
    project.commit(FAST)
    monkeypatch.chdir(project.folder)
    for words, said in (
        (["--base", "nowhere"], "there is no revision 'nowhere'"),
        (["--base", "--help-me"], "there is no revision '--help-me'"),
        (["--history", "--junit", "x.xml"], "--history measures nothing"),
        (["--junit", "no/where/x.xml"], "there is no folder no/where"),
        (["--margin", "0"], "--margin"),
        (["--history"], "there is no record"),
    ):
        done = CliRunner().invoke(app, ["bench", "bench.yaml", *words, "--db", project.db])
        assert done.exit_code == 2, words
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_example_workflow_is_one_and_calls_bench_as_it_is():
    workflow = yaml.safe_load((ROOT / "examples" / "github-actions" / "bench.yml").read_text())
    assert {"pull_request", "push"} <= workflow[True].keys()  # YAML 1.1 reads the key `on` so
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    checkout = next(step for step in steps if step.get("uses", "").startswith("actions/checkout"))
    assert checkout["with"]["fetch-depth"] == 0
    lines = [line.replace("\\\n", " ") for step in steps for line in [step.get("run", "")]]
    calls = [line.split() for text in lines for line in text.splitlines() if line.startswith("autotune bench")]
    assert len(calls) == 2
    command = typer.main.get_command(app).commands["bench"]
    for words in calls:
        command.make_context("bench", [word.strip('"') for word in words[2:]])
