"""A hostile but fair user: whatever is typed, missing, damaged or in the way, the answer is one line that helps."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import scripted_study as script
from refusal import assert_refused
from typer.testing import CliRunner

from autotuner import api
from autotuner.cli.main import app
from autotuner.store import Record
from autotuner.testing.nvml_replay import compile_library

FILE = """
workload: {kind: replay, step_s: "0.004 / (1 + fast)"}
executor: {kind: inline}
probes: []
parameters:
  fast: {int: [0, 1], default: 0}
  other: {int: [1, 3], default: 1}
objectives: [{maximize: throughput_tokens_per_s}]
budget: {trials: 3, max_pairs: 6}
protocol: {block_s: 0.01, warmup_min_s: 0.01, warmup_max_s: 0.05, min_measure_s: 0.05, max_measure_s: 0.1}
"""
MODEL = """
workload: {kind: transformers-inference, MODEL}
parameters: {batch_size: {choices: [1, 2], default: 1}}
objectives: [{maximize: throughput_tokens_per_s}]
"""
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
PROGRAM = "from autotuner.cli.main import app; app()"


def refuse(*words_typed, expected=2, words=()):
    """Type it, plainly and with --json."""
    for as_json in (False, True):
        done = CliRunner().invoke(app, [*map(str, words_typed), *(["--json"] if as_json else [])])
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        assert done.stderr.count("\n") == 1, done.stderr
        assert_refused(done.exit_code, done.stdout, done.stderr, expected=expected, words=words, as_json=as_json)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A record with a finished study `good` and one without a trial, `empty`; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("records")
    (folder / "x.yaml").write_text(FILE)
    spec = api.read_spec(folder / "x.yaml")
    with api.open_record(str(folder / "autotune.db"), create=True) as record:
        record.create(spec, "empty")
        study = record.create(spec, "good")
        study.append_trials(script.TRIALS)
        study.append_verification(script.VERIFICATION)
        study.append_event("finished", {"stopped": "every trial is used", "phases_s": {"measuring": 1.0}})
    return folder


@pytest.fixture
def db(records, tmp_path):
    return str(shutil.copy(records / "autotune.db", tmp_path / "autotune.db"))


def changed(old, new):
    assert old in FILE
    return FILE.replace(old, new)


@pytest.mark.parametrize(("content", "words"), [
    pytest.param(b"", ["x.yaml:1", "is empty", "needs at least workload"], id="empty"),
    pytest.param(b"\x7fELF\x00\x01", ["x.yaml:1", "is it binary?"], id="binary"),
    pytest.param(bytes(range(128, 256)), ["x.yaml:1", "not UTF-8", "is it binary?"], id="not text"),
    pytest.param(b"a: " + b"x" * 10_000_000, ["more than 1 MiB", "a few kilobytes"], id="10 MB"),
    pytest.param(ALIASES.encode(), ["unfolds into more than 20,000 values"], id="alias bomb"),
    pytest.param(b"[" * 10_000, ["nested more than"], id="deep"),
    pytest.param(b"workload: [", ["not YAML", "missing colon, quote or bracket"], id="no YAML"),
    pytest.param(b"just words", ["`key: value` lines", "start with `workload:`"], id="no mapping"),
])  # fmt: skip
def test_a_file_that_is_no_study(tmp_path, content, words):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    refuse("space", "check", path, words=words)


def test_a_file_that_is_not_there(tmp_path, file):
    refuse("space", "check", tmp_path / "y.yaml", words=["y.yaml: no such file", f"is it {file}?"])
    refuse("space", "check", tmp_path / "no" / "y.yaml", words=["no such file", "give the path of a YAML file"])
    refuse("space", "check", tmp_path, words=["a directory, not a file", f"is it {file}?"])


@pytest.mark.parametrize(("text", "words"), [
    (FILE + "budgets: {trials: 3}", ["x.yaml:11: budgets: unknown key", "did you mean budget?"]),
    (changed("trials: 3", "trails: 3"), ["x.yaml:9: budget.trails: unknown key", "did you mean trials?"]),
    (changed("step_s:", "steps:"), ["x.yaml:2: workload.steps: unknown key", "did you mean step_s?"]),
    (changed("trials: 3", "trials: many"), ["budget.trials: expected a whole number, found 'many'"]),
    (changed("trials: 3", "trials: 0"), ["budget.trials", "greater than or equal to 1"]),
    (changed("probes: []", "probes: gpu"), ["probes: expected a list", "write probes: ["]),
    (changed("int: [1, 3], default: 1", "choices: [], default: 1"), ["other.choices: has 0 items, needs at least 1"]),
    (changed("int: [1, 3], default: 1", "int: [1, 3], default: 0"), ["default 0 is not one of the values [1, 2, 3]"]),
    (changed("int: [1, 3], default: 1", "int: [3, 1], default: 1"), ["is empty: write the smaller number first"]),
    (changed("int: [1, 3], default: 1", "default: 1"), ["give exactly one of int, powers_of_two, choices, bool"]),
    (FILE + "rules: [{forbid: 'True'}]", ["x.yaml:11: rules.0.forbid", "forbids the baseline", "change the rule"]),
    (FILE + "rules: [{forbid: 'fast == 0'}]", ["forbids the baseline (fast = 0)", "change the rule, or a default"]),
    (FILE + "rules: [{forbid: 'fats == 1'}]", ["'fats' is no other parameter", "did you mean fast?"]),
    (FILE + "rules: [{forbid: 'fast =='}]", ["is no expression"]),
    (FILE + "limits: [latency_p95 <= 1 s]", ["unknown metric 'latency_p95'", "did you mean latency_p95_s?"]),
    (FILE + "limits: [fast]", ["is no limit", "write it like 'latency_p95_s <= 150 ms'"]),
    (changed("throughput_tokens", "throughput_token"), ["unknown metric", "did you mean throughput_tokens_per_s?"]),
    (changed("kind: replay", "kind: replya"), ["unknown workload 'replya'", "did you mean replay?"]),
    (changed("kind: inline", "kind: slurm"), ["unknown executor 'slurm'", "installed: "]),
    (changed("workload:", "worload:"), ["workload: is missing", "installed: ceiling, command, python, replay"]),
])  # fmt: skip
def test_a_study_that_cannot_be_meant(file, text, words):
    file.write_text(text)
    refuse("space", "check", file, words=words)


@pytest.mark.parametrize(("given", "words"), [
    ("model: ./nope", ["workload.model: there is no ./nope", "a folder with config.json, or a hub id"]),
    ("model: .", ["workload.model: . holds no transformers model", "a folder with config.json"]),
    ("model: ./m, trust_remote_cod: true", ["trust_remote_cod: unknown key", "did you mean trust_remote_code?"]),
    ("model: ./m, config: {model_type: glm4}", ["give either model", "or config"]),
    ("task: generate", ["give either model", "or config"]),
    ("config: {}", ["config needs a model_type, for example"]),
])  # fmt: skip
def test_a_model_that_is_not_there(file, given, words):
    file.write_text(MODEL.replace("MODEL", given))
    refuse("space", "check", file, words=words)


def test_a_folder_with_pickled_weights_only(file, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"")
    file.write_text(MODEL.replace("MODEL", f"model: {tmp_path / 'model'}"))
    refuse("space", "check", file, words=["holds no *.safetensors", "pickled weights are not opened"])


@pytest.mark.parametrize(("given", "words"), [
    ("budget.trails=3", ["--set budget.trails=3", "did you mean trials?"]),
    ("budget.trials=many", ["--set budget.trials=many", "expected a whole number"]),
    ("budget.trials", ["give a key and a value", "write --set budget.trials=5"]),
    ("=3", ["give a key and a value"]),
    ("budget.trials=", ["give a key and a value"]),
    ("budget.trials.x=1", ["budget.trials is a value and has no keys below it"]),
    ("objectives.3.maximize=x", ["objectives has 1 items, counted from 0"]),
    ("budget.trials=[", ["--set budget.trials=[", "not YAML"]),
    ("parameters.other.default=9", ["with --set parameters.other.default=9", "default 9 is not one of the values"]),
])  # fmt: skip
def test_an_override_that_cannot_be_meant(file, given, words):
    refuse("space", "check", file, "--set", given, words=words)


def test_a_mistake_in_the_file_leaves_no_record_behind(file, tmp_path):
    file.write_text(changed("trials: 3", "trials: many"))
    refuse("study", "start", file, "--db", tmp_path / "new" / "a.db", words=["budget.trials"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("typed", "words"), [
    ("nope", ["no such command 'nope'", "see autotune --help"]),
    ("study nope", ["no such command 'nope'", "see autotune study --help"]),
    ("study start", ["missing argument 'FILE'", "see autotune study start --help"]),
    ("study show", ["missing argument 'NAME'", "see autotune study show --help"]),
    ("study delete", ["missing argument 'NAME'"]),
    ("study compare a", ["missing argument 'B'"]),
    ("study show a --nope", ["no such option: --nope"]),
    ("study show a --trials many", ["'--trials'", "see autotune study show --help"]),
    ("export", ["export needs a study and a target", "autotune export NAME --to TARGET"]),
])  # fmt: skip
def test_a_command_that_cannot_be_meant(typed, words):
    refuse(*typed.split(), words=words)


def every_command(name):
    """Every command that takes a study's name."""
    return [
        ["study", "show", name], ["study", "resume", name], ["study", "verify", name],
        ["study", "compare", name, "good"], ["study", "delete", name, "--yes"], ["export", name, "--to", "json"],
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "hint"), [("goof", "did you mean good?"), ("../x", "known: empty, good"), ("", "")])
def test_a_study_that_is_not_there(db, tmp_path, name, hint):
    before = sorted(tmp_path.rglob("*"))
    for command in every_command(name):
        refuse(*command, "--db", db, words=[f"there is no study {name!r} in {db}", hint])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", ".hidden", "-", "a" * 65, "a b"])
def test_a_name_that_is_none(file, db, tmp_path, name):
    refuse("study", "start", file, "--db", db, f"--name={name}", words=["is no name for a study", "1 to 64 letters"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autotune.db", "x.yaml"]


def test_an_empty_name_is_none_too(file, db):
    refuse(
        "study", "start", file, "--db", db, "--name=", "--set", "budget.trials=1", words=["'' is no name for a study"]
    )


def test_a_name_that_is_taken(file, db):
    words = ["there is a study 'good' already", "resume it, or choose another name"]
    refuse("study", "start", file, "--db", db, "--name", "good", words=words)


def test_a_study_that_is_finished_or_not_yet(db, tmp_path):
    refuse("study", "resume", "good", "--db", db, words=["is finished", "autotune study verify good"])
    for command in (["study", "verify", "empty"], ["export", "empty", "--to", "json"]):
        refuse(*command, "--db", db, words=["has not come to a verdict yet", "autotune study resume empty"])
    assert not (tmp_path / "empty" / "exports").exists()


def test_a_study_that_another_process_runs(db, file):
    with api.open_record(db, create=True) as record, record.lock("empty"):
        words = [f"is being run by process {os.getpid()}", "wait for it, or end it"]
        refuse("study", "resume", "empty", "--db", db, words=words)
        refuse("study", "delete", "empty", "--yes", "--db", db, words=words)
        refuse("study", "start", file, "--db", db, "--set", "name=empty", words=words)
    assert "empty" in CliRunner().invoke(app, ["study", "list", "--db", db]).stdout


def test_an_interruption_before_anything_runs(db, monkeypatch):
    def interrupt(_record):
        raise KeyboardInterrupt

    monkeypatch.setattr(Record, "overview", interrupt)
    done = CliRunner().invoke(app, ["study", "list", "--db", db])
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "")


def test_a_deletion_without_a_confirmation(db):
    refuse("study", "delete", "good", "--db", db, words=["needs a confirmation", "add --yes"])


def test_an_export_that_cannot_be(db, tmp_path):
    refuse("export", "good", "--to", "jsno", "--db", db, words=["unknown export target 'jsno'", "did you mean json?"])
    refuse("export", "good", "--to", "x", "--db", db, words=["unknown export target 'x'", "installed: accelerate"])
    (tmp_path / "x.txt").write_text("mine")
    refuse("export", "good", "--to", "json", "-o", tmp_path / "x.txt", "--db", db, words=["is there already"])
    for where in (tmp_path / "x.txt" / "below", Path("/proc/nowhere")):
        refuse("export", "good", "--to", "json", "-o", where, "--db", db, expected=3, words=[
            f"cannot write {where}", "name another folder with -o"])  # fmt: skip
    assert (tmp_path / "x.txt").read_text() == "mine"


@pytest.mark.parametrize(("words", "said"), [
    (["--to", "env", "--set", "colour=red"], ["--set colour", "the options of env: none"]),
    (["--to", "triton", "--set", "backend"], ["--set backend gives no value"]),
    (["--to", "kubernetes", "--set", "port=many"], ["--set port", "valid integer"]),
    (["--to", "vllm"], ["vllm cannot use the study good", "autotune export --list"]),
    (["--to", "patch"], ["needs a file to change", "--set file=train.py"]),
    (["--to", "env", "--hardware", "H100"], ["not on H100", "--force"]),
])  # fmt: skip
def test_an_export_with_wrong_options(db, words, said):
    refuse("export", "good", *words, "--db", db, words=said)


def test_an_export_that_is_there_already(db, tmp_path):
    assert CliRunner().invoke(app, ["export", "good", "--to", "env", "--db", db]).exit_code == 0
    path = tmp_path / "good" / "exports" / "env" / "good.env"
    path.write_text("edited")
    refuse("export", "good", "--to", "env", "--db", db, words=["is there already", "replace it with --force"])
    assert path.read_text() == "edited"


@pytest.mark.parametrize(("url", "expected", "words"), [
    ("mysql://u:secret@h/x", 2, ["mysql is not supported", "use a path, sqlite:///PATH or postgresql://"]),
    ("://", 2, ["is not the URL of a database", "use a path"]),
    ("sqlite://", 2, ["names no file", "use a path or sqlite:///PATH"]),
    ("sqlite:///x.db?mode=ro", 2, ["has options that are not known", "?timeout=SECONDS"]),
    ("sqlite:///x.db?timeout=soon", 2, ["timeout=soon", "no number of seconds", "write ?timeout=30"]),
    ("postgresql://u:secret@h:port/x", 2, ["is not the URL of a database", "use a path"]),
    ("postgresql+nope://h/x", 2, ["postgresql+nope", "use a path"]),
    ("FILE/autotune.db", 3, ["cannot be created", "name another place with --db"]),
    ("FILE/below/autotune.db", 3, ["cannot be created", "name another place with --db"]),
    (".", 3, ["cannot be opened", "is its folder there, writable, and not a file?"]),
    ("/proc/autotune.db", 3, ["cannot be opened", "is its folder there, writable, and not a file?"]),
])  # fmt: skip
def test_a_record_that_cannot_be(file, tmp_path, monkeypatch, url, expected, words):
    monkeypatch.chdir(tmp_path)
    url = url.replace("FILE", str(file))
    refuse("study", "start", file, "--db", url, expected=expected, words=words)
    assert file.read_text() == FILE
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_reading_makes_no_record(tmp_path):
    for command in (["study", "list"], ["study", "show", "s"], ["study", "resume", "s"]):
        refuse(*command, "--db", tmp_path / "mistyped.db", expected=2, words=["there is no record at", "--db"])
    assert not list(tmp_path.iterdir())
    refuse("study", "list", "--db", "", expected=2, words=["--db names no record"])


def spoil(db, how):
    match how:
        case "truncated":
            os.truncate(db, Path(db).stat().st_size // 2)
        case "garbage":
            Path(db).write_bytes(b"\x07garbage" * 2000)
        case "newer":
            with sqlite3.connect(db) as connection:
                connection.execute("UPDATE autotune_revision SET version_num = '9999'")
        case "another's":
            Path(db).unlink()
            with sqlite3.connect(db) as connection:
                connection.execute("CREATE TABLE recipes (name TEXT)")


@pytest.mark.parametrize(("how", "expected", "words"), [
    ("truncated", 3, ["is damaged", "restore a backup of it, or salvage what is left"]),
    ("garbage", 3, ["is damaged", "restore a backup of it, or salvage what is left"]),
    ("newer", 3, ["was written by a newer autotune", "upgrade autotune"]),
    ("another's", 2, ["belongs to another program", "name another file with --db"]),
])  # fmt: skip
def test_a_record_that_cannot_be_used_is_left_alone(file, db, how, expected, words):
    spoil(db, how)
    before = Path(db).read_bytes()
    for command in (["study", "list"], ["study", "start", file], *every_command("good")):
        refuse(*command, "--db", db, expected=expected, words=[db, *words])
    assert Path(db).read_bytes() == before


def test_a_record_that_another_process_keeps_locked(file, db):
    """The URL says how long to wait; 30 s otherwise."""
    url, words = f"sqlite:///{db}?timeout=0.1", ["is locked: another process is writing to it", "then try again"]
    with sqlite3.connect(db) as writer:
        writer.execute("BEGIN IMMEDIATE")
        for command in (["study", "start", file], ["study", "resume", "empty"], ["study", "delete", "good", "--yes"]):
            refuse(*command, "--db", url, expected=3, words=[db, *words])
        assert CliRunner().invoke(app, ["study", "show", "good", "--db", url]).exit_code == 0, "readers need not wait"
        writer.rollback()
    assert "12" in CliRunner().invoke(app, ["study", "list", "--db", url]).stdout


def test_the_variable_names_the_record_too(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOTUNE_DB", "mysql://h/x")
    refuse("study", "list", words=["mysql is not supported"])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return compile_library(tmp_path_factory.mktemp("nvml")).parent


@pytest.fixture
def start_on_gpu(file, tmp_path, library):
    """Start a study that wants a GPU, on a machine that seems to have what the environment says."""

    def run(*words, **environment):
        file.write_text(changed("kind: replay", "kind: replay, device: cuda"))
        argv = [sys.executable, "-c", PROGRAM, "study", "start", str(file), "--db", str(tmp_path / "a.db")]
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        env |= {"LD_LIBRARY_PATH": str(library), "TMPDIR": str(tmp_path), **environment}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert_refused(done.returncode, done.stdout, done.stderr, expected=3, words=words)

    return run


def test_a_gpu_that_is_not_there(start_on_gpu, tmp_path):
    words = ["x.yaml:2: workload.device: cuda is asked for", "there is no GPU", "write device: auto or cpu"]
    start_on_gpu(*words, NVML_REPLAY_GPUS="0")
    assert not (tmp_path / "a.db").exists()


def test_a_gpu_that_somebody_computes_on(start_on_gpu):
    words = ["no GPU is free: GPU 0 is used by process 1", "wait for it, or set device: cpu"]
    start_on_gpu(*words, NVML_REPLAY_GPUS="1", NVML_REPLAY_PIDS="1")


def test_a_start_that_finds_no_gpu_leaves_no_study(start_on_gpu, tmp_path):
    start_on_gpu(NVML_REPLAY_GPUS="1", NVML_REPLAY_PIDS="1")
    with api.open_record(str(tmp_path / "a.db"), create=True) as record:
        assert record.names() == []


def shell(typed, cwd):
    """The command line in a real shell, for what only a shell can do to it."""
    line = typed.replace("autotune ", f"{sys.executable} -c '{PROGRAM}' ")
    return subprocess.run(["bash", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_an_output_that_nobody_reads(db, tmp_path):
    done = shell("autotune study show good --json --db autotune.db | head -1; echo ${PIPESTATUS[0]}", tmp_path)
    assert done.stdout.splitlines()[0] == "{"
    assert done.stderr == ""
    done = shell("autotune study show good --json --db autotune.db >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_output_that_cannot_be_written(db, tmp_path):
    done = shell("autotune study show good --json --db autotune.db >/dev/full", tmp_path)
    assert_refused(done.returncode, done.stdout, done.stderr, expected=3, words=["No space left", "free some space"])
    done = shell("autotune study show goof --db autotune.db 2>/dev/full", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    done = shell("autotune study show goof --db autotune.db 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
