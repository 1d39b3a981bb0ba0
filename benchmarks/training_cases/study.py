"""Ours: `python -m training_cases.study FILE [KEY=VALUE …]` runs a study and prints the JSON line that peers print."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autotuner.api import open_record, recommendation, start
from autotuner.types import Failure

SPACES = Path(__file__).parent / "spaces"


def main() -> None:
    name, *overrides = sys.argv[1:]
    began_s = time.perf_counter()
    with TemporaryDirectory() as folder:
        db = str(Path(folder) / "autotune.db")
        summary = start(SPACES / f"{name}.yaml", overrides=overrides, db=db)
        spent_s = time.perf_counter() - began_s
        with open_record(db) as record:
            study = record.study(summary.name)
            config = dict(recommendation(study).config)
            trials = [trial_row(trial) for trial in study.trials(samples=False)]
    found = summary.verification
    raw: dict[str, Any] = {
        "decision": found.decision, "reason": found.reason, "gain_ratio": found.gain_ratio,
        "gain_interval": list(found.gain_interval), "phases_s": dict(summary.phases_s), "trials": trials,
    }  # fmt: skip
    print("\n" + json.dumps({
        "version": version("autotune-loop"), "seconds": spent_s, "changed": config, "trials": summary.trials,
        "claimed_samples_per_s": None, "raw": raw,
    }, default=str))  # fmt: skip


def trial_row(trial: Any) -> dict[str, Any]:
    failed = isinstance(trial.outcome, Failure)
    said = {"failed": str(trial.outcome.kind)} if failed else {"objectives": dict(trial.verdict.objectives)}
    return {"number": trial.number, "config": dict(trial.config), "origin": str(trial.origin), **said}


if __name__ == "__main__":
    main()
