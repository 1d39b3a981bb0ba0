"""The baseline against itself, for real: how often is it called BETTER on this machine as it is?

    python benchmarks/against_itself.py [--contests 40] [--json OUT]

Each contest is the product's own: fresh processes, interleaved windows, the same stop rule and verdict, on the model of
search_spaces/inference.yaml with 4 new tokens. Beside it, on the very same data, what a naive rule would have said: one
window of each arm, and whoever is more than 1 % faster is better. Goal: BETTER in at most 2 % of the contests.
"""

import argparse
import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from results import describe_machine, publish

from autotuner.api import read_spec
from autotuner.events import ignore
from autotuner.jobs import Jobs
from autotuner.plugins import modules_of
from autotuner.types import Decision
from autotuner.verify.contest import contest

FILE = Path(__file__).parent.parent / "search_spaces" / "inference.yaml"
OVERRIDES = ("workload.new_tokens=4", "equivalence.guard=false", "protocol.min_measure_s=0.25")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contests", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(describe_machine())
    spec = read_spec(FILE, OVERRIDES)
    decisions: Counter[Decision] = Counter()
    naive_better, rows = 0, list[dict[str, Any]]()
    with TemporaryDirectory() as folder, spec.executor.open(modules_of(spec.workload, spec.probes)) as pool:
        for number in range(options.contests):
            found = contest(
                pool, Jobs(spec, Path(folder)).window, spec.baseline, spec.baseline, spec.objective,
                stage=f"self{number}", seed=number, max_pairs=16, deadline=lambda: math.inf,
                listener=ignore,
            )  # fmt: skip
            decisions[found.decision] += 1
            first = found.pairs[0]
            naive_better += first.candidate > 1.01 * first.baseline
            low, high = found.gain_interval
            rows.append(
                {
                    "decision": found.decision, "gain_ratio": found.gain_ratio, "gain_interval": [low, high],
                    "pair_sd": found.estimate.pair_sd, "pairs": [[p.candidate, p.baseline] for p in found.pairs],
                    "contended": sum(pair.contended for pair in found.pairs),
                }
            )  # fmt: skip
            print(
                f"{number:3} {found.decision:9} {found.gain_ratio:.4f} [{low:.4f}, {high:.4f}] {len(found.pairs)} pairs"
            )
    covered = sum(row["gain_interval"][0] <= 1 <= row["gain_interval"][1] for row in rows)
    total = options.contests
    print(", ".join(f"{count} {decision}" for decision, count in decisions.most_common()), f"of {total}")
    print(
        f"interval covers 1: {covered} of {total}; one window each and > 1 %: {naive_better} of {total} called better"
    )
    goals = {
        "BETTER in at most 2 %": decisions[Decision.BETTER] <= 0.02 * total,
        "coverage >= 93 %": covered >= 0.93 * total,
    }
    publish(options.json, {"decisions": dict(decisions), "naive_better": naive_better, "contests": rows}, goals)


if __name__ == "__main__":
    main()
