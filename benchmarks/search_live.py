"""Does a better search find a faster configuration of a real workload, in as many trials and in as many seconds?

The search of the same study is run by each strategy: our own model, Optuna's TPE (its suggestions taken to the nearest
legal configuration that was not tried) and chance. Their verifications are left out: the baseline and every best trial
are measured anew instead, each in a fresh process, in interleaved rounds of random order.

Run `python benchmarks/search_live.py search_spaces/inference.yaml [--trials 16] [--minutes M] [--strategies gp,tpe]
[--rounds 6] [--set K=V] [--json OUT]`; with `--minutes` equal seconds count instead of equal trials.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import results
from training_cases.race import ratio

from autotuner import loop, plugins
from autotuner.adjust.adjuster import best_trial
from autotuner.api import open_record, read_spec, start
from autotuner.jobs import Jobs
from autotuner.metrics import value_of
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Measurement, Trial, Verification, config_key
from autotuner.verify.proof import Proofs
from autotuner.verify.verdict import nothing_better

MANY = 500  # trials, where seconds count


def unverified(spec: StudySpec, pool: Any, jobs: Jobs, trials: Sequence[Trial], *_: Any, **__: Any) -> Verification:
    """In the place of the verification: what the search found is compared below."""
    return nothing_better(spec, trials, Proofs(spec, pool, jobs), complete=True)


def search(path: Path, strategy: str, given: argparse.Namespace) -> tuple[Config, dict[str, Any]]:
    """The best trial of a study that keeps what it must, and every trial."""
    with tempfile.TemporaryDirectory() as folder:
        db = str(Path(folder) / "autotune.db")
        budget = [f"budget.trials={MANY if given.minutes else given.trials}", "budget.verify_share=0.05"]
        budget += [f"budget.minutes={given.minutes}" if given.minutes else "budget.minutes=600"]
        begun_s = time.monotonic()
        summary = start(path, overrides=[*given.set, *budget, f"strategy={strategy}"], db=db)
        with open_record(db) as record:
            study = record.study(summary.name)
            trials, spec = study.trials(samples=False), read_spec(path, given.set)
            best = best_trial(spec, trials)
            rows = [
                {"config": dict(trial.config), "objectives": dict(trial.verdict.objectives) if trial.verdict else None}
                for trial in trials
            ]
    assert best is not None, "not even the baseline could be measured"
    return best.config, {"trials": rows, "seconds": time.monotonic() - begun_s}


def measure(spec: StudySpec, arms: Mapping[str, Config], rounds: int) -> dict[str, list[float]]:
    """The objective by arm and round; what several arms chose alike is measured once a round, for all of them."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    order, metric = random.Random(0), spec.objective.metric
    with (
        tempfile.TemporaryDirectory() as folder,
        spec.executor.open(plugins.modules_of(spec.workload, spec.probes)) as pool,
    ):
        jobs = Jobs(spec, Path(folder))
        for number in range(rounds):
            seen: dict[str, float] = {}
            for name in order.sample(list(arms), len(arms)):
                key = config_key(arms[name])
                if key not in seen:
                    launch = f"round{number}{name}"
                    outcome = pool.submit(jobs.window(arms[name], launch, True)).result()
                    pool.close(launch)
                    assert isinstance(outcome, Measurement), outcome
                    seen[key] = value_of(metric, outcome.samples)
                found[name].append(seen[key])
                print(f"  round {number + 1}, {name}: {found[name][-1]:.4g}", flush=True)
    return found


def judge(spec: StudySpec, seen: Mapping[str, Sequence[float]]) -> dict[str, bool]:
    """Ours against each other strategy: not clearly worse than any."""
    sign, goals = spec.objective.sign, {}
    for name, values in seen.items():
        gain = ratio(values, seen["baseline"]) if sign > 0 else ratio(seen["baseline"], values)
        print(f"{name:10} {median(values):10.4g}   {gain[0]:.2f} [{gain[1]:.2f}, {gain[2]:.2f}] times the baseline")
    for name in (name for name in seen if name not in ("gp", "baseline") and "gp" in seen):
        middle, low, high = ratio(seen["gp"], seen[name]) if sign > 0 else ratio(seen[name], seen["gp"])
        goals[f"gp to {name} {middle:.3f} [{low:.3f}, {high:.3f}], at least 0.97"] = middle >= 0.97
    return goals


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", type=Path)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--strategies", default="gp,tpe,random")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--set", action="append", default=[], metavar="K=V")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    loop.verify = unverified
    spec = read_spec(given.space, given.set)
    arms: dict[str, Config] = {"baseline": spec.baseline}
    searches: dict[str, Any] = {}
    for strategy in given.strategies.split(","):
        arms[strategy], searches[strategy] = search(given.space, strategy, given)
        count, seconds = len(searches[strategy]["trials"]), searches[strategy]["seconds"]
        print(f"{strategy}: {count} trials, {seconds:.0f} s: {arms[strategy]}", flush=True)
    seen = measure(spec, arms, given.rounds)
    samples = {"space": given.space.name, "arms": arms, "searches": searches, "replays": seen}
    results.publish(given.json, samples, judge(spec, seen))


if __name__ == "__main__":
    main()
