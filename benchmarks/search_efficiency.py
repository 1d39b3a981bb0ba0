"""How many evaluations does a search need? Replays on recorded landscapes, through `adjust.propose` and by peers.

Every strategy begins with the same baseline, by lot, and sees one configuration after the other. A failed one costs an
evaluation. ERT is the mean number of evaluations to come within 5 % or 10 % of the optimum, misses counted; `best@n` is
the best so far over the optimum. Both stand beside exact random search. `--noise` shows one recorded repeat instead of
the mean; what is recommended is judged by its mean.

Run `python benchmarks/search_efficiency.py --landscapes DIR [--strategies gp,tpe,random,optuna-tpe] [--seeds N]
[--budget B] [--noise] [--json OUT]` on a folder of files in Kernel Tuner's cache format. Strategies without a dash are
our own (`autotune study start --strategy`), `kt-NAME` is Kernel Tuner's NAME where it is installed.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, TypeAlias

import results
from search_replay import scores
from search_replay.arms import Run, optuna_peer, ours
from search_replay.kernel_tuner_peer import kernel_tuner_peer
from search_replay.landscape import Landscape, read_landscape

SHARES = (0.05, 0.10)
COUNTS = (10, 20, 25, 50, 100)
DEFAULT = "gp,tpe,random,optuna-tpe"
WORKLOADS = ("train_", "serve_")  # names of landscapes that are no kernels
Search: TypeAlias = Callable[[Landscape, int, int, Random | None], Run]


def searcher(name: str) -> Search:
    """By the name of a strategy."""
    library, _, strategy = name.partition("-")
    if library == "optuna":
        return optuna_peer(strategy)
    if library == "kt":
        return kernel_tuner_peer(strategy)
    return lambda landscape, seed, budget, noise: ours(landscape, name, seed, budget, noise)


def replay(landscape: Landscape, name: str, seeds: int, budget: int, *, noisy: bool) -> list[Run]:
    """One search a seed."""
    search = searcher(name)
    return [
        search(landscape, seed, min(budget, len(landscape.repeats)), Random(f"noise/{seed}") if noisy else None)
        for seed in range(seeds)
    ]


def score(landscape: Landscape, runs: Sequence[Run]) -> dict[str, Any]:
    """Of one strategy on one landscape."""
    found: dict[str, Any] = {}
    for share in SHARES:
        target = (1 + share) * landscape.optimum
        ert = scores.expected_evaluations(runs, target)
        by_lot = scores.random_evaluations_to(landscape, target)
        found[f"ert_{share:.0%}"] = ert
        spent = sum(len(run.means) for run in runs)  # nobody got there: it takes that many at least
        found[f"speedup_{share:.0%}"] = by_lot / min(ert, spent)
        found[f"hits_{share:.0%}"] = sum(scores.evaluations_to(run, target) is not None for run in runs)
        ends = scores.interval(runs, lambda some, goal=target: scores.expected_evaluations(some, goal))
        found[f"speedup_interval_{share:.0%}"] = [by_lot / end for end in reversed(ends)]
    for count in COUNTS:
        best = [scores.best_after(run, count, landscape.optimum) for run in runs]
        found[f"best@{count}"] = scores.geometric_mean(best)
        found[f"random_best@{count}"] = scores.random_best_after(landscape, count)
    asked = sum(len(run.proposal_s) for run in runs)
    found["recommended"] = scores.geometric_mean([(run.recommended or math.inf) / landscape.optimum for run in runs])
    found["failed_share"] = sum(mean is None for run in runs for mean in run.means) / sum(
        len(run.means) for run in runs
    )
    found["duplicate_share"] = sum(run.duplicates for run in runs) / asked
    found["illegal_share"] = sum(run.illegal for run in runs) / asked
    found["proposal_ms"] = 1e3 * median(seconds for run in runs for seconds in run.proposal_s)
    return found


def show(landscape: Landscape, found: Mapping[str, Mapping[str, Any]], seeds: int) -> None:
    """A table a landscape."""
    failed = len(landscape.repeats) - len(landscape.means)
    print(f"\n{landscape.name}: {len(landscape.repeats)} configurations, {failed} fail")
    heads = (
        "",
        "ERT 5 %",
        "to random",
        "hit",
        "to random, 10 %",
        "best@25",
        "best@50",
        "failed",
        "dupl.",
        "illegal",
        "ms",
    )
    print("{:28} {:>8} {:>22} {:>6} {:>15} {:>8} {:>8} {:>7} {:>6} {:>7} {:>6}".format(*heads))
    for name, row in found.items():
        low, high = row["speedup_interval_5%"]
        speedup = f"{row['speedup_5%']:.2f} [{low:.2f}, {high:.2f}]"
        print(
            f"{name:28} {row['ert_5%']:8.0f} {speedup:>22} "
            f"{row['hits_5%']:3}/{seeds:<2} {row['speedup_10%']:15.2f} {row['best@25']:8.3f} {row['best@50']:8.3f} "
            f"{row['failed_share']:7.1%} {row['duplicate_share']:6.2f} {row['illegal_share']:7.2f} "
            f"{row['proposal_ms']:6.1f}",
            flush=True,
        )


def summarize(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """Geometric means over the landscapes, by strategy."""
    names = list(next(iter(found.values())))
    columns = [f"speedup_{share:.0%}" for share in SHARES] + [f"best@{count}" for count in COUNTS]
    columns += [f"random_best@{count}" for count in COUNTS]
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        each = [rows_of[name] for rows_of in found.values()]
        rows[name] = {column: scores.geometric_mean([max(1e-9, row[column]) for row in each]) for column in columns}
        rows[name]["recommended"] = scores.geometric_mean([row["recommended"] for row in each])
        rows[name]["worst_speedup_5%"] = min(row["speedup_5%"] for row in each)
    return rows


def judge(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, bool]:
    """What is promised of our own strategy; kernels and whole workloads have goals of their own."""
    own = {name: rows["gp"] for name, rows in found.items() if "gp" in rows}
    goals: dict[str, bool] = {}
    for kind, speedup, bests in (("kernels", 10.0, {25: 1.15, 50: 1.08}), ("workloads", 3.0, {20: 1.25})):
        rows = [row for name, row in own.items() if name.startswith(WORKLOADS) == (kind == "workloads")]
        if not rows:
            continue
        mean = scores.geometric_mean([row["speedup_5%"] for row in rows])
        goals[f"{kind}: {mean:.2f} times faster than random to 5 %, at least {speedup:g}"] = mean >= speedup
        for count, most in bests.items():
            best = scores.geometric_mean([row[f"best@{count}"] for row in rows])
            goals[f"{kind}: best after {count} is {best:.3f} of the optimum, at most {most}"] = best <= most
    slow = [f"{name} {row['speedup_5%']:.2f}" for name, row in own.items() if row["speedup_5%"] < 1]
    goals["nowhere slower than random" + (f": {', '.join(slow)}" if slow else "")] = not slow
    behind = [
        f"{name} @{count}"
        for name, rows in found.items()
        for count in (25, 50)
        if "optuna-tpe" in rows and rows["gp"][f"best@{count}"] > rows["optuna-tpe"][f"best@{count}"] + 0.05
    ]
    goals["nowhere more than 5 points behind TPE" + (f": {', '.join(behind)}" if behind else "")] = not behind
    wasted = sum(row["duplicate_share"] + row["illegal_share"] for row in own.values())
    goals["nothing illegal, nothing twice"] = wasted == 0
    slowest_ms = max(row["proposal_ms"] for row in own.values())
    goals[f"a proposal takes {slowest_ms:.0f} ms where it takes longest, less than 50"] = slowest_ms < 50
    return goals


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", type=Path, required=True, help="a folder")
    parser.add_argument("--strategies", default=DEFAULT, help="separated by commas")
    parser.add_argument("--seeds", type=int, default=11)
    parser.add_argument("--budget", type=int, default=100, help="evaluations")
    parser.add_argument("--noise", action="store_true", help="one repeat instead of the mean")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    files = sorted(path for path in given.landscapes.iterdir() if path.name.endswith((".json", ".json.gz")))
    if not files:
        parser.error(f"no landscape in {given.landscapes}: files in Kernel Tuner's cache format, .json or .json.gz")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    raw: dict[str, dict[str, list[dict[str, Any]]]] = {}
    began_s = time.monotonic()
    for path in files:
        landscape = read_landscape(path)
        runs = {
            name: replay(landscape, name, given.seeds, given.budget, noisy=given.noise)
            for name in given.strategies.split(",")
        }
        found[landscape.name] = {name: score(landscape, each) for name, each in runs.items()}
        raw[landscape.name] = {name: [asdict(run) for run in each] for name, each in runs.items()}
        show(landscape, found[landscape.name], given.seeds)
        overall = summarize(found)
        if given.json:  # after each, for some peers take long on a space that is smaller than the budget
            results.write(given.json, {"scores": found, "overall": overall, "runs": raw, "options": str(given)}, {})
    print(
        f"\ngeometric means over {len(found)} landscapes; times faster than random to 5 % and 10 %, best over optimum"
    )
    for name, row in overall.items():
        best = "  ".join(f"@{count} {row[f'best@{count}']:.3f}" for count in COUNTS)
        speedups = f"{row['speedup_5%']:6.2f} {row['speedup_10%']:6.2f}"
        print(f"{name:28} {speedups}   {best}   chosen {row['recommended']:.3f}   worst {row['worst_speedup_5%']:.2f}")
    by_lot = next(iter(overall.values()))
    best = "  ".join(f"@{count} {by_lot[f'random_best@{count}']:.3f}" for count in COUNTS)
    print(f"{'random, exactly':28} {1:6.2f} {1:6.2f}   {best}")
    print(f"{time.monotonic() - began_s:.0f} s")
    if all("gp" in rows for rows in found.values()):
        samples = {"scores": found, "overall": overall, "runs": raw, "options": str(given)}
        results.publish(given.json, samples, judge(found))


if __name__ == "__main__":
    main()
