"""The examples run as they are: by themselves, and as the studies that the documentation names."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner import api
from autotuner.types import Decision, Measurement

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = {"plain_pytorch": "my_loop", "lightning_module": "my_lightning", "hf_trainer": "my_trainer"}
NEEDS = {"plain_pytorch": "torch", "lightning_module": "lightning", "hf_trainer": "accelerate"}
BRIEF = (
    "budget.trials=2", "budget.max_pairs=6", "budget.minutes=0.25", "workload.guard_steps=5",
    "protocol.block_s=0.001", "protocol.warmup_min_s=0", "protocol.warmup_max_s=0", "protocol.min_measure_s=0.01",
    "protocol.max_measure_s=0.05", "protocol.contended_retries=0",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize(
        "example",
        [
            pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(needed), reason=f"no {needed}"))
            for name, needed in NEEDS.items()
        ],
    ),
]


def test_an_example_is_tuned(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or threads of small models wait for each other on a busy machine
    db = str(tmp_path / "autotune.db")
    summary = api.start(ROOT / "search_spaces" / f"{EXAMPLES[example]}.yaml", overrides=BRIEF, db=db)
    assert summary.decision is not Decision.INVALID, summary.reason
    with api.load_study(summary.name, db) as study:
        trials = study.trials()
    assert trials, "the baseline at least; a busy machine leaves time for no more"
    for trial in trials:
        assert isinstance(trial.outcome, Measurement), trial.outcome
        assert trial.outcome.samples["loss"]
        assert trial.outcome.samples["throughput_samples_per_s"]
        assert trial.outcome.telemetry["step_flops"] > 0, "whoever owns the loop, its operations are seen"
        assert "loss_error_ratio" in trial.outcome.samples, "the losses are compared with the baseline's"


def test_an_example_trains_without_autotune(example: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT / "examples" / f"{example}.py")],
        capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = [float(line.rpartition("loss ")[2]) for line in done.stdout.splitlines() if "loss " in line]
    assert losses[-1] < losses[0], "it learns"


# As `python FILE`, where nothing of autotune can be imported.
ALONE = """
import runpy, sys
sys.modules["autotuner"] = None
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_what_an_example_adds_for_autotune_is_ten_lines_at_most(example: str) -> None:
    text = (ROOT / "examples" / f"{example}.py").read_text()
    marked = [line for line in text.splitlines() if "# autotune: the one line" in line]
    adapter = text.partition("# autotune: the adapter\n")[2].partition("\n\n\n")[0]
    lines = marked or [line for line in adapter.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 10
    assert ("yield" in lines[0]) if marked else ("report" in adapter)
