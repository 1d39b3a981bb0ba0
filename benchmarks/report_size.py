"""Is the page of a large study quick to write, and small?

A study of 500 and one of 2,000 SYNTHETIC trials, made with the tests' maker; each page is written by `autotune study
report` in a process of its own, and so is the export of the same study to each target that takes it.

Run `python benchmarks/report_size.py [--json OUT]`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import results

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "report"))
from test_study_page import fill  # noqa: E402

from autotuner.store import open_record  # noqa: E402

PROGRAM = "from autotuner.cli.main import app; app()"
TARGETS = ("env", "json", "python", "transformers", "torchrun", "triton", "kubernetes", "kserve", "optuna")
ROUNDS = 5


def timed(*words: object) -> float:
    """Seconds of one command, as a user waits for it."""
    argv = [sys.executable, "-c", PROGRAM, *map(str, words)]
    begun_s = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True)
    return time.monotonic() - begun_s


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    seconds: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (500, 2000):
            db = Path(folder) / f"{count}.db"
            with open_record(str(db)) as record:
                fill(record, count)
            page = Path(folder) / f"{count}.html"
            name = f"report of {count}"
            seconds[name] = [timed("study", "report", "inference", "--db", db, "-o", page) for _ in range(ROUNDS)]
            sizes[name] = page.stat().st_size
        db = Path(folder) / "500.db"
        for target in TARGETS:
            words = ["export", "inference", "--to", target, "--db", db, "--force"]
            seconds[f"export to {target}"] = [timed(*words) for _ in range(ROUNDS)]
    for name, values in seconds.items():
        size = f", {sizes[name] / 2**20:.2f} MiB" if name in sizes else ""
        print(f"{name:24} {median(values):6.2f} s{size}")
    worst = max((name for name in seconds if name.startswith("export")), key=lambda name: median(seconds[name]))
    report_s = median(seconds["report of 500"])
    results.publish(given.json, {"seconds": seconds, "bytes": sizes}, {
        f"report of 500 trials in {report_s:.2f} s, at most 2": report_s <= 2,
        f"and in {sizes['report of 500'] / 2**20:.2f} MiB, at most 5": sizes["report of 500"] <= 5 * 2**20,
        f"{worst}, the slowest, in {median(seconds[worst]):.2f} s, at most 0.5": median(seconds[worst]) <= 0.5,
    })  # fmt: skip


if __name__ == "__main__":
    main()
