"""Does it help the search to know the roofline, and what does it cost where the roofline misses what binds?

Spaces of a decoder whose speed is a formula with coefficients by lot: nothing is measured. A step is the host's work,
the weights' transport, and arithmetic that grows with the batch; the analysis counts the arithmetic, four fifths of it.
In the first world that is all there is. In the others the prior is planted wrong: something that nobody counted grows
with the batch too, or all of a step does, or larger batches are even slower for each item.

Run `python benchmarks/search_prior.py [--seeds 20] [--trials 40] [--json OUT]`.
"""

import argparse
import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import fmean, median

import results

from autotuner.adjust.adjuster import propose
from autotuner.adjust.space import Space
from autotuner.executors.inline import InlineExecutor
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Config, Diagnosis, Measurement, Trial, Verdict

METRIC = "throughput_tokens_per_s"
NOISE_RATIO, CLOSE = 0.02, 0.95
SPACE = {
    "batch_size": [1, 2, 4, 8, 16, 32, 64],
    "dtype": ["float32", "bfloat16"],
    "compile": ["none", "default", "reduce-overhead"],
    "attention": ["sdpa", "eager"],
    "kv_cache": ["dynamic", "static"],
    "threads": [1, 2],
    "chunk": [0, 1, 2, 3],
}
BASELINE: Config = {
    "batch_size": 1, "dtype": "float32", "compile": "none", "attention": "sdpa", "kv_cache": "dynamic", "threads": 2,
    "chunk": 0,
}  # fmt: skip
# Seconds of a step from its batch, what does not grow with it, and the arithmetic of an item.
WORLDS: dict[str, Callable[[int, float, float], float]] = {
    "as the roofline says": lambda batch, fixed_s, item_s: fixed_s + batch * item_s,
    "something uncounted grows": lambda batch, fixed_s, item_s: fixed_s + batch * (item_s + 0.012),
    "everything grows": lambda batch, fixed_s, item_s: batch * (fixed_s + item_s),
    "larger batches are worse": lambda batch, fixed_s, item_s: batch**1.15 * fixed_s + batch * item_s,
}


def item_s(config: Config) -> float:
    """The arithmetic of one item."""
    each_s = 0.003 if config["dtype"] == "float32" else 0.0013
    return each_s / int(config["threads"] or 1) ** 0.9 * (1 + 0.1 * abs(int(config["chunk"] or 0) - 2))


def step_s(config: Config, world: str, seed: int) -> float:
    """Of a configuration; those that differ in more than the batch also differ by lot."""
    host_s = {"none": 0.060, "default": 0.030, "reduce-overhead": 0.021}[str(config["compile"])]
    host_s *= (1.3 if config["attention"] == "eager" else 1.0) * (0.9 if config["kv_cache"] == "static" else 1.0)
    weights_s = (0.02 if config["dtype"] == "float32" else 0.011) / int(config["threads"] or 1) ** 0.9
    lot = Random(f"{seed}/{[value for name, value in config.items() if name != 'batch_size']}")
    return WORLDS[world](int(config["batch_size"] or 1), host_s + weights_s, item_s(config)) * math.exp(
        lot.gauss(0, 0.05)
    )


def search(world: str, seed: int, trials: int, *, counted: bool) -> list[float]:
    """The best rate after each trial, as a share of the best there is."""
    spec = StudySpec.model_validate({
        "name": "prior", "workload": Replay(), "executor": InlineExecutor(), "objectives": [{"maximize": METRIC}],
        "parameters": {name: {"choices": values, "default": BASELINE[name]} for name, values in SPACE.items()},
        "seed": seed, "budget": {"trials": trials},
    })  # fmt: skip
    every = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
    optimum = max(config["batch_size"] / step_s(config, world, seed) for config in every)
    space, record, noise, best = Space(spec), list[Trial](), Random(seed), [0.0]
    while proposal := propose(spec, space, record):
        config = proposal.config
        batch, taken_s = int(config["batch_size"] or 1), step_s(config, world, seed)
        best.append(max(best[-1], batch / taken_s / optimum))
        rate = batch / taken_s * math.exp(noise.gauss(0, NOISE_RATIO))
        floor_s = 0.8 * batch * item_s(config)
        evidence = {"step_s": taken_s, "compute_floor_s": floor_s} if counted else {}
        seen = Measurement({METRIC: (rate,)}, 0.0, 0.0, 0.0, {}, {}, datetime.now(UTC))
        verdict = Verdict({METRIC: rate}, {}, Diagnosis("unknown", evidence=evidence), 0.0)
        record.append(Trial(len(record), config, proposal.origin, seen, verdict))
    return best[1:]


def trials_to(best: list[float], trials: int) -> int:
    """Until the search is close; half as many again as it had when it never was."""
    return next((number for number, share in enumerate(best, 1) if share >= CLOSE), 3 * trials // 2)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    samples, goals = dict[str, dict[str, list[list[float]]]](), dict[str, bool]()
    print(f"{'trials to within 5 % of the best':34} {'without':>8} {'with':>6}   best after 10, without and with")
    for world in WORLDS:
        runs = {
            name: [search(world, seed, given.trials, counted=counted) for seed in range(given.seeds)]
            for name, counted in (("without", False), ("with", True))
        }
        samples[world] = runs
        without, known = (fmean(trials_to(best, given.trials) for best in runs[name]) for name in runs)
        after = [median(best[9] for best in runs[name]) for name in runs]
        print(f"{world:34} {without:8.1f} {known:6.1f}   {after[0]:.3f} {after[1]:.3f}", flush=True)
        if world == "as the roofline says":
            goals[f"where it fits, {without / known:.2f} times fewer trials, at least 1.3"] = without / known >= 1.3
        else:
            goals[f"where {world}, {known - without:+.1f} trials, at most 3 more"] = known - without <= 3
    results.publish(given.json, samples, goals)


if __name__ == "__main__":
    main()
