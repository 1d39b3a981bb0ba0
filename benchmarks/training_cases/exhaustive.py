"""How near is our result to the best of all configurations, and with how few of them?

Every configuration of `spaces/input_bound_grid.yaml` is replayed once in a fresh process. The fastest three then race
our result: the best of many single windows is partly luck, and only fresh ones are compared. Without a GPU `pin_memory`
does nothing: then half of the configurations are the other half again, and are neither replayed nor counted.
"""

import random
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from autotuner.api import read_spec
from autotuner.monitor import gpu
from autotuner.types import Config, config_key
from training_cases.race import failure, race, rates, ratio
from training_cases.study import SPACES
from training_cases.tools import OURS, replay, tune

NAME, FINALISTS = "input_bound_grid", 3
GOAL_RATIO, GOAL_SHARE = 0.95, 0.10


def all_configurations() -> list[Config]:
    """Every legal one that differs from the others here, once."""
    spec = read_spec(SPACES / f"{NAME}.yaml")
    values = [parameter.values for parameter in spec.parameters.values()]
    every = [spec.canonical(dict(zip(spec.parameters, chosen, strict=True))) for chosen in product(*values)]
    if not gpu.visible_gpus():
        every = [{**config, "pin_memory": False} for config in every]
    return list({config_key(config): config for config in every if spec.legal(config)}.values())


def compare(options: Any, tell: Callable[[str], None]) -> tuple[dict[str, Any], dict[str, bool]]:
    """Everything measured, and the goals."""
    configs = all_configurations()
    found = tune(OURS, NAME, Path(sys.executable), options.limit, options.set)
    tell(f"  autotune: {found.get('changed')} in {found.get('trials')} trials of {len(configs)}")
    singles = sweep(configs, options.seconds, tell)
    if "failed" in found:
        return {"ours": found, "singles": singles}, {f"exhaustive: {found['failed']}": False}
    best = sorted((row for row in singles if "samples_per_s" in row), key=lambda row: -row["samples_per_s"])[:FINALISTS]
    arms: dict[str, Mapping[str, Any]] = {"autotune": found["changed"]}
    arms |= {f"exhaustive {place}": row["config"] for place, row in enumerate(best, 1)}
    replays = race("input_bound", arms, options.rounds, options.seconds, tell)
    raw = {"ours": found, "singles": singles, "arms": arms, "replays": replays}
    return raw, judge(replays, found["trials"], len(configs))


def sweep(configs: list[Config], seconds: float, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """One replay each, in random order: a machine that drifts does not favour a corner."""
    rows = []
    for number, config in enumerate(random.Random(0).sample(configs, len(configs)), 1):
        answer = replay("input_bound", config, seconds, seed=0)
        answer.pop("steps", None)
        rows.append({"config": dict(config), **answer})
        if number % 10 == 0:
            tell(f"  exhaustive: {number} of {len(configs)}")
    return rows


def judge(replays: Mapping[str, Any], trials: int, size: int) -> dict[str, bool]:
    """The two goals."""
    ours = replays["autotune"]
    rivals = [name for name in replays if name != "autotune" and failure(replays[name]) is None]
    share = f"exhaustive: {trials} trials of {size} configurations <= {GOAL_SHARE:.0%}"
    goals = {share: trials <= GOAL_SHARE * size}
    if failure(ours) is not None or not rivals:
        return {**goals, "exhaustive: could not be replayed": False}
    best = max(rivals, key=lambda name: median(rates(replays[name])))
    middle, low, high = ratio(rates(ours), rates(replays[best]))
    return {
        **goals,
        f"exhaustive: {middle:.3f} [{low:.3f}, {high:.3f}] of the best >= {GOAL_RATIO}": middle >= GOAL_RATIO,
    }
