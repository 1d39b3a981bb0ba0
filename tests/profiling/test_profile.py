"""The whole command, on real processes: a workload that sleeps, and once a tiny real model."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autotuner import api, profiling
from autotuner.cli.main import app
from autotuner.errors import MachineError, UsageError
from autotuner.profiling import sampler

SLEEPER = textwrap.dedent(
    """
    workload: {kind: replay, step_s: "0.004 / (1 + fast)"}
    executor: {kind: inline}
    probes: []
    parameters:
      fast: {int: [0, 1], default: 0}
    objectives: [{maximize: throughput_tokens_per_s}]
    protocol:
      {block_s: 0.01, warmup_min_s: 0.01, warmup_max_s: 0.1, min_measure_s: 0.05, max_measure_s: 0.2, time_limit_s: 60}
    """
)
INFERENCE = Path(__file__).parents[2] / "search_spaces" / "inference.yaml"
TINY = [
    "workload.config.hidden_size=32", "workload.config.intermediate_size=64", "workload.config.num_attention_heads=2",
    "workload.config.num_key_value_heads=1", "workload.config.head_dim=16", "workload.config.vocab_size=128",
    "workload.prompt_tokens=8", "workload.new_tokens=4", "protocol.warmup_max_s=1", "protocol.max_measure_s=0.5",
]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sleeper.yaml"
    path.write_text(SLEEPER)
    return path


def autotune(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def sleeper(file, out, *overrides, **options):
    spec = api.read_spec(file, overrides)
    return profiling.profile(spec, spec.baseline, out, **{"steps": 2, "sample_s": 1.0, **options})


def test_a_tiny_real_model_from_the_command_line(tmp_path):
    words = [word for setting in [*TINY, "batch_size=2", "threads=1"] for word in ("--set", setting)]
    done = autotune("profile", INFERENCE, *words, "-o", tmp_path / "out", "--steps", 3, "--json")
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert body["config"]["batch_size"] == 2
    assert body["trace"]["steps"] == 3
    assert body["trace"]["device"] is None
    host = body["trace"]["host"]
    parts = ("input_s", "device_wait_s", "compile_s", "operators_s", "other_threads_s", "python_s")
    assert sum(host[part] for part in parts) == pytest.approx(host["window_s"])
    assert host["operators_s"] > 0.2 * host["window_s"]
    assert any(row["name"] == "aten::mm" for row in body["trace"]["operators"])
    assert body["slowdown_ratio"] > 0
    assert body["throughputs"]["throughput_tokens_per_s"] == pytest.approx(8 / body["step_s"], rel=0.5)
    files = {kind: Path(path) for kind, path in body["files"].items()}
    assert all(path.is_file() for path in files.values())
    chrome = json.loads(gzip.decompress(files["trace"].read_bytes()))
    assert {"autotune#steps", "autotune#step"} <= {event["name"] for event in chrome["traceEvents"]}
    page = files["page"].read_text()
    assert "aten::mm" in page
    for far in ("http://", "https://", "src=", "@import", "url("):
        assert far not in page.replace("https://www.speedscope.app", ""), "the page needs no network"
    if sampler.find() and "speedscope" in files:
        frames = {frame["name"] for frame in json.loads(files["speedscope"].read_text())["shared"]["frames"]}
        assert any("Attention.forward" in name or "generate" in name for name in frames)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """The profile of 4 ms sleeps."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "sleeper.yaml").write_text(SLEEPER)
    return sleeper(folder / "sleeper.yaml", folder / "out")


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """What the command said of 2 ms sleeps, and the values that it wrote."""
    folder = tmp_path_factory.mktemp("fast")
    (folder / "sleeper.yaml").write_text(SLEEPER)
    done = autotune("profile", folder / "sleeper.yaml", "-o", folder / "out", "--set", "fast=1", "--steps", 2)
    assert done.exit_code == 0, done.output
    return done, json.loads((folder / "out" / "profile.json").read_text())


def test_the_summary_fits_a_terminal_and_names_nvprofs_successors(fast):
    done, _ = fast
    assert "sleeper, fast=1" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "nsys and ncu" in done.stdout
    assert "running: " in done.stderr
    helped = autotune("profile", "--help").output
    assert "nvprof" in helped
    assert "nsys profile" in helped


def test_the_step_is_timed_without_the_profiler(slow, fast):
    _, values = fast
    assert slow.step_s > 1.4 * values["step_s"]
    assert slow.step_s >= 0.004
    assert slow.trace.host.python_s == pytest.approx(slow.trace.window_s, rel=0.05), "it only sleeps"
    assert slow.cpu.main_ratio < 0.8


def test_sampling_sees_where_it_waits(slow):
    if not slow.stacks:
        pytest.skip(slow.notes[0])
    lines = {stack.frames[-1] for stack in slow.stacks if stack.frames}
    assert any(line.startswith("OpenReplay.step (") for line in lines), lines
    assert not any("autotuner/profiling" in frame for stack in slow.stacks for frame in stack.frames)


@pytest.mark.slow
def test_without_py_spy_the_rest_goes_on(file, tmp_path, monkeypatch):
    empty = tmp_path / "bin"
    empty.mkdir()
    (empty / "python").symlink_to(sys.executable)  # nothing beside it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setattr(sys, "executable", str(empty / "python"))
    found = sleeper(file, tmp_path / "out")
    assert found.stacks == ()
    assert len(found.notes) == 1
    assert "py-spy is not installed" in found.notes[0]
    assert found.cpu.threads
    assert "speedscope" not in found.files


def test_a_forbidden_look_is_one_line():
    assert "SYS_PTRACE" in sampler._reason("Error: Permission Denied: Try running again with elevated permissions")
    assert "SYS_PTRACE" in sampler._reason("Error: Failed to suspend process\nReason: EPERM: Operation not permitted")
    assert "py-spy failed: Error: no Python" in sampler._reason("noise\nError: no Python found\n")


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("invalid", UsageError, "these two do not go together"),
        ("unsupported", MachineError, "unsupported: this machine lacks the kernel"),
        ("error", MachineError, "crashed: RuntimeError: the workload is broken"),
        ("exit", MachineError, "the profiled process failed: exit code 7"),
        ("segfault", MachineError, "the profiled process failed: killed by SIGSEGV"),
    ],
)
def test_a_failing_workload_is_one_line(file, tmp_path, fault, error, words):
    with pytest.raises(error, match=words) as caught:
        sleeper(file, tmp_path / "out", f'workload.fault={{"{fault}": "fast >= 0"}}')
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_hanging_workload_is_killed(file, tmp_path):
    with pytest.raises(MachineError, match="gave no result within"):
        sleeper(file, tmp_path / "out", 'workload.fault={"hang": "fast >= 0"}', "protocol.time_limit_s=4", sample_s=0.1)


def test_an_unwritable_folder_is_one_line(file, tmp_path):
    (tmp_path / "taken").write_text("")
    done = autotune("profile", file, "-o", tmp_path / "taken" / "out")
    assert done.exit_code == 3
    assert done.stderr.splitlines()[-1].startswith("error: cannot write ")


def test_a_file_or_a_study_and_not_both(file):
    for words in ([], [file, "--best", "x"]):
        done = autotune("profile", *words)
        assert done.exit_code == 2
        assert "give a study file, or --best STUDY" in done.stderr


@pytest.mark.slow
def test_the_best_of_a_study(file, tmp_path):
    db = str(tmp_path / "record.db")
    quick = ["--set", "budget.trials=2", "--set", "budget.max_pairs=12"]
    started = autotune("study", "start", file, "--db", db, "--json", *quick)
    assert started.exit_code == 0, started.output
    recommended = json.loads(started.stdout)["config"]
    done = autotune("profile", "--best", "sleeper", "--db", db, "-o", tmp_path / "out", "--steps", 2, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["config"] == recommended
    unknown = autotune("profile", "--best", "slipper", "--db", db)
    assert unknown.exit_code == 2


def test_an_interruption_ends_the_tree(file, tmp_path):
    out = tmp_path / "out"
    words = ["profile", str(file), "-o", str(out), "--set", "workload.open_s=50"]
    program = "from autotuner.cli.main import app; app()"
    with subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True) as command:
        deadline_s = time.monotonic() + 60
        while not children_of(command.pid) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        (child,) = children_of(command.pid)
        command.send_signal(signal.SIGTERM)
        _, errors = command.communicate(timeout=60)
    assert command.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted: no profile was written"
    assert not Path(f"/proc/{child}").exists()


def children_of(pid):
    from autotuner.monitor import host

    return host.children(pid)
