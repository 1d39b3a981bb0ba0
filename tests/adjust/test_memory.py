"""A model of measured peaks says what fits, before it is tried."""

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from autotuner.adjust.adjuster import propose
from autotuner.adjust.dimensions import Shape, names, numbers
from autotuner.adjust.memory import Demand, log_chance_to_fit
from autotuner.adjust.pruning import memory_demand
from autotuner.adjust.space import Space
from autotuner.types import Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict

BATCHES = [2**power for power in range(9)]
SHAPE = Shape((numbers(BATCHES), names(2), names(3)))
DRIVERS = {0: np.array(BATCHES) / BATCHES[-1]}
HALF = (1.0, 0.5)  # of both, by the second parameter; the third changes nothing


def needed(row):
    return HALF[row[1]] * (0.1 + 1.6 * BATCHES[row[0]] / 256)


def demand(rows):
    ratios = np.array([needed(row) for row in rows])
    return Demand(np.array(rows, dtype=np.int32), np.where(ratios <= 1, ratios, math.inf), DRIVERS)


def chance(known, *rows):
    return np.exp(log_chance_to_fit(SHAPE, known, np.array(rows, dtype=np.int32)))


def test_two_sizes_tell_the_third():
    known = demand([(0, 0, 0), (5, 0, 0)])
    fits, full, over = chance(known, (6, 0, 0), (7, 0, 0), (8, 0, 0))
    assert fits > 0.95
    assert over < 0.05
    assert full > over


def test_the_range_of_a_driver_is_all_that_is_known_of_it_at_first():
    known = demand([(0, 0, 0)])
    small, middle, large = chance(known, (2, 0, 0), (6, 0, 0), (8, 0, 0))
    assert small > 0.99 > middle > 0.8 > large > 0.05


def test_what_ran_out_of_memory_warns_of_what_is_like_it():
    before, after = demand([(0, 0, 0)]), demand([(0, 0, 0), (8, 0, 1)])
    assert chance(after, (8, 0, 0))[0] < 0.5 * chance(before, (8, 0, 0))[0]
    assert chance(after, (7, 0, 0))[0] < 0.9 * chance(before, (7, 0, 0))[0]
    assert chance(after, (3, 0, 0))[0] > 0.9, "it needs more than there is, nobody knows by how much"


def test_what_halves_memory_is_learned_once_for_all_sizes():
    known = demand([(0, 0, 0), (5, 0, 0), (5, 1, 0), (6, 0, 1), (4, 1, 2), (8, 0, 2)])
    halved, whole = chance(known, (8, 1, 1), (8, 0, 1))
    assert halved > 0.1 > 0.01 > whole


def test_chances_are_what_they_say():
    """Of all that was called 90 % sure or surer, in a hundred small samples, at least 90 % fits."""
    draws, rights = np.random.default_rng(0), []
    rows = np.array([(b, half, third) for b in range(9) for half in range(2) for third in range(3)], dtype=np.int32)
    fits = np.array([needed(row) <= 1 for row in rows])
    for _ in range(100):
        known = demand([(0, 0, 0), *map(tuple, draws.choice(rows, draws.integers(1, 10), replace=False).tolist())])
        rights += fits[log_chance_to_fit(SHAPE, known, rows) > math.log(0.9)].tolist()
    assert np.mean(rights) > 0.9


PARAMETERS = {
    "batch": {"powers_of_two": [1, 256], "default": 1, "memory": True},
    "half": {"bool": True, "default": False},
    "kernel": {"choices": ["a", "b", "c"], "default": "a"},
    "keep": {"choices": [1, 2, 4], "default": 1},
}


def trial(number, config, peak_bytes, limit_bytes):
    if peak_bytes > limit_bytes:
        return Trial(number, config, Origin.SAMPLER, Failure(FailureKind.OUT_OF_MEMORY, "no"), None)
    rate = config["batch"] / (1 + 0.01 * config["batch"]) * (1 + config["half"]) * config["keep"] ** 0.5
    samples = {"throughput_steps_per_s": (rate,), "peak_memory_bytes": (peak_bytes,)}
    environment = {"memory_bytes": str(limit_bytes)}
    measured = Measurement(samples, 0, 0, 1, {}, environment, datetime(2026, 1, 1, tzinfo=UTC))
    return Trial(
        number, config, Origin.SAMPLER, measured, Verdict({"throughput_steps_per_s": rate}, {}, Diagnosis("unknown"))
    )


def peak_bytes(config):
    return (1 - 0.5 * config["half"]) * (20 + 3.0 * config["batch"] * config["keep"])


@pytest.mark.parametrize("seed", range(4))
def test_few_trials_are_lost_where_memory_ends(study, seed):
    spec = study(PARAMETERS, budget={"trials": 40}, seed=seed)
    space, trials = Space(spec), []
    while (proposal := propose(spec, space, trials)) is not None:
        trials.append(trial(len(trials), proposal.config, peak_bytes(proposal.config), 300.0))
    lost = sum(one.ran_out_of_memory for one in trials)
    assert lost <= 3
    best = max(one.verdict.objectives["throughput_steps_per_s"] for one in trials if one.verdict)
    fitting = [trial(0, config, peak_bytes(config), 300.0) for config in space.configs if peak_bytes(config) <= 300]
    assert best > 0.95 * max(one.verdict.objectives["throughput_steps_per_s"] for one in fitting)


@pytest.mark.parametrize("sizes", [[8, 64], [1, 32, 64], [16, 32, 48, 64]])
@pytest.mark.parametrize("level", [0.3, 0.6, 0.9])
def test_a_range_of_few_values_is_not_given_up_unseen(study, sizes, level):
    """Everything fits, and nobody can know before the next size was tried."""
    spec = study(
        {**PARAMETERS, "batch": {"choices": sizes, "default": sizes[0], "memory": True}}, budget={"trials": 30}
    )
    space, trials = Space(spec), []
    while (proposal := propose(spec, space, trials)) is not None:
        peak = 300 * (level + 0.05 * proposal.config["batch"] / 64)
        trials.append(trial(len(trials), proposal.config, peak, 300.0))
    assert max(one.config["batch"] for one in trials[:12]) == 64


def test_where_there_is_plenty_nothing_is_modelled(study):
    spec = study(PARAMETERS)
    space, first = Space(spec), spec.baseline
    assert memory_demand(space, [trial(0, first, peak_bytes(first), 1e9)]) is None
    assert memory_demand(space, [trial(0, first, peak_bytes(first), 300.0)]) is not None


def test_without_a_peak_nothing_is_known(study):
    spec = study(PARAMETERS)
    unknown = trial(0, spec.baseline, 23.0, 300.0)
    unknown.outcome.samples.pop("peak_memory_bytes")
    assert memory_demand(Space(spec), [unknown]) is None
