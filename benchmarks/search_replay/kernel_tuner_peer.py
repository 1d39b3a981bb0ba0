"""Kernel Tuner's strategies on a recorded landscape, in its simulation mode.

Not by `tune_cache`: that builds its space of successful entries only, so that failed ones are never proposed. Here the
space is restricted to all that were recorded. Strategies that take a beginning are given the baseline.
"""

import contextlib
import io
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from autotuner.types import config_key
from search_replay.arms import Run
from search_replay.landscape import Landscape

# Not the genetic algorithm: given a beginning, it breaks off where a parameter has one value.
BEGIN_SOMEWHERE = ("diff_evo", "greedy_ils", "firefly_algorithm", "dual_annealing")


def kernel_tuner_peer(strategy: str) -> Callable[[Landscape, int, int, Random | None], Run]:
    """A strategy by its name there, with the options that it is shipped with."""

    def search(landscape: Landscape, seed: int, budget: int, noise: Random | None) -> Run:
        import numpy
        from kernel_tuner import tune_kernel
        from kernel_tuner.util import FunctionConstraint  # type: ignore[attr-defined]

        names = list(landscape.values)

        def recorded(*values: Any) -> bool:
            return landscape.is_legal(dict(zip(names, values, strict=True)))

        run, began_s = Run(), time.perf_counter()
        numpy.random.seed(seed)
        random.seed(seed)
        options = {"max_fevals": budget, **_beginning(landscape, strategy, seed)}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            cache = Path(folder) / "cache.json"
            cache.write_text(json.dumps(_document(landscape, names, noise)))
            found, _ = tune_kernel(
                "replay", "__global__ void replay() {}", [1], [], {n: list(v) for n, v in landscape.values.items()},
                restrictions=[FunctionConstraint(recorded)], strategy=strategy, simulation_mode=True,
                strategy_options=options, cache=os.fspath(cache), verbose=False, quiet=True,
            )  # fmt: skip
        run.proposal_s = [(time.perf_counter() - began_s) / max(1, len(found))] * max(1, len(found))
        return _read(run, landscape, names, found, budget)

    return search


def _beginning(landscape: Landscape, strategy: str, seed: int) -> dict[str, Any]:
    return {"x0": list(landscape.baseline(seed).values())} if strategy in BEGIN_SOMEWHERE else {}


def _document(landscape: Landscape, names: list[str], noise: Random | None) -> dict[str, Any]:
    entries = {}
    for key in landscape.repeats:
        config = json.loads(key)
        value = landscape.draw(config, noise)
        time_ms = "RuntimeFailedConfig" if value is None else value
        entries[",".join(str(config[name]) for name in names)] = {
            **config, "time": time_ms, "times": [] if value is None else [value], "compile_time": 0,
            "verification_time": 0, "benchmark_time": 0, "GFLOP/s": 0,
        }  # fmt: skip
    return {
        "device_name": "replay", "kernel_name": "replay", "problem_size": [1], "objective": "time",
        "tune_params_keys": names, "tune_params": {n: list(v) for n, v in landscape.values.items()}, "cache": entries,
    }  # fmt: skip


def _read(run: Run, landscape: Landscape, names: list[str], found: list[dict[str, Any]], budget: int) -> Run:
    seen: dict[str, float] = {}
    for row in found:  # in order of evaluation, repeats among them
        key = config_key({name: row[name] for name in names})
        if key in seen:
            run.duplicates += 1
            continue
        if len(run.means) == budget:
            break
        mean = landscape.means.get(key)
        run.means.append(mean)
        seen[key] = float("inf") if mean is None else float(row["time"])
    best = min(seen, key=lambda key: seen[key], default=None)
    run.recommended = landscape.means.get(best) if best else None
    return run
