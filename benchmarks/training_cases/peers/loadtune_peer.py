"""loadtune's command line with all that it offers: three repeats, two rounds, batch scaling, a process a trial.

On a CPU its batch scaling has nothing to go by and never fires. Its best is read from the raw numbers it saves, by its
own rule.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from loadtune.experiment import Trial, best_trial
from loadtune.knobs import Knobs

from training_cases.case import Case
from training_cases.peers.answer import Found, answer

WORKLOAD = Path(__file__).with_name("loadtune_workload.py")
STEPS, REPEATS, ROUNDS = 50, 3, 2


def tune(case: Case) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        ran = subprocess.run(
            [
                sys.executable, "-m", "loadtune.cli", "tune", str(WORKLOAD), "--steps", str(STEPS),
                "--workers", str(case.baseline["num_workers"]), "--batch-size", str(case.baseline["batch_size"]),
                "--repeats", str(REPEATS), "--max-rounds", str(ROUNDS), "--auto-batch", "--no-plots",
                "--out", str(Path(folder) / "report.md"), "--save-raw", str(raw),
            ],
            env={**os.environ, "TRAINING_CASE": case.name}, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if not raw.exists():
            return Found({}, 1, raw={"gave_up": ran.stdout[-500:]})
        return chosen(json.loads(raw.read_text()), ran.stdout)


def chosen(raw: dict[str, Any], said: str) -> Found:
    baseline, trials = raw["baseline"], raw["trials"]
    best = best_trial([Trial(Knobs.from_dict(t["knobs"]), t["reason"], t["result"]) for t in trials])
    for result in [baseline, *(trial["result"] for trial in trials)]:
        result.pop("step_data_wait_ms", None)
        result.pop("step_compute_ms", None)
    rounds = said.count("baseline run:")
    record = {"said": said.splitlines(), "baseline": baseline, "trials": trials}
    if best is None or best.throughput <= baseline["throughput"]:
        return Found({}, rounds + len(trials), baseline["throughput"], record)
    return Found(settings(best.knobs), rounds + len(trials), best.throughput, record)


def settings(knobs: Knobs) -> dict[str, Any]:
    """Its names for ours; None is torch's default, and of threads the baseline's."""
    threads = {} if knobs.num_threads is None else {"threads": knobs.num_threads}
    return {
        **threads,
        "batch_size": knobs.batch_size,
        "num_workers": knobs.num_workers,
        "prefetch_factor": knobs.prefetch_factor or 2,
        "persistent_workers": knobs.persistent_workers,
        "pin_memory": knobs.pin_memory,
        "compile": "default" if knobs.compile else "none",
        "precision": "bfloat16" if knobs.amp else "float32",
    }


if __name__ == "__main__":
    answer("loadtune", tune)
