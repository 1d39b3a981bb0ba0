"""Is what we recommend for a server at least as fast as what a plain Optuna loop finds in as many trials?

The loop is what one writes in an afternoon, and is given what ours knows: the baseline first, only legal configurations
and the same server, warm-up and load. It takes the best of its single measurements. Then the baseline and both choices
are
replayed, each in a fresh server, in interleaved rounds of random order with prompts that nobody has seen.

Run `python benchmarks/server_peers.py search_spaces/llama_cpp.yaml [--trials 16] [--rounds 8] [--json OUT]`; with
`--again FILE` only what an earlier run chose is replayed, in more rounds where the first ones could not tell.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import results
from training_cases.race import ratio

from autotuner.api import open_record, read_spec, recommendation, start
from autotuner.errors import AutotuneError
from autotuner.spec.model import StudySpec
from autotuner.types import Config, config_key

EPISODES = 3
GOAL_RATIO = 0.97


def measure(spec: StudySpec, config: Config, seed: int) -> float:
    """Tokens by second of a few episodes in a fresh server."""
    load = spec.workload.load.model_copy(update={"seed": seed})  # type: ignore[attr-defined]
    workload = spec.workload.model_copy(update={"load": load})
    with workload.open(config, spec.device) as opened:
        opened.warm_up(config)  # type: ignore[attr-defined]
        steps = [opened.step(config) for _ in range(EPISODES)]
    return sum(step.work["tokens"] for step in steps) / sum(step.duration_s or 0.0 for step in steps)


def by_optuna(spec: StudySpec, trials: int, seed: int) -> tuple[Config, list[dict[str, Any]]]:
    """The loop of an afternoon; also every trial."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(dict(spec.baseline))
    rows: list[dict[str, Any]] = []
    while len(rows) < trials:
        trial = study.ask()
        suggested = {name: trial.suggest_categorical(name, p.values) for name, p in spec.parameters.items()}
        config = spec.canonical(suggested)
        if not spec.legal(config):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # costs it nothing
            continue
        try:
            value = measure(spec, config, seed=0)
        except AutotuneError as error:
            rows.append({"config": config, "failed": str(error)})
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        rows.append({"config": config, "tokens_per_s": value})
        study.tell(trial, value)
    return spec.canonical(study.best_params), rows


def by_us(path: Path, trials: int) -> tuple[Config, dict[str, Any]]:
    """What `autotune study start` recommends, and how it came to it."""
    with tempfile.TemporaryDirectory() as folder:
        db = str(Path(folder) / "autotune.db")
        summary = start(path, overrides=[f"budget.trials={trials}"], db=db)
        with open_record(db) as record:
            study = record.study(summary.name)
            config = dict(recommendation(study).config)
            rows = [
                {"config": dict(trial.config), "objectives": dict(trial.verdict.objectives) if trial.verdict else None}
                for trial in study.trials(samples=False)
            ]
    found = summary.verification
    return config, {
        "decision": str(found.decision), "reason": found.reason, "gain_ratio": found.gain_ratio,
        "gain_interval": list(found.gain_interval), "pairs": len(found.pairs), "trials": rows,
    }  # fmt: skip


def replays(spec: StudySpec, arms: Mapping[str, Config], rounds: int) -> dict[str, list[float]]:
    """Tokens by second, by arm and round; what several arms chose alike is measured once a round, for all of them."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    order = random.Random(0)
    for number in range(rounds):
        seen: dict[str, float] = {}
        for name in order.sample(list(arms), len(arms)):
            if (key := config_key(arms[name])) not in seen:
                seen[key] = measure(spec, arms[name], seed=1000 + number)
            found[name].append(seen[key])
            print(f"  round {number + 1}, {name}: {found[name][-1]:.1f} tokens/s", flush=True)
    return found


def chosen(spec: StudySpec, given: argparse.Namespace) -> dict[str, Any]:
    """What both choose, and every trial of theirs."""
    arms: dict[str, Config] = {"baseline": spec.baseline}
    begun_s = time.monotonic()
    arms["autotune"], ours = by_us(given.space, given.trials)
    ours["seconds"] = time.monotonic() - begun_s
    print(f"autotune: {ours['decision']}, {ours['reason']}; {arms['autotune']}", flush=True)
    begun_s = time.monotonic()
    count = len(ours["trials"])
    arms["optuna"], rows = by_optuna(spec, count, seed=0)
    theirs = {"seconds": time.monotonic() - begun_s, "trials": rows}
    print(f"optuna {optuna.__version__}: {count} trials, {arms['optuna']}", flush=True)
    return {"space": given.space.name, "autotune": ours, "optuna": theirs, "arms": arms}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", type=Path)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--again", type=Path, help="an earlier result, whose choices are replayed")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(results.describe_machine())
    spec = read_spec(given.space)
    samples = json.loads(given.again.read_text())["samples"] if given.again else chosen(spec, given)
    arms: dict[str, Config] = samples["arms"]
    seen = replays(spec, arms, given.rounds)
    for name, values in seen.items():
        middle, low, high = ratio(values, seen["baseline"])
        print(f"{name:10} {median(values):8.1f} tokens/s, {middle:.2f} [{low:.2f}, {high:.2f}] of the baseline")
    middle, low, high = ratio(seen["autotune"], seen["optuna"])
    text = f"autotune to optuna {middle:.3f} [{low:.3f}, {high:.3f}], at least {GOAL_RATIO}"
    results.publish(given.json, {**samples, "replays": seen}, {text: middle >= GOAL_RATIO and high >= 1})


if __name__ == "__main__":
    main()
