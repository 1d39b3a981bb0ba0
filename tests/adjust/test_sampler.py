"""Our search in Optuna's own studies."""

import math
import pickle

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
    tried = [identity(trial) for trial in study.trials]
    assert len(tried) == len(set(tried)) == 11
    assert (("a", "2"), ("b", "'y'")) not in tried


def test_the_end_of_a_space_that_is_asked_and_told():
    study = optuna.create_study(sampler=AutotuneSampler({"a": IntDistribution(0, 2)}))
    for _ in range(5):
        trial = study.ask()
        study.tell(trial, trial.suggest_int("a", 0, 2))
    assert {trial.params["a"] for trial in study.trials[:3]} == {0, 1, 2}


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


@pytest.mark.parametrize("way", ["function", "trial"])
def test_constraints_are_heeded(way):
    if way == "trial" and not hasattr(optuna.Trial, "set_constraint"):
        pytest.skip("Optuna 5 has it")
    late = []
    for seed in range(3):
        given = {"constraints_func": lambda trial: [trial.user_attrs["excess"]]} if way == "function" else {}

        def limited(trial):
            params = params_of(trial)
            excess = params["threads"] / 3 - 1
            if way == "function":
                trial.set_user_attr("excess", excess)
            else:
                trial.set_constraint("threads", excess)
            return cost(params)

        study = run(AutotuneSampler(SPACE, seed=seed, **given), 30, limited)
        late += [trial.params["threads"] > 3 for trial in study.trials[15:]]
    assert sum(late) < 0.25 * len(late), "5 of 8 values break it, and the best of all is among them"


def test_several_are_asked_for_at_once():
    study = optuna.create_study(sampler=AutotuneSampler(SPACE, seed=0))
    for _ in range(6):
        some = [study.ask() for _ in range(4)]
        params = [params_of(trial) for trial in some]  # only now: what was proposed is known nevertheless
        for trial, chosen in zip(some, params, strict=True):
            study.tell(trial, cost(chosen))
    assert len({identity(trial) for trial in study.trials}) == 24


def test_threads_propose_different_things_and_leave_the_linear_algebra_as_it_was():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = [each["num_threads"] for each in threadpoolctl.threadpool_info()]
    study = optuna.create_study(sampler=AutotuneSampler(SPACE, seed=0))
    study.optimize(lambda trial: cost(params_of(trial)), n_trials=24, n_jobs=3)
    assert len({identity(trial) for trial in study.trials}) == 24
    assert [each["num_threads"] for each in threadpoolctl.threadpool_info()] == before


def test_what_an_objective_does_not_ask_for_was_tried_nevertheless():
    space = {"optimizer": CategoricalDistribution(["adam", "sgd"]), "momentum": IntDistribution(0, 3),
             "layers": IntDistribution(1, 3)}  # fmt: skip

    def objective(trial):
        layers = trial.suggest_int("layers", 1, 3)
        if layers == 3:
            raise RuntimeError("before all was asked for")
        if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "adam":
            return float(layers)
        return float(layers + trial.suggest_int("momentum", 0, 3))

    study = run(AutotuneSampler(space), 60, objective)
    assert len(study.trials) == 24, "each combination once, then the end"


def test_a_value_between_those_that_are_tried_counts_for_the_nearest():
    study = optuna.create_study(sampler=AutotuneSampler(SPACE, seed=0))
    study.enqueue_trial({"batch": 8, "threads": 6, "rate": 1.0123, "kernel": "b"})
    study.optimize(lambda trial: cost(params_of(trial)), n_trials=12)
    assert study.best_trial.number == 0
    nearest = {"batch": 8, "threads": 6, "rate": 1.0, "kernel": "b"}
    assert nearest not in [trial.params for trial in study.trials[1:]], "which counts as tried"


def test_of_several_objectives_the_front_is_spread():
    """More of the true front than chance finds: for each batch the cheapest of all else."""
    found = {}
    ways = {"ours": lambda seed: AutotuneSampler(SPACE, seed=seed), "chance": optuna.samplers.RandomSampler}
    for name, make in ways.items():
        excess = 0.0
        for seed in range(3):
            study = optuna.create_study(directions=["minimize", "maximize"], sampler=make(seed=seed))
            for number in range(40):
                trial = study.ask(dict(SPACE))
                infinite = number == 5  # one that is beyond all measure must not blind it
                study.tell(trial, [math.inf if infinite else cost(trial.params), trial.params["batch"]])
            for batch in (8, 16, 32):
                least = min((cost(t.params) for t in study.trials if t.params["batch"] >= batch), default=100.0)
                excess += math.log(least / math.exp(0.2 * (math.log2(batch) - 3) ** 2))
        found[name] = excess
    assert found["ours"] < 0.5 * found["chance"]


def test_a_parameter_that_was_not_declared_is_drawn():
    space = {"a": IntDistribution(0, 3)}
    study = run(AutotuneSampler(space), 4, lambda t: t.suggest_int("a", 0, 3) + t.suggest_float("b", 0, 1))
    assert len({trial.params["a"] for trial in study.trials}) == 4


def test_a_space_too_large_to_list():
    space = {f"p{i}": IntDistribution(0, 9) for i in range(12)}
    study = run(AutotuneSampler(space), 40, lambda t: 1 + sum(t.suggest_int(f"p{i}", 0, 9) for i in range(12)))
    assert study.best_value <= 10  # chance gets to 30 or so
    assert len({identity(trial) for trial in study.trials}) == 40


@pytest.mark.parametrize(
    "distribution",
    [FloatDistribution(1.0, 1.0), CategoricalDistribution([1, 1.0]), CategoricalDistribution([0.5, math.inf]),
     CategoricalDistribution([1, True, "x"]), IntDistribution(1, 50_000), FloatDistribution(0, 1, step=1e-6),
     IntDistribution(1, 4096, log=True), CategoricalDistribution([None])],
    ids=str,
)  # fmt: skip
def test_odd_distributions(distribution):
    space = {"odd": distribution, "plain": IntDistribution(0, 3)}
    study = optuna.create_study(sampler=AutotuneSampler(space, seed=0))
    for _ in range(8):
        trial = study.ask(dict(space))
        study.tell(trial, 1.0 + trial.params["plain"])
    rows = [tuple(trial.system_attrs["autotune:row"]) for trial in study.trials[:4]]
    assert len(set(rows)) == 4


def test_it_can_be_pickled():
    sampler = pickle.loads(pickle.dumps(AutotuneSampler(SPACE, seed=None)))
    assert run(sampler, 3).best_value > 0


def test_an_empty_space_is_refused():
    with pytest.raises(ValueError, match="needs a parameter"):
        AutotuneSampler({})
