"""How often does a verification lie? Simulated studies through the real `contest`, beside rules that people use.

    python benchmarks/false_positives.py [--studies 400] [--json OUT]

Each study is a candidate against the baseline on a simulated machine (`simulated_machine.py`) with 2 % noise from
pair to pair; once the candidate is the baseline's twin (any BETTER is a lie), once it is truly 5 % better. With
launch effects, the processes of one launch differ by a further 1 % (standard deviation of the pair's log ratio).
Only verdicts are counted, so the speed of the machine that runs this does not matter.
"""

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from random import Random
from statistics import NormalDist, fmean, median, stdev

from simulated_machine import NOISES, SimulatedPool, make_job

from autotuner.events import ignore
from autotuner.spec.model import Goal, Objective
from autotuner.types import Decision
from autotuner.verify.contest import contest

PAIR_SD = 0.02
WINDOW_SD = PAIR_SD / math.sqrt(2)
LAUNCH_SD = 0.01 / math.sqrt(2)  # of one process, so that a pair's launches differ by 1 %
GAIN = 1.05
METRIC = "throughput_tokens_per_s"


@dataclass(frozen=True, slots=True)
class Study:
    """One simulated verification: was it called better, after how many pairs, with which gain and interval?"""

    better: bool
    pairs: int
    bias_log: float = 0.0
    covered: bool = True


@dataclass(frozen=True, slots=True)
class Setting:
    """A machine and a truth."""

    noise: str
    launch_sd: float
    gain: float


def simulate(setting: Setting, seed: int) -> Study:
    """A study through the real contest."""
    rng = Random(seed)
    pool = SimulatedPool(
        truth=lambda config: {METRIC: 1000.0 * (setting.gain if config["new"] else 1.0)},
        noise=NOISES[setting.noise](rng, WINDOW_SD),
        rng=Random(seed + 1_000_000),
        launch_sd=setting.launch_sd,
    )
    result = contest(
        pool, make_job, {"new": True}, {"new": False}, Goal((Objective(maximize=METRIC),)),
        stage="contest", seed=seed, deadline=lambda: math.inf, listener=ignore,
    )  # fmt: skip
    low, high = result.gain_interval
    bias = result.estimate.mean - math.log(setting.gain)
    return Study(result.decision is Decision.BETTER, len(result.pairs), bias, low <= setting.gain <= high)


def _arms(setting: Setting, seed: int, count: int) -> tuple[list[float], list[float]]:
    """Two whole runs one after the other, each in a process of its own: the candidate, then the baseline."""
    rng = Random(seed)
    noise = NOISES[setting.noise](rng, WINDOW_SD)
    runs = []
    for gain in (setting.gain, 1.0):
        launch = rng.gauss(0.0, setting.launch_sd) + math.log(gain)
        runs.append([math.exp(launch + log) for log in islice(noise, count)])
    return runs[0], runs[1]


def single_sample(setting: Setting, seed: int) -> Study:
    """One run each; better when it looks 1 % better."""
    (candidate,), (baseline,) = _arms(setting, seed, 1)
    return Study(candidate > 1.01 * baseline, 1, math.log(candidate / baseline / setting.gain))


def welch(setting: Setting, seed: int) -> Study:
    """200 iterations of one, then 200 of the other, Welch's t test at 5 %."""
    candidate, baseline = _arms(setting, seed, 200)
    error = math.sqrt((stdev(candidate) ** 2 + stdev(baseline) ** 2) / 200)
    better = (fmean(candidate) - fmean(baseline)) / error > NormalDist().inv_cdf(0.975)
    return Study(better, 200, math.log(fmean(candidate) / fmean(baseline) / setting.gain))


def mann_whitney(setting: Setting, seed: int) -> Study:
    """200 iterations of one, then 200 of the other, the Mann-Whitney test at 5 %."""
    candidate, baseline = _arms(setting, seed, 200)
    ranked = sorted([(value, 1) for value in candidate] + [(value, 0) for value in baseline])
    ranks = sum(rank for rank, (_, own) in enumerate(ranked, 1) if own)
    score = (ranks - 200 * 401 / 2) / math.sqrt(200 * 200 * 401 / 12)
    bias = math.log(median(candidate) / median(baseline) / setting.gain)
    return Study(score > NormalDist().inv_cdf(0.975), 200, bias)


def peeking(setting: Setting, seed: int) -> Study:
    """Interleaved pairs in one launch, a t test at 5 % after each from the fifth to the thirtieth."""
    rng = Random(seed)
    noise = NOISES[setting.noise](rng, WINDOW_SD)
    launch = rng.gauss(0.0, setting.launch_sd * math.sqrt(2)) + math.log(setting.gain)
    logs = [launch + next(noise) - next(noise) for _ in range(30)]
    for count in range(5, 31):
        mean, error = fmean(logs[:count]), stdev(logs[:count]) / math.sqrt(count)
        if abs(mean) > _t_975(count - 1) * error:
            break
    covered = abs(mean - math.log(setting.gain)) <= _t_975(count - 1) * error
    return Study(mean > _t_975(count - 1) * error, count, mean - math.log(setting.gain), covered)


def _t_975(freedom: int) -> float:
    """Student's t by Cornish and Fisher's expansion; within 1 % from 4 degrees of freedom on."""
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


RULES: dict[str, Callable[[Setting, int], Study]] = {
    "autotune contest": simulate,
    "one run each, 1 %": single_sample,
    "200 then 200, Welch": welch,
    "200 then 200, Mann-Whitney": mann_whitney,
    "pairs, peeking t test": peeking,
}


@dataclass(frozen=True, slots=True)
class Row:
    """Raw counts of one rule on one machine."""

    rule: str
    noise: str
    launch_effects: bool
    studies: int
    twin_better: int
    twin_covered: int
    gain_better: int
    gain_better_within_12: int
    gain_covered: int
    gain_bias: float
    gain_pairs_median: float


def tally(rule: str, noise: str, launch_sd: float, studies: int) -> Row:
    """Run a rule on one machine, on twins and on a true gain."""
    run = RULES[rule]
    twins = [run(Setting(noise, launch_sd, 1.0), seed) for seed in range(studies)]
    gains = [run(Setting(noise, launch_sd, GAIN), seed) for seed in range(studies)]
    return Row(
        rule,
        noise,
        launch_sd > 0,
        studies,
        twin_better=sum(study.better for study in twins),
        twin_covered=sum(study.covered for study in twins),
        gain_better=sum(study.better for study in gains),
        gain_better_within_12=sum(study.better and study.pairs <= 12 for study in gains),
        gain_covered=sum(study.covered for study in gains),
        gain_bias=fmean(study.bias_log for study in gains),
        gain_pairs_median=median(study.pairs for study in gains),
    )


def main(arguments: Sequence[str]) -> None:
    """Print the table, and keep the raw counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400, help="simulated studies for each cell (default 400)")
    parser.add_argument("--json", type=Path, help="write the raw counts here")
    options = parser.parse_args(arguments)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{options.studies} studies a cell; {machine}; pair noise {PAIR_SD:.0%}, true gain {GAIN - 1:.0%}")
    print(
        f"{'':28}{'':20}{'launch':8}{'twin':>8}{'5 % gain':>10}{'in <= 12':>10}{'interval':>10}{'bias':>9}{'pairs':>7}"
    )
    print(f"{'rule':28}{'noise':20}{'effects':8}{'BETTER':>8}{'BETTER':>10}{'pairs':>10}{'covers':>10}{'':>9}{'':>7}")
    cells = list(product(RULES, NOISES, (0.0, LAUNCH_SD)))
    with ProcessPoolExecutor() as workers:
        rows = []
        for row in workers.map(partial(tally, studies=options.studies), *zip(*cells, strict=True)):
            rows.append(row)
            print(_line(row), flush=True)
    if options.json:
        facts = {"machine": machine, "pair_sd": PAIR_SD, "gain": GAIN}
        options.json.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def _line(row: Row) -> str:
    own = row.rule == "autotune contest"
    within = f"{row.gain_better_within_12 / row.studies:10.1%}" if own else f"{'':>10}"
    has_interval = own or row.rule.startswith("pairs")
    covered = min(row.twin_covered, row.gain_covered) / row.studies
    return (
        f"{row.rule:28}{row.noise:20}{'yes' if row.launch_effects else 'no':8}{row.twin_better / row.studies:8.1%}"
        f"{row.gain_better / row.studies:10.1%}{within}{f'{covered:.1%}' if has_interval else '':>10}"
        f"{row.gain_bias:+9.2%}{row.gain_pairs_median:7.0f}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
