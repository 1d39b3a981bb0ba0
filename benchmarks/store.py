"""How fast the record is: appends, reading, and a cold `study show`, with 10,000 and 100,000 trials.

Run `python benchmarks/store.py [--json OUT] [--folder FOLDER]`. FOLDER decides which disk is measured.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from autotuner.store import Study, open_record
from autotuner.types import Binding, Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict

ENVIRONMENT = {name: f"a text as long as {name}'s" for name in ("gpu", "driver", "cuda", "torch", "model", "cpu")}
APPENDS = 300
SHOW = """
import sys, time
start = time.perf_counter()
from autotuner.store import open_record
with open_record(sys.argv[1]) as record:
    study = record.study("bench")
    shown = (study.spec(), study.count(), study.failures(), study.best(10, maximize=True), study.last(10),
             study.verifications())
assert shown[1] == int(sys.argv[2])
"""


class Spec(SimpleNamespace):
    """As much of a study's specification as the record looks at."""

    def dump(self) -> dict[str, Any]:
        """What `StudySpec.dump` would give."""
        return {"name": "bench", "parameters": {f"p{i}": {"int": [1, 64], "default": 1} for i in range(12)}}


def make_trial(number: int) -> Trial:
    """A trial of usual size: 12 parameters, three series of 60 samples, a diagnosis; every tenth failed."""
    config = {f"p{i}": (number * (i + 7)) % 64 for i in range(12)}
    if number % 10 == 9:
        return Trial(number, config, Origin.SAMPLER, Failure(FailureKind.OUT_OF_MEMORY, "out of memory", "log"), None)
    series = enumerate(("throughput_tokens_per_s", "block_s", "wait_s"), start=31)
    samples = {name: tuple((number * step + i) ** 0.5 for i in range(60)) for step, name in series}
    measurement = Measurement(
        samples, 1.5, 0.5, 3.0, {f"signal_{i}": i / 7 for i in range(10)}, ENVIRONMENT, datetime.now(UTC)
    )
    evidence = {f"evidence_{i}_ratio": i / 3 for i in range(6)}
    verdict = Verdict(
        {"throughput_tokens_per_s": (number * 7919 % 104729) / 10, "latency_p50_s": 0.1},
        {"latency_p99_s <= 1 s": -0.5 if number % 7 else 0.5},
        Diagnosis(Binding.MEMORY_BANDWIDTH, "Memory bandwidth binds: 80 % of what was measured here.", evidence, 0.8),
    )
    return Trial(number, config, Origin.SAMPLER, measurement, verdict)


def timed(work: Callable[[], object], repeats: int = 5) -> float:
    """Median seconds of a few calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2]


def append_times(study: Study, first: int) -> Iterator[float]:
    """Seconds of single appends, each on the disk when it returns."""
    for number in range(first, first + APPENDS):
        trial = make_trial(number)
        start = time.perf_counter()
        study.append_trial(trial)
        yield time.perf_counter() - start


def measure(path: Path, trials: int) -> dict[str, float]:
    """Build a record of so many trials and measure it at that size."""
    result: dict[str, float] = {"trials": trials}
    with open_record(str(path)) as record:
        spec = Spec(objective=SimpleNamespace(metric="throughput_tokens_per_s", sign=1))
        study = record.create(spec, "bench")  # type: ignore[arg-type]
        start = time.perf_counter()
        study.append_trials(make_trial(number) for number in range(trials - APPENDS))
        result["bulk_append_s_per_trial"] = (time.perf_counter() - start) / (trials - APPENDS)
        appends = sorted(append_times(study, trials - APPENDS))
        result["append_p50_s"], result["append_p99_s"] = appends[APPENDS // 2], appends[APPENDS * 99 // 100]
        result["file_bytes_per_trial"] = path.stat().st_size / trials
        result["overview_s"] = timed(record.overview)
        result["count_s"] = timed(study.count)
        result["failures_s"] = timed(study.failures)
        result["best_10_s"] = timed(lambda: study.best(10, maximize=True))
        result["last_10_s"] = timed(lambda: study.last(10))
        result["trials_without_samples_s"] = timed(lambda: study.trials(samples=False), repeats=3)
        result["trials_with_samples_s"] = timed(study.trials, repeats=1)
    show = [sys.executable, "-c", SHOW, str(path), str(trials)]
    result["cold_show_s"] = timed(lambda: subprocess.run(show, check=True))
    result["cold_python_s"] = timed(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
    return result


def machine() -> dict[str, Any]:
    """Where this was measured, and with what."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu_cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "sqlalchemy": version("sqlalchemy"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--folder", type=Path, help="where to build the records; default: the temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="autotune-bench-", dir=arguments.folder))
    try:
        report = {**machine(), "records": [measure(folder / f"{n}.db", n) for n in (10_000, 100_000)]}
    finally:
        shutil.rmtree(folder)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    assert report["records"][-1]["cold_show_s"] < 1, "a cold `study show` at 100,000 trials takes a second or more"


if __name__ == "__main__":
    main()
