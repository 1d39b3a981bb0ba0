"""How often does the canary's judge promote what it should not, and what it should?

Simulated canaries with log-normal noise, one window of both arms after the other, judged after every second of them
until it is settled. Beside it the rule of Kayenta as its source has it: a canary passes unless a Mann-Whitney interval
(98 %) of the difference lies beyond a quarter of its own size; it looks once, at all windows.

Run `python benchmarks/canary_judge.py [--runs 1000] [--json OUT]`.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import NormalDist

import results

from autotuner.analyze.canary import judge_canary
from autotuner.types import CanaryRules, Guard, Ruling, Window

METRIC = "latency_p95_s"
AIM = Guard(METRIC, maximize=False)
RULES = CanaryRules()


def arms(effect: float, noise: float, count: int, alike: float, seed: int) -> list[tuple[float, float]]:
    """(baseline, candidate) of each window; `alike` is the correlation of neighbours within each arm."""
    draw, sigma = Random(seed), math.sqrt(math.log(1 + noise**2))
    state = [draw.gauss(0, sigma) for _ in range(2)]
    found = []
    for _ in range(count):
        found.append((0.2 * math.exp(state[0]), 0.2 * effect * math.exp(state[1])))
        state = [alike * one + math.sqrt(1 - alike**2) * draw.gauss(0, sigma) for one in state]
    return found


def ours(pairs: list[tuple[float, float]], most: int) -> tuple[Ruling, int]:
    """The ruling, and after how many windows."""
    rules = replace(RULES, most_windows=most)
    windows = [Window({METRIC: baseline}, {METRIC: candidate}) for baseline, candidate in pairs[:most]]
    for count in range(rules.least_windows, most + 1, 2):
        verdict = judge_canary(windows[:count], AIM, (), rules)
        if verdict.settled:
            return verdict.ruling, count
    return verdict.ruling, most


def kayenta_passes(pairs: list[tuple[float, float]]) -> bool:
    """The Hodges-Lehmann shift's interval, against a quarter of the shift (its MannWhitneyClassifier)."""
    shifts = sorted(candidate - baseline for baseline, _ in pairs for _, candidate in pairs)
    count = len(pairs)
    reach = NormalDist().inv_cdf(0.99) * math.sqrt(count * count * (2 * count + 1) / 12)
    place = max(0, math.floor(count * count / 2 - reach))
    middle = shifts[len(shifts) // 2]
    return not shifts[place] > 0.25 * abs(middle)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    heads = ("latency", "noise", "alike", "windows", "passed", "failed", "median", "Kayenta")
    print("{:>8} {:>6} {:>6} {:>8} {:>8} {:>8} {:>7} {:>8}".format(*heads))
    samples = []
    cases = [
        (effect, noise, 0.0, most) for effect in (1.0, 1.1, 0.9) for noise in (0.05, 0.15, 0.3) for most in (30, 120)
    ]
    for effect, noise, alike, most in [*cases, (1.0, 0.15, 0.3, 120), (1.0, 0.15, 0.5, 120), (1.1, 0.15, 0.5, 30)]:
        drawn = [arms(effect, noise, most, alike, seed) for seed in range(given.runs)]
        ruled = [ours(pairs, most) for pairs in drawn]
        row = {
            "effect": effect, "noise": noise, "alike": alike, "most_windows": most, "runs": given.runs,
            "passed": sum(ruling is Ruling.PASS for ruling, _ in ruled),
            "failed": sum(ruling is Ruling.FAIL for ruling, _ in ruled),
            "median_windows": sorted(count for _, count in ruled)[given.runs // 2],
            "kayenta_passed": sum(map(kayenta_passes, drawn)) if most == 30 else None,
        }  # fmt: skip
        samples.append(row)
        passed, failed = row["passed"] / given.runs, row["failed"] / given.runs
        theirs = "" if row["kayenta_passed"] is None else f"{row['kayenta_passed'] / given.runs:.1%}"
        print(f"{effect:8.2f} {noise:6.2f} {alike:6.1f} {most:8} {passed:8.1%} {failed:8.1%} "
              f"{row['median_windows']:7} {theirs:>8}", flush=True)  # fmt: skip

    def share(effect: float, noises: tuple[float, ...], most: tuple[int, ...], alike: float = 0.0) -> list[float]:
        return [row["passed"] / row["runs"] for row in samples if row["effect"] == effect and row["noise"] in noises
                and row["most_windows"] in most and row["alike"] == alike]  # fmt: skip

    same, worse = max(share(1.0, (0.05, 0.15, 0.3), (30, 120))), max(share(1.1, (0.15, 0.3), (30,)))
    better, depending = min(share(0.9, (0.15,), (120,))), max(share(1.0, (0.15,), (120,), 0.3))
    results.publish(given.json, samples, {
        f"the same is promoted in {same:.1%}, at most 1 %": same <= 0.01,
        f"10 % worse is promoted in {worse:.1%} after 30 windows, at most 1 %": worse <= 0.01,
        f"10 % better is promoted in {better:.1%} at a noise of 0.15, at least 90 %": better >= 0.9,
        f"the same is promoted in {depending:.1%} where neighbours are alike (0.3), at most 2 %": depending <= 0.02,
    })  # fmt: skip


if __name__ == "__main__":
    main()
