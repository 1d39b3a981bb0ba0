"""Who searches: the product's own strategy through `adjust.propose`, and its peers. All see the same, one at a time.

A configuration that is asked for twice, or is not legal, is counted; what failed costs an evaluation like any other.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

from autotuner.adjust.adjuster import best_trial, propose
from autotuner.adjust.space import Space
from autotuner.executors.inline import InlineExecutor
from autotuner.spec.model import StudySpec
from autotuner.testing.replay import Replay
from autotuner.types import Config, Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict, config_key
from search_replay.landscape import Landscape

METRIC = "step_s"


@dataclass
class Run:
    """One search.

    Attributes:
        means: True value of every evaluation that cost something, in order; None for a failure.
        recommended: True value of what the strategy would hand over.
        duplicates: Proposals of what was measured already.
        illegal: Proposals that the declared rules forbid.
        proposal_s: Seconds of every proposal.
    """

    means: list[float | None] = field(default_factory=list)
    recommended: float | None = None
    duplicates: int = 0
    illegal: int = 0
    proposal_s: list[float] = field(default_factory=list)


class Recorded(StudySpec):
    """A study whose legal configurations are those of a landscape."""

    def legal(self, config: Config) -> bool:
        """Whether it was recorded."""
        return config_key(config) in self.__dict__["recorded"]


def study(landscape: Landscape, strategy: str, seed: int, budget: int) -> StudySpec:
    """As its file would describe it."""
    baseline = landscape.baseline(seed)
    spec = Recorded.model_validate({
        "name": "replay", "workload": Replay(), "executor": InlineExecutor(), "objectives": [{"minimize": METRIC}],
        "parameters": {
            name: {"choices": list(values), "default": baseline[name]} for name, values in landscape.values.items()
        },
        "strategy": strategy, "seed": seed, "budget": {"trials": budget},
    })  # fmt: skip
    spec.__dict__["recorded"] = landscape.repeats
    return spec


def ours(landscape: Landscape, strategy: str, seed: int, budget: int, noise: Random | None) -> Run:
    """`adjust.propose`, on a record that grows."""
    spec = study(landscape, strategy, seed, budget)
    space, trials, run = Space(spec), list[Trial](), Run()
    while True:
        began_s = time.perf_counter()
        proposal = propose(spec, space, trials)
        if proposal is None:
            break
        run.proposal_s.append(time.perf_counter() - began_s)
        if not landscape.is_legal(proposal.config):
            run.illegal += 1
        known = {config_key(trial.config) for trial in trials}
        run.duplicates += config_key(proposal.config) in known
        trials.append(_tried(landscape, len(trials), proposal.config, proposal.origin, noise))
        run.means.append(landscape.means.get(config_key(proposal.config)))
    best = best_trial(spec, trials)
    run.recommended = landscape.means[config_key(best.config)] if best else None
    return run


def _tried(landscape: Landscape, number: int, config: Config, origin: Origin, noise: Random | None) -> Trial:
    value = landscape.draw(config, noise)
    if value is None:
        return Trial(number, config, origin, Failure(FailureKind.CRASHED, "as recorded"), None)
    seen = Measurement({METRIC: (value,)}, 0.0, 0.0, 0.0, {}, {}, datetime.now(UTC))
    return Trial(number, config, origin, seen, Verdict({METRIC: value}, {}, Diagnosis("unknown"), 0.0))


def optuna_peer(sampler: str) -> Callable[[Landscape, int, int, Random | None], Run]:
    """Optuna's own loop: the same baseline first, numbers as integers in order, failures and rules as constraints.

    What it proposes twice, or against the rules, costs it nothing here; a user would pay for it.
    """

    def search(landscape: Landscape, seed: int, budget: int, noise: Random | None) -> Run:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=_sampler(sampler, seed))
        study.enqueue_trial(_indices(landscape, landscape.baseline(seed)))
        run, seen = Run(), dict[str, float | None]()
        for _ in range(20 * budget):
            if len(seen) >= min(budget, len(landscape.repeats)):
                break
            began_s = time.perf_counter()
            trial = study.ask()
            config = dict(_suggested(landscape, trial))
            run.proposal_s.append(time.perf_counter() - began_s)
            key = config_key(config)
            if key not in landscape.repeats:
                run.illegal += 1
                _tell(study, trial, None)
                continue
            if key in seen:
                run.duplicates += 1
            else:
                seen[key] = landscape.draw(config, noise)
                run.means.append(landscape.means.get(key))
            _tell(study, trial, seen[key])
        measured = {key: value for key, value in seen.items() if value is not None}
        run.recommended = landscape.means[min(measured, key=lambda key: measured[key])] if measured else None
        return run

    return search


def _sampler(name: str, seed: int) -> Any:
    import optuna

    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed, constraints_func=_violation)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, constraints_func=_violation)


def _violation(trial: Any) -> tuple[float]:
    return (trial.user_attrs["violation"],)


def _tell(study: Any, trial: Any, value: float | None) -> None:
    """A failure is a violated constraint: told as FAIL it would be forgotten."""
    trial.set_user_attr("violation", 1.0 if value is None else -1.0)
    known = [each.value for each in study.get_trials(deepcopy=False) if each.value is not None]
    study.tell(trial, value if value is not None else max(known, default=1.0))


def _ordered(values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _indices(landscape: Landscape, config: Config) -> dict[str, Any]:
    return {
        name: list(values).index(config[name]) if _ordered(values) else config[name]
        for name, values in landscape.values.items()
    }


def _suggested(landscape: Landscape, trial: Any) -> Iterator[tuple[str, Any]]:
    for name, values in landscape.values.items():
        if _ordered(values):
            yield name, values[trial.suggest_int(name, 0, len(values) - 1)]
        else:
            yield name, trial.suggest_categorical(name, list(values))
