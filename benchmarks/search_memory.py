"""What share of the trials runs out of memory, where memory is the limit?

Two spaces, training and serving, whose speed and memory are formulas with coefficients by lot: nothing is measured.
About half of all configurations do not fit, and the best ones stand at the edge. A trial that fits says what it needed,
with one percent of noise; one that does not costs a trial and says nothing else. Optuna's TPE is told both as a
constraint.

Run `python benchmarks/search_memory.py [--strategies gp,random,optuna-tpe] [--seeds 20] [--trials 40] [--json OUT]`.
"""

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any

import numpy as np
import results

from autotuner.adjust.adjuster import propose
from autotuner.adjust.space import Space
from autotuner.executors.inline import InlineExecutor
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Config, Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict, config_key

METRIC = "throughput_samples_per_s"
NOISE_RATIO = 0.01
ALLOWED_FAILED_RATIO = 0.06

TRAINING = {
    "batch_size": {"powers_of_two": [1, 256], "default": 1, "memory": True},
    "checkpointing": {"choices": ["nothing", "attention", "everything"], "default": "nothing"},
    "dtype": {"choices": ["float32", "bfloat16"], "default": "float32"},
    "optimizer": {"choices": ["adamw", "adamw_8bit", "sgd"], "default": "adamw"},
    "attention": {"choices": ["eager", "sdpa"], "default": "eager"},
    "loss_chunk": {"choices": [512, 2048, 8192], "default": 8192, "memory": True},
    "compile": {"bool": True, "default": False},
    "workers": {"int": [0, 8], "default": 0},
}
SERVING = {
    "batch_size": {"powers_of_two": [1, 512], "default": 1, "memory": True},
    "tensor_parallel": {"choices": [1, 2, 4], "default": 4},
    "weights": {"choices": ["bfloat16", "fp8"], "default": "bfloat16"},
    "cache": {"choices": ["bfloat16", "fp8"], "default": "bfloat16"},
    "max_tokens": {"choices": [2048, 4096, 8192, 16384], "default": 2048, "memory": True},
    "chunk": {"powers_of_two": [256, 8192], "default": 512, "memory": True},
    "graphs": {"bool": True, "default": False},
}


@dataclass(frozen=True)
class Machine:
    """What a configuration would do: samples by second and bytes, and how many bytes there are."""

    parameters: Mapping[str, Any]
    rate: Callable[[Config], float]
    peak: Callable[[Config], float]
    size: float


def training(seed: int) -> Machine:
    """Model states, activations and logits; arithmetic, an optimizer's step, and a loader."""
    lot = Random(f"training/{seed}")
    model, sample, logits = lot.uniform(1, 4), lot.uniform(0.2, 1.0), lot.uniform(0.05, 0.6)
    fixed_s, sample_s, load_s = lot.uniform(0.05, 0.2), lot.uniform(0.01, 0.03), lot.uniform(0.005, 0.05)
    again = {"nothing": 1.0, "attention": lot.uniform(1.05, 1.15), "everything": lot.uniform(1.25, 1.4)}
    kept = {"nothing": 1.0, "attention": lot.uniform(0.5, 0.8), "everything": lot.uniform(0.1, 0.3)}
    states = {"adamw": 8, "adamw_8bit": 2, "sgd": 4}

    def peak(config: Config) -> float:
        half = config["dtype"] == "bfloat16"
        held = sample * kept[config["checkpointing"]] * (1.6 if config["attention"] == "eager" else 1.0)
        held *= (0.55 if half else 1.0) * (0.85 if config["compile"] else 1.0)
        head = logits * config["loss_chunk"] / 8192
        return float(model * (8 + states[config["optimizer"]]) + config["batch_size"] * (held + head) + 1)

    def rate(config: Config) -> float:
        each_s = sample_s * again[config["checkpointing"]] * (1.25 if config["attention"] == "eager" else 1.0)
        each_s *= (0.55 if config["dtype"] == "bfloat16" else 1.0) * (0.8 if config["compile"] else 1.0)
        each_s *= 1 + 0.02 * math.log2(8192 / config["loss_chunk"])
        step_s = fixed_s + config["batch_size"] * each_s + (0.01 if config["optimizer"] == "adamw_8bit" else 0.0)
        loaded_s = config["batch_size"] * load_s
        waits_s = loaded_s + step_s if not config["workers"] else max(step_s, loaded_s / config["workers"])
        return float(config["batch_size"] / (waits_s * (1 + 0.01 * config["workers"])))

    return _machine(TRAINING, rate, peak, lot)


def serving(seed: int) -> Machine:
    """Weights and cache; their transport, and what several devices cost each other."""
    lot = Random(f"serving/{seed}")
    weights, cache, fixed_s = lot.uniform(20, 140), lot.uniform(0.02, 0.2), lot.uniform(0.002, 0.01)
    bandwidth, talk_s, prefill = lot.uniform(1000, 4000), lot.uniform(5e-4, 3e-3), lot.uniform(0.5, 2)

    def held(config: Config) -> tuple[float, float]:
        size = weights * (0.5 if config["weights"] == "fp8" else 1.0) / config["tensor_parallel"]
        each = cache * (0.5 if config["cache"] == "fp8" else 1.0) / config["tensor_parallel"]
        return size, each * config["batch_size"] * config["max_tokens"] / 2048

    def peak(config: Config) -> float:
        return sum(held(config)) + config["chunk"] / 2048 * 3 + (3 if config["graphs"] else 0)

    def rate(config: Config) -> float:
        size, entries = held(config)
        step_s = fixed_s * (0.5 if config["graphs"] else 1.0) + (size + 0.5 * entries) / bandwidth
        step_s += talk_s * math.log2(config["tensor_parallel"])
        step_s *= 1 + prefill * config["batch_size"] / config["chunk"]
        return float(config["batch_size"] / step_s / config["tensor_parallel"] ** 0.5 * config["max_tokens"] ** 0.1)

    return _machine(SERVING, rate, peak, lot)


def _machine(parameters: Mapping[str, Any], rate: Any, peak: Any, lot: Random) -> Machine:
    """Of a size that the baseline fits into, and about half of the rest."""
    space = Space(_spec(parameters, "random", 0, 1))
    needed = sorted(peak(config) for config in space.configs)
    least = 1.1 * peak(space.spec.baseline)
    return Machine(parameters, rate, peak, max(least, needed[int(lot.uniform(0.3, 0.7) * len(needed))]))


def _spec(parameters: Mapping[str, Any], strategy: str, seed: int, trials: int) -> StudySpec:
    return StudySpec.model_validate({
        "name": "memory", "workload": Replay(), "executor": InlineExecutor(), "parameters": parameters,
        "objectives": [{"maximize": METRIC}], "strategy": strategy, "seed": seed, "budget": {"trials": trials},
    })  # fmt: skip


@dataclass
class Run:
    """One search: how many of its trials ran out of memory, and the best rate of the others after each trial."""

    failed: int
    best: list[float]
    seconds: float


def ours(machine: Machine, strategy: str, seed: int, trials: int) -> Run:
    """`adjust.propose`, on a record that grows."""
    spec, noise = _spec(machine.parameters, strategy, seed, trials), Random(f"noise/{seed}")
    space, seen, best, spent_s = Space(spec), list[Trial](), list[float](), 0.0
    while True:
        begun_s = time.perf_counter()
        proposal = propose(spec, space, seen)
        spent_s += time.perf_counter() - begun_s
        if proposal is None:
            break
        seen.append(_tried(machine, len(seen), proposal.config, proposal.origin, noise))
        best.append(max(best[-1:] + ([machine.rate(proposal.config)] if seen[-1].verdict else [])))
    return Run(sum(trial.verdict is None for trial in seen), best, spent_s / len(seen))


def _tried(machine: Machine, number: int, config: Config, origin: Origin, noise: Random) -> Trial:
    rate, peak = (noise.gauss(1, NOISE_RATIO) * each(config) for each in (machine.rate, machine.peak))
    if peak > machine.size:
        return Trial(number, config, origin, Failure(FailureKind.OUT_OF_MEMORY, "does not fit"), None)
    samples = {METRIC: (rate,), "peak_memory_bytes": (peak,)}
    seen = Measurement(samples, 0, 0, 1, {}, {"memory_bytes": str(machine.size)}, datetime.now(UTC))
    return Trial(number, config, origin, seen, Verdict({METRIC: rate}, {}, Diagnosis("unknown")))


def optuna_tpe(machine: Machine, seed: int, trials: int) -> Run:
    """Its loop: the same baseline first, numbers by their place, memory as a constraint; what comes twice is free."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec, noise = _spec(machine.parameters, "random", seed, trials), Random(f"noise/{seed}")
    sampler = optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, constraints_func=lambda trial: (trial.user_attrs["over"],)
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    places = {name: p.values.index(p.default) if p.ordered else p.default for name, p in spec.parameters.items()}
    study.enqueue_trial(places)
    run, known, begun_s = Run(0, [], 0.0), dict[str, Trial](), time.perf_counter()
    while len(known) < trials:
        trial = study.ask()
        config = {
            name: p.values[trial.suggest_int(name, 0, len(p.values) - 1)] if p.ordered
            else trial.suggest_categorical(name, p.values) for name, p in spec.parameters.items()
        }  # fmt: skip
        key = config_key(config)
        if key not in known:
            known[key] = _tried(machine, len(known), config, Origin.SAMPLER, noise)
            fits = known[key].verdict is not None
            run.failed += not fits
            run.best.append(max(run.best[-1:] + ([machine.rate(config)] if fits else [])))
        outcome = known[key].outcome
        fits = isinstance(outcome, Measurement)
        over = math.log(outcome.samples["peak_memory_bytes"][0] / machine.size) if fits else 0.1  # type: ignore[union-attr]
        trial.set_user_attr("over", over)
        worst = min((t.value for t in study.get_trials(deepcopy=False) if t.value is not None), default=0.0)
        study.tell(trial, math.log(outcome.samples[METRIC][0]) if fits else worst)  # type: ignore[union-attr]
    run.seconds = (time.perf_counter() - begun_s) / trials
    return run


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="gp,random,optuna-tpe")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    found: dict[str, dict[str, Any]] = {}
    for name, make in (("training", training), ("serving", serving)):
        machines = [make(seed) for seed in range(given.seeds)]
        fitting = [[m.rate(c) for c in Space(_spec(m.parameters, "random", 0, 1)).configs if m.peak(c) <= m.size]
                   for m in machines]  # fmt: skip
        unfit = 1 - fmean(len(rates) for rates in fitting) / Space(_spec(machines[0].parameters, "gp", 0, 1)).size()  # type: ignore[operator]
        print(f"\n{name}: {unfit:.0%} of the configurations do not fit")
        print(f"{'':12} failed         best/optimum, geometric mean, @20    @{given.trials}   ms a proposal")
        for strategy in given.strategies.split(","):
            runs = [
                optuna_tpe(machine, seed, given.trials) if strategy == "optuna-tpe"
                else ours(machine, strategy, seed, given.trials) for seed, machine in enumerate(machines)
            ]  # fmt: skip
            shares = [run.failed / given.trials for run in runs]
            optima = [max(rates) for rates in fitting]
            at = {n: math.exp(fmean(math.log(o / run.best[n - 1]) for o, run in zip(optima, runs, strict=True)))
                  for n in (20, given.trials)}  # fmt: skip
            found[f"{name}, {strategy}"] = {
                "failed_shares": shares, "optimum_to_best": at, "best": [run.best for run in runs],
                "optimum": [max(rates) for rates in fitting], "proposal_s": median(run.seconds for run in runs),
            }  # fmt: skip
            print(
                f"{strategy:12} {fmean(shares):5.1%} (worst {max(shares):4.0%}) {'':20} {at[20]:8.3f} "
                f"{at[given.trials]:8.3f} {1e3 * median(run.seconds for run in runs):8.1f}",
                flush=True,
            )
    goals = {
        f"{name}: at most {ALLOWED_FAILED_RATIO:.0%} of the trials run out of memory": bool(
            np.mean(sample["failed_shares"]) <= ALLOWED_FAILED_RATIO
        )
        for name, sample in found.items()
        if name.endswith(", gp")
    }
    results.publish(given.json, found, goals)


if __name__ == "__main__":
    main()
