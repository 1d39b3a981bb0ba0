import dataclasses
import itertools
import math
import random
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotuner.adjust.adjuster import Proposal, best_trial, propose
from autotuner.adjust.costs import costs_s
from autotuner.adjust.space import Space
from autotuner.types import FailureKind, Origin, config_key

SERVING = {
    "batch": {"powers_of_two": [1, 128], "default": 1, "live": True, "memory": True},
    "threads": {"int": [1, 8], "default": 8},
    "workers": {"int": [0, 8], "default": 0},
    "dtype": {"choices": ["a", "b", "c"], "default": "a"},
    "attention": {"choices": ["x", "y", "z", "w"], "default": "x"},
    "compile": {"bool": True, "default": False},
}
SMALL = {
    "batch": {"powers_of_two": [1, 8], "default": 2, "live": True, "memory": True},
    "compile": {"bool": True, "default": False},
    "mode": {"choices": ["default", "max"], "default": "default", "when": "compile"},
    "threads": {"int": [1, 2], "default": 1},
}


def landscape(seed, noise_ratio=0.02):
    """The true value and the measured one: a sum of one term a parameter, exponentiated."""
    chance, noise = random.Random(seed), random.Random(seed + 1000)
    peak = {"batch": chance.choice([4, 5, 6]), "threads": chance.randrange(1, 9), "workers": chance.randrange(9)}
    worth = {(name, value): chance.uniform(-0.5, 0.5) for name in ("dtype", "attention", "compile") for value in
             (True, False, *"abcxyzw")}  # fmt: skip

    def true(config):
        curve = 0.12 * (math.log2(config["batch"]) - peak["batch"]) ** 2
        curve += 0.03 * (config["threads"] - peak["threads"]) ** 2 + 0.02 * (config["workers"] - peak["workers"]) ** 2
        return math.exp(sum(worth[name, config[name]] for name in ("dtype", "attention", "compile")) - curve)

    return true, lambda config: true(config) * math.exp(noise.gauss(0, noise_ratio))


@st.composite
def studies(draw):
    """Parameters, rules that spare the baseline, a budget, and a landscape with failures."""
    parameters = {
        "n": {"int": [0, draw(st.integers(1, 6))], "default": 0, "live": draw(st.booleans()), "memory": True},
        "flag": {"bool": True, "default": False},
        "mode": {
            "choices": ["u", "v", "w"],
            "default": "u",
            "when": draw(st.sampled_from(["flag", "n > 0", "not flag"])),
        },
        "m": {"powers_of_two": [1, draw(st.sampled_from([2, 8]))], "default": 1, "memory": draw(st.booleans())},
    }
    rules = draw(st.sampled_from([[], [{"forbid": "n > 2 and flag"}], [{"forbid": "m + n > 5"}, {"forbid": "m == 4"}]]))
    kind = draw(st.sampled_from(list(FailureKind)))
    share = draw(st.sampled_from([0, 2, 5]))

    def outcome(config):
        chance = random.Random(config_key(config))
        return kind if chance.randrange(6) < share else chance.uniform(1, 10)

    first = [{"change": {"flag": draw(st.booleans()), "m": draw(st.sampled_from([1, 2]))}}] * draw(st.integers(0, 2))
    sections = {"budget": {"trials": draw(st.integers(1, 25))}, "rules": rules, "try_first": first}
    return parameters, sections | {"strategy": draw(st.sampled_from(["gp", "tpe", "random", "grid"]))}, outcome


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=studies(), seed=st.integers(0, 99))
def test_a_run_is_legal_distinct_within_budget_and_the_same_when_resumed(study, run_study, drawn, seed):
    parameters, sections, outcome = drawn
    spec = study(parameters, **sections, seed=seed)
    space = Space(spec)
    trials = run_study(spec, outcome)
    assert trials[0].config == spec.baseline
    origins = [trial.origin for trial in trials]
    assert origins[0] is Origin.BASELINE
    assert origins[2:] == [Origin.SAMPLER] * len(origins[2:])
    assert all(trial.config in space for trial in trials)
    assert len({config_key(trial.config) for trial in trials}) == len(trials) <= spec.budget.trials
    assert run_study(spec, outcome, kept=trials[: len(trials) // 2]) == trials


@pytest.mark.parametrize("strategy", ["gp", "tpe", "random", "grid"])
def test_a_space_within_the_budget_is_covered_exactly_once(study, run_study, strategy):
    spec = study(SMALL, rules=[{"forbid": "batch == 8 and threads == 2"}], budget={"trials": 100}, strategy=strategy)
    trials = run_study(spec, lambda config: float(config["batch"]))
    assert sorted(config_key(t.config) for t in trials) == sorted(map(config_key, Space(spec).configs))


def test_exhaustive_search_reloads_as_seldom_as_can_be(study, run_study):
    spec = study(SMALL, budget={"trials": 100})
    trials = run_study(spec, lambda config: 1.0)
    settings_of_reload = [config_key({**trial.config, "batch": None}) for trial in trials]
    changes = sum(a != b for a, b in itertools.pairwise(settings_of_reload))
    assert changes == len(set(settings_of_reload)) - 1
    assert [trial.config["batch"] for trial in trials[:4]] == [2, 1, 4, 8]  # the live parameter of the baseline first


def test_what_needs_more_than_what_ran_out_of_memory_is_never_tried(study, run_study):
    spec = study(SMALL, budget={"trials": 100})

    def fits(config):
        return 1.0 if config["batch"] * config["threads"] < 4 else FailureKind.OUT_OF_MEMORY

    trials = run_study(spec, fits)
    failed = [t.config for t in trials if t.verdict is None]
    assert not [
        (a, b) for a in failed for b in failed if b["batch"] > a["batch"] and {**a, "batch": 0} == {**b, "batch": 0}
        and failed.index(a) < failed.index(b)
    ]  # fmt: skip


def test_the_opening_looks_far_from_all_that_was_tried(study, run_study):
    """Too near the baseline, a model stays there: each of the first is farther from all before than most are."""
    spec = study(SERVING, budget={"trials": 30})
    space, opening = Space(spec), run_study(spec, landscape(1)[1])[:3]
    everything = space.matrix(map(space.encode, space.configs))
    for number, trial in enumerate(opening[1:], 1):
        tried = space.matrix(space.encode(each.config) for each in opening[:number])
        nearest = space.shape.distances(everything, tried).min(axis=1)
        own = space.shape.distances(space.matrix([space.encode(trial.config)]), tried).min()
        assert own > np.quantile(nearest, 0.95)


def test_the_opening_takes_no_more_than_a_third(study, run_study):
    spec = study({f"p{i}": {"bool": True, "default": False} for i in range(10)}, budget={"trials": 6})
    reasons = reasons_of(spec, run_study(spec, lambda config: 1.0 + sum(config.values())))
    assert [reason.startswith("as unlike everything") for reason in reasons[1:4]] == [True, False, False]


def test_what_the_file_says_comes_first_and_costs_no_more_than_itself(study, run_study):
    """Bad advice, near the baseline: what follows is spread as without it, and as good in as many trials of its own."""
    ahead = []
    for seed in range(6):
        true, seen = landscape(seed)
        good = sorted(map(true, Space(study(SERVING)).configs))[-20]
        needed = []
        for advice in ([], [{"change": {"attention": "w"}}, {"change": {"threads": 7}, "because": "I know"}]):
            spec = study(SERVING, budget={"trials": 40}, try_first=advice)
            trials = run_study(spec, seen)
            told = [trial for trial in trials if trial.origin is Origin.TRANSFER]
            assert [trial.number for trial in told] == list(range(1, 1 + len(advice)))
            needed.append(next((t.number for t in trials if true(t.config) >= good), 40) - len(advice))
        assert reasons_of(spec, trials)[1:4] == [
            "the file says to try it first", "I know", "as unlike everything tried as can be",
        ]  # fmt: skip
        ahead.append(needed[1] - needed[0])
    assert sum(ahead) / len(ahead) < 4


def reasons_of(spec, trials):
    return [propose(spec, Space(spec), trials[:number]).reason for number in range(len(trials))]


def test_every_proposal_says_why(study, run_study):
    """What is said of a trial is what a resumed study would say."""
    spec = study(SERVING, budget={"trials": 14})
    trials = run_study(spec, lambda config: 1.0 if config["threads"] > 1 else FailureKind.CRASHED)
    reasons = reasons_of(spec, trials)
    assert reasons[0] == "what is in use today"
    assert reasons[8].startswith("promises most of the steps from trial ")
    words = r"promises most of all that is left: expected to be \S+ to \S+ times as good as the best, \d+% sure to run"
    assert re.search(words, reasons[9])


def test_what_costs_a_reload_is_changed_when_it_is_worth_it(study, run_study):
    """Of two equal gains the one without a reload comes first; loading takes a hundred times as long as a run."""
    parameters = {f"live{i}": {"int": [0, 3], "default": 0, "live": True} for i in range(3)}
    parameters |= {f"slow{i}": {"int": [0, 3], "default": 0} for i in range(3)}
    reloads = {0.0: 0, 100.0: 0}
    for setup_s, seed in itertools.product(reloads, range(4)):
        spec = study(parameters, budget={"trials": 40}, seed=seed)
        trials = run_study(spec, lambda config: 1.0 + sum(config.values()), setup_s=setup_s)
        settings_of_reload = [tuple(trial.config[f"slow{i}"] for i in range(3)) for trial in trials]
        reloads[setup_s] += sum(a != b for a, b in itertools.pairwise(settings_of_reload))
    assert reloads[100.0] < 0.8 * reloads[0.0]


def test_what_was_used_again_does_not_say_what_a_reload_takes(study, try_out):
    spec = study({"live": {"int": [0, 7], "default": 0, "live": True}, "slow": {"choices": ["x", "y"], "default": "x"}})
    space, trials = Space(spec), []
    for slow, live, setup_s, reused in (("x", 0, 60.0, False), ("x", 5, 0.01, True), ("y", 5, 30.0, False)):
        proposal = Proposal({"live": live, "slow": slow}, Origin.SAMPLER, "")
        trial = try_out(spec, len(trials), proposal, lambda config: 1.0, setup_s)
        trials.append(dataclasses.replace(trial, outcome=dataclasses.replace(trial.outcome, reused=reused)))
    rows = space.matrix([space.encode({"live": 6, "slow": "x"}), space.encode({"live": 6, "slow": "y"})])
    assert costs_s(spec, space, trials, rows) == pytest.approx([61.0, 1.0], abs=0.01)


def test_nothing_is_left_when_everything_else_is_ruled_out(study, run_study):
    spec = study({"n": {"int": [1, 9], "default": 1, "memory": True}}, budget={"trials": 100})
    assert len(run_study(spec, lambda _: FailureKind.OUT_OF_MEMORY)) == 1


def test_a_space_too_large_to_list_is_searched_too(study, run_study):
    parameters = {f"p{i}": {"int": [0, 9], "default": 0} for i in range(12)}
    spec = study(parameters, rules=[{"forbid": "p0 > 4 and p1 > 4"}], budget={"trials": 20})
    trials = run_study(spec, lambda config: 1.0 + sum(config.values()))
    space = Space(spec)
    assert len({config_key(trial.config) for trial in trials}) == 20
    assert all(trial.config in space for trial in trials)
    assert best_trial(spec, trials).verdict.objectives["throughput_steps_per_s"] > 45


@pytest.mark.slow
def test_our_model_beats_tpe_which_beats_chance(study, run_study):
    found = {
        strategy: [
            best_true(study(SERVING, budget={"trials": 25}, strategy=strategy, seed=seed), run_study, seed)
            for seed in range(12)
        ]
        for strategy in ("gp", "tpe", "random")
    }
    assert sum(ours > theirs for ours, theirs in zip(found["gp"], found["random"], strict=True)) >= 11
    assert math.fsum(map(math.log, found["gp"])) > math.fsum(map(math.log, found["tpe"])) + 0.3
    assert math.fsum(map(math.log, found["tpe"])) > math.fsum(map(math.log, found["random"]))


def best_true(spec, run_study, seed):
    true, measured = landscape(seed)
    return true(best_trial(spec, run_study(spec, measured)).config)


def test_failing_configurations_are_not_proposed_again_and_again(study, run_study):
    """40 % of the space fails; a search that forgot would fail in 40 % of its trials or more."""
    true, _ = landscape(3)

    def fragile(config):  # the failing values would be the best
        fails = config["dtype"] == "c" or (config["attention"] == "w" and config["threads"] > 1)
        return FailureKind.CRASHED if fails else true(config)

    later = []
    for seed in range(2):
        spec = study(SERVING, budget={"trials": 36}, seed=seed)
        some = Space(spec).configs[::7]
        share = sum(fragile(config) is FailureKind.CRASHED for config in some) / len(some)
        assert 0.4 < share < 0.6
        later += run_study(spec, fragile)[12:]
    assert sum(trial.verdict is None for trial in later) < 0.2 * len(later)


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
def test_the_best_trial_is_feasible_finite_and_the_earliest_of_equals(study, try_out, run_study, goal):
    spec = study(SMALL, objectives=[{goal: "latency_mean_s"}], budget={"trials": 6})
    values = iter([5.0, math.nan, FailureKind.CRASHED, 1.0, 9.0, 1.0])
    trials = run_study(spec, lambda _: next(values))
    assert best_trial(spec, trials).number == (4 if goal == "maximize" else 3)
    assert best_trial(spec, []) is None
    assert best_trial(spec, trials[1:3]) is None


def test_a_broken_limit_is_never_the_best(study, run_study):
    spec = study(SMALL, budget={"trials": 100})
    trials = run_study(spec, lambda config: float(config["batch"]))
    broken = [
        dataclasses.replace(
            t, verdict=dataclasses.replace(t.verdict, violations={"l": 0.1 if t.config["batch"] == 8 else 0.0})
        )
        for t in trials
    ]
    assert best_trial(spec, trials).config["batch"] == 8
    assert best_trial(spec, broken).config["batch"] == 4
    assert propose(study(SMALL, budget={"trials": 30}), Space(spec), broken[:8]) is not None


def test_a_baseline_that_breaks_a_limit_is_led_back(study, try_out):
    """Nothing keeps it yet, but each trial says by how much it is broken."""
    parameters = {f"p{i}": {"int": [0, 9], "default": 9} for i in range(4)}
    firsts = []
    for seed in range(6):
        spec = study(parameters, budget={"trials": 40}, limits=["latency_p95_s <= 1 s"], seed=seed)
        space, trials = Space(spec), []
        while (proposal := propose(spec, space, trials)) is not None:
            trial = try_out(spec, len(trials), proposal, lambda config: 1.0 + sum(config.values()))
            excess = {spec.limits[0].text: 0.15 * (sum(proposal.config.values()) - 8)}
            verdict = dataclasses.replace(trial.verdict, violations=excess)
            trials.append(dataclasses.replace(trial, verdict=verdict))
            if verdict.feasible:
                break
        firsts.append(len(trials))
    assert sorted(firsts)[4] < 25, firsts  # 5 % of the space keeps it, the corner that is farthest from the baseline


def test_the_search_works_while_nothing_but_failures_is_known(study, run_study):
    spec = study(SERVING, budget={"trials": 20})
    trials = run_study(spec, lambda _: FailureKind.CRASHED)
    assert len({config_key(trial.config) for trial in trials}) == 20


def test_an_objective_that_is_zero_does_no_harm(study, run_study):
    spec = study(SERVING, objectives=[{"minimize": "output_kl_nats"}], budget={"trials": 16})
    assert len(run_study(spec, lambda config: float(config["workers"] % 2))) == 16


def test_a_proposal_is_quick(study, run_study):
    """Loosely: the benchmark has the number. A search must not cost as much as what it searches."""
    spec = study(SERVING, budget={"trials": 200})
    space, trials = Space(spec), run_study(study(SERVING, budget={"trials": 30}), landscape(1)[1])
    began = time.process_time()
    for seed in range(4):
        propose(study(SERVING, budget={"trials": 200}, seed=seed), space, trials)
    assert (time.process_time() - began) / 4 < 1.0


def test_the_search_never_imports_torch_and_optuna_only_when_it_suggests():
    code = (
        "import sys; import autotuner.adjust.adjuster\n"
        "assert 'optuna' not in sys.modules\n"
        "import autotuner.adjust.optuna_search as door\n"
        "with door._quiet(): door._sampler(1)\n"
        "assert 'optuna' in sys.modules and 'torch' not in sys.modules and 'scipy.stats' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_optuna_is_silent(study, run_study, capfd, recwarn):
    run_study(study(SERVING, budget={"trials": 14}, strategy="tpe"), landscape(1)[1])
    assert capfd.readouterr() == ("", "")
    assert len(recwarn) == 0
