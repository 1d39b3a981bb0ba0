"""How long does it take from `git clone` to the first verified winner, and to the file that puts it to use?

Clones this repository into an empty folder and does there what the README says, each step in its own process: make
setup, make tune, autotune export, autotune study report. Nothing is downloaded but the packages; how long those take
depends on where they come from, so that every step is printed.

Run `python benchmarks/first_winner.py [--json OUT]`.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import results

ROOT = Path(__file__).parents[1]
AUTOTUNE = ".venv/bin/autotune"
STEPS = {
    "clone": ["git", "clone", "-q", str(ROOT), "autotune"],
    "setup": ["make", "setup"],
    "tune": ["make", "tune"],
    "export": [AUTOTUNE, "export", "inference", "--to", "transformers"],
    "report": [AUTOTUNE, "study", "report", "inference"],
}
EXPORT_GOAL_S = 0.5


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    seconds: dict[str, float] = {}
    printed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, argv in STEPS.items():
            where = Path(folder) if name == "clone" else Path(folder) / "autotune"
            begun_s = time.monotonic()
            done = subprocess.run(argv, cwd=where, capture_output=True, text=True, check=False)
            seconds[name] = time.monotonic() - begun_s
            printed[name] = done.stderr + done.stdout
            print(f"{name:7} {seconds[name]:8.2f} s   {' '.join(argv)}", flush=True)
            if done.returncode:
                raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        shown = subprocess.run(
            [AUTOTUNE, "study", "show", "inference", "--json"], cwd=Path(folder) / "autotune", capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(shown.stdout)["verifications"][-1]
    winner_s = sum(seconds[name] for name in ("clone", "setup", "tune"))
    print(f"{found['decision']}, {found['gain_ratio']:.2f}x, {winner_s / 60:.1f} minutes after `git clone`")
    samples = {"seconds": seconds, "decision": found["decision"], "gain_ratio": found["gain_ratio"],
               "gain_interval": found["gain_interval"], "printed": printed["tune"]}  # fmt: skip
    results.publish(given.json, samples, {
        f"verified BETTER, {winner_s / 60:.1f} minutes after git clone": found["decision"] == "BETTER",
        f"export {seconds['export']:.2f} s, at most {EXPORT_GOAL_S}": seconds["export"] <= EXPORT_GOAL_S,
    })  # fmt: skip


if __name__ == "__main__":
    main()
