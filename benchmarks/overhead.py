"""What a trial costs besides its work: isolated, live, and the command line's start.

    python benchmarks/overhead.py [--trials 200] [--json OUT]

Measured side by side in one run: a new interpreter that imports torch and transformers (what a trial costs without a
fork server), a fresh worker for an empty workload, a live-parameter trial of it, and `autotune --help` against an empty
Python. Goals: fresh at most 0.05 s, live at most 0.01 s (medians), help at most 0.15 s over an empty Python.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from results import describe_machine, publish

from autotuner.executors.process import ProcessExecutor
from autotuner.metrics import median, quantile
from autotuner.plugins import Job, WorkerPool, modules_of
from autotuner.testing.replay import Replay
from autotuner.types import Measurement, MeasurementProtocol
from autotuner.workloads.transformers_inference import TransformersInference

EMPTY = MeasurementProtocol(
    block_s=1e-6, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0, min_blocks=1, min_measure_s=0, max_measure_s=0
)


def timed(function: Callable[..., object], *arguments: object) -> float:
    began_s = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began_s


def run_command(argv: list[str]) -> None:
    subprocess.run(argv, capture_output=True, check=True)


def run_trial(pool: WorkerPool, number: int, folder: Path, live: bool) -> None:
    config = {"fixed": 0 if live else number, "live": number}
    job = Job(Replay(step_s="0"), config, EMPTY, live=frozenset({"live"}), log_path=folder / "logs" / "trial.log")
    outcome = pool.submit(job).result()
    assert isinstance(outcome, Measurement), outcome
    assert outcome.reused is live or number == 0


def measure(trials: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {}
    autotune = str(Path(sys.executable).with_name("autotune"))
    commands = {
        "empty_python_s": [sys.executable, "-c", "pass"],
        "autotune_help_s": [autotune, "--help"],
        "new_interpreter_s": [sys.executable, "-c", "import torch, transformers.models.glm4.modeling_glm4"],
    }
    for name, argv in commands.items():
        rounds = 3 if name == "new_interpreter_s" else 15
        samples[name] = [timed(run_command, argv) for _ in range(rounds)]
    workload = TransformersInference(config={"model_type": "glm4"})
    modules = modules_of(workload, ()) + modules_of(Replay(), ())
    with TemporaryDirectory() as folder, ProcessExecutor().open(modules) as pool:
        run_trial(pool, 0, Path(folder), False)
        for live, name in ((False, "fresh_trial_s"), (True, "live_trial_s")):
            if live:
                run_trial(pool, 0, Path(folder), False)
            samples[name] = [timed(run_trial, pool, n, Path(folder), live) for n in range(1, trials + 1)]
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(describe_machine())
    samples = measure(options.trials)
    for name, values in samples.items():
        print(f"{name:20} median {median(values):8.4f}  p95 {quantile(values, 0.95):8.4f}  n {len(values)}")
    help_s = median(samples["autotune_help_s"]) - median(samples["empty_python_s"])
    goals = {
        "fresh trial <= 0.05 s": median(samples["fresh_trial_s"]) <= 0.05,
        "live trial <= 0.01 s": median(samples["live_trial_s"]) <= 0.01,
        f"--help over an empty Python: {help_s:.3f} s <= 0.15 s": help_s <= 0.15,
    }
    publish(options.json, samples, goals)


if __name__ == "__main__":
    main()
