"""Every command on a real record with a real, tiny study: a workload that sleeps as long as its file says."""

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import scripted_study as script
from typer.testing import CliRunner

from autotuner import api
from autotuner.cli.main import app
from autotuner.types import Decision

FILE = textwrap.dedent(
    """
    workload:
      kind: replay
      step_s: "0.01 / (1 + 9 * fast)"
      noise_ratio: 0.02
    executor: {kind: inline}
    probes: []
    parameters:
      fast: {int: [0, 1], default: 0}
      other: {int: [0, 3], default: 0}
    objectives:
      - maximize: throughput_tokens_per_s
    budget: {trials: 4, max_pairs: 12}
    protocol: {block_s: 0.01, warmup_min_s: 0.01, warmup_max_s: 0.05, min_measure_s: 0.05, max_measure_s: 0.1}
    """
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sleeper.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "record.db")


@pytest.fixture
def record(db, file):
    """A record with two studies: `good` has the scripted trials and verification, `empty` nothing."""
    spec = api.read_spec(file)
    with api.open_record(db, create=True) as record:
        record.create(spec, "empty")
        study = record.create(spec, "good")
        study.append_event("started")
        for trial in script.TRIALS:
            study.append_trial(trial)
        study.append_verification(script.VERIFICATION)
        study.append_event("finished", {"stopped": "every trial is used", "phases_s": {"measuring": 1.0}})
    return db


def autotune(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def output(*words):
    done = autotune(*words)
    assert done.exit_code == 0, done.stderr
    assert "\x1b" not in done.stdout
    if "--json" not in words:
        assert max(map(len, done.stdout.splitlines())) <= 80 or "export" in words
    return json.loads(done.stdout) if "--json" in words else done.stdout


def test_list(record):
    text = output("study", "list", "--db", record)
    assert "BETTER" in text
    assert "unfinished" in text
    rows = output("study", "list", "--db", record, "--json")
    assert [(row["name"], row["trials"]) for row in rows] == [("empty", 0), ("good", 12)]


def test_show(record):
    text = output("study", "show", "good", "--db", record)
    assert text.index("BETTER") < text.index("best trials") < text.index("★ 6") < text.index("last trials")
    assert "0 trials" in output("study", "show", "empty", "--db", record)
    body = output("study", "show", "good", "--trials", "2", "--db", record, "--json")
    assert [trial["number"] for trial in body["best"]] == [6, 10]
    assert [trial["number"] for trial in body["last"]] == [10, 11]
    assert body["failures"] == {"out_of_memory": 1, "timed_out": 1}
    assert body["verifications"][0]["decision"] == "BETTER"


def test_show_without_trials_names_none(record):
    assert "trials\n" not in output("study", "show", "good", "--trials", "0", "--db", record)


def test_compare(record):
    text = output("study", "compare", "good", "empty", "--db", record)
    assert "not verified" in text
    body = output("study", "compare", "good", "empty", "--db", record, "--json")
    assert [study["study"] for study in body["studies"]] == ["good", "empty"]


def test_delete_asks_first(record):
    refused = autotune("study", "delete", "good", "--db", record)
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert output("study", "delete", "good", "--yes", "--db", record) == "deleted good: 12 trials\n"
    assert "good" not in output("study", "list", "--db", record)


def test_an_unknown_study_is_one_line(record):
    for command in ("show", "resume", "verify"):
        done = autotune("study", command, "goof", "--db", record)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: ")
        assert "good" in done.stderr
        assert done.stderr.count("\n") == 1


def test_space_check(file):
    text = output("space", "check", file)
    assert "8 combinations, 8 legal" in text
    body = output("space", "check", file, "--set", "budget.trials=7", "--json")
    assert body["max_trials"] == 7
    assert body["parameters"]["fast"] == [0, 1]


def test_a_file_that_is_not_there_is_the_users_mistake(tmp_path):
    done = autotune("space", "check", tmp_path / "nothing.yaml")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1


def test_export(record, tmp_path):
    targets = output("export", "--list", "--json")
    assert {"json", "env"} <= set(targets)
    assert "env" in output("export", "--list")
    path = output("export", "good", "--to", "env", "-o", tmp_path / "out", "--db", record).strip()
    assert "AUTOTUNE_BATCH_SIZE=16" in (Path(path) / "good.env").read_text()
    body = output("export", "good", "--to", "torchrun", "--db", record, "--json", "--force")
    assert "batch_size" in body["left_out"]
    assert {"launch.sh", "evidence.json", "README.md"} <= set(body["files"])
    done = autotune("export", "good", "--to", "json", "--check", "--db", record)
    assert done.exit_code == 0
    assert "they passed our own checks" in done.stdout


@pytest.mark.usefixtures("simulated_clock")
def test_start_to_verdict_and_again(file, db):
    body = output("study", "start", file, "--db", db, "--json")
    assert body["verdict"] in set(Decision)
    assert body["trials"] == 4
    assert body["verdict"] == "BETTER", body["reason"]
    assert body["config"]["fast"] == 1
    assert output("study", "show", "sleeper", "--why", "0", "--db", db) == "trial 0, baseline: what is in use today.\n"
    because = output("study", "show", "sleeper", "--why", "1", "--db", db, "--json")
    assert because["reason"].startswith("as unlike everything tried")
    beyond = autotune("study", "show", "sleeper", "--why", "4", "--db", db)
    assert beyond.exit_code == 2
    assert "has no trial 4" in beyond.stderr
    again = autotune("study", "verify", "sleeper", "--db", db)
    assert again.exit_code == 0, again.stdout
    assert again.stdout.startswith("BETTER")
    finished = autotune("study", "resume", "sleeper", "--db", db)
    assert finished.exit_code == 2
    assert "is finished" in finished.stderr


def test_a_study_that_only_fails_ends_with_one(file, db):
    done = autotune("study", "start", file, "--db", db, "--set", 'workload.fault={"error": "fast >= 0"}')
    assert done.exit_code == 1, done.stdout + done.stderr
    assert "The baseline failed" in done.stdout
    assert "crashed" in done.stdout
    assert "last log" in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("simulated_clock")  # here; the terminated process has a real one
def test_a_terminated_study_is_resumed(file, db):
    program = "from autotuner.cli.main import app; app()"
    words = ["study", "start", str(file), "--db", db, "--set", "budget.trials=5", "--set", "workload.open_s=0.2"]
    with subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True) as study:
        while not study.stderr.readline().startswith("trial 1"):
            assert study.poll() is None
        study.send_signal(signal.SIGTERM)
        _, errors = study.communicate(timeout=60)
    assert study.returncode == 130
    last = errors.splitlines()[-1]
    assert last.startswith("interrupted: ")
    assert f"autotune study resume sleeper --db {db}" in last
    body = output("study", "resume", "sleeper", "--db", db, "--json")
    assert body["trials"] == 5


def test_scripted_summary_is_what_a_record_gives(record):
    with api.load_study("good", record) as study:
        assert study.verifications()[-1][1] == script.VERIFICATION
        assert script.TRIALS[0] == study.trial(0)
