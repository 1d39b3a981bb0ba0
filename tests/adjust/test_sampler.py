"""Our search in Optuna's own studies."""

import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from autotuner.adjust.sampler import AutotuneSampler

SPACE = {
    "batch": CategoricalDistribution([1, 2, 4, 8, 16, 32]),
    "threads": IntDistribution(1, 8),
    "rate": FloatDistribution(0.1, 10.0, log=True),
    "kernel": CategoricalDistribution(["a", "b", "c", None]),
}


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def params_of(trial):
    return {
        "batch": trial.suggest_categorical("batch", [1, 2, 4, 8, 16, 32]),
        "threads": trial.suggest_int("threads", 1, 8),
        "rate": trial.suggest_float("rate", 0.1, 10.0, log=True),
        "kernel": trial.suggest_categorical("kernel", ["a", "b", "c", None]),
    }


def cost(params):
    bend = (math.log2(params["batch"]) - 3) ** 2 + 0.3 * (params["threads"] - 6) ** 2 + math.log(params["rate"]) ** 2
    return math.exp(0.2 * bend + {"a": 0.5, "b": 0.0, "c": 0.3, None: 0.6}[params["kernel"]])


def run(sampler, trials, objective=lambda trial: cost(params_of(trial))):
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=trials, catch=(RuntimeError,))
    return study


def identity(trial):
    return tuple(sorted((name, repr(value)) for name, value in trial.params.items()))


def test_it_finds_more_than_chance_in_as_many_trials():
    ours = [run(AutotuneSampler(SPACE, seed=seed), 30).best_value for seed in range(4)]
    chance = [run(optuna.samplers.RandomSampler(seed=seed), 30).best_value for seed in range(4)]
    assert sum(ours) < 0.75 * sum(chance)
    assert max(ours) < 1.2


def test_nothing_twice_nothing_illegal_and_the_end_when_all_was_tried():
    space = {"a": IntDistribution(0, 3), "b": CategoricalDistribution(["x", "y", "z"])}
    sampler = AutotuneSampler(space, legal=lambda params: params["a"] != 2 or params["b"] != "y")
    study = run(sampler, 100, lambda t: t.suggest_int("a", 0, 3) + len(t.suggest_categorical("b", ["x", "y", "z"])))
    tried = [identity(trial) for trial in study.trials if trial.params and trial.state is TrialState.COMPLETE]
    assert len(set(tried)) == 11
    assert (("a", "2"), ("b", "'y'")) not in tried[:11]


def test_failures_are_remembered():
    """Optuna's own samplers forget a FAIL."""

    def fragile(trial):
        params = params_of(trial)
        if params["batch"] > 8:
            raise RuntimeError("out of memory")
        return cost(params) / params["batch"] ** 2  # the failing values would be the best

    study = run(AutotuneSampler(SPACE, seed=1), 40, fragile)
    failed = sum(trial.state is TrialState.FAIL for trial in study.trials[10:])
    assert failed <= 7, "of 30, and a third of the space fails"


def test_constraints_are_heeded():
    def limited(trial):
        params = params_of(trial)
        trial.set_user_attr("excess", params["threads"] / 4 - 1)
        return cost(params)

    study = optuna.create_study(sampler=AutotuneSampler(SPACE, seed=0))
    for _ in range(30):
        trial = study.ask()
        value = limited(trial)
        trial.storage.set_trial_system_attr(trial._trial_id, "constraints", [trial.user_attrs["excess"]])
        study.tell(trial, value)
    assert sum(trial.params["threads"] > 4 for trial in study.trials[15:]) <= 6


def test_several_are_asked_for_at_once():
    study = optuna.create_study(sampler=AutotuneSampler(SPACE, seed=0))
    for _ in range(6):
        some = [study.ask(dict(SPACE)) for _ in range(4)]
        assert len({identity(trial) for trial in some}) == 4
        for trial in some:
            study.tell(trial, cost(trial.params))
    assert len({identity(trial) for trial in study.trials}) == 24


def test_of_several_objectives_the_front_is_spread():
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=AutotuneSampler(SPACE, seed=0))
    for _ in range(40):
        trial = study.ask(dict(SPACE))
        study.tell(trial, [cost(trial.params), trial.params["batch"]])
    front = {trial.params["batch"] for trial in study.best_trials}
    assert len(front) >= 3


def test_a_parameter_that_was_not_declared_is_drawn():
    space = {"a": IntDistribution(0, 3)}
    study = run(AutotuneSampler(space), 4, lambda t: t.suggest_int("a", 0, 3) + t.suggest_float("b", 0, 1))
    assert len({trial.params["a"] for trial in study.trials}) == 4


def test_a_space_too_large_to_list():
    space = {f"p{i}": IntDistribution(0, 9) for i in range(8)}
    study = run(AutotuneSampler(space), 25, lambda t: sum(t.suggest_int(f"p{i}", 0, 9) for i in range(8)))
    assert study.best_value < 20
    assert len({identity(trial) for trial in study.trials}) == 25


def test_an_empty_space_is_refused():
    with pytest.raises(ValueError, match="needs a parameter"):
        AutotuneSampler({})
