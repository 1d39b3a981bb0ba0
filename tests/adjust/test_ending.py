"""A search ends when its model expects nothing more, and not where the model cannot know."""

import math
from random import Random

import numpy as np
import pytest

from autotuner.adjust.dimensions import Shape, numbers
from autotuner.adjust.ending import LITTLE_RATIO, little_expected
from autotuner.adjust.promise import Seen, expected_gain, promise
from autotuner.adjust.space import Space

PARAMETERS = {
    "a": {"int": [0, 15], "default": 0},
    "b": {"int": [0, 15], "default": 0},
    "c": {"choices": ["x", "y", "z"], "default": "x"},
}


def smooth(config):
    return 100 * math.exp(-0.02 * ((config["a"] - 9) ** 2 + (config["b"] - 6) ** 2) - 0.3 * (config["c"] != "y"))


def rugged(config):
    """The same, and by lot up to three times as fast."""
    return smooth(config) * (1 + 2 * Random(str(sorted(config.items()))).random() ** 4)


def ended(spec, trials):
    """After how many trials the search would have ended; None if never."""
    space = Space(spec)
    return next((count for count in range(1, len(trials)) if little_expected(spec, space, trials[:count])), None)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_smooth_space_is_left_when_its_top_was_found(study, run_study, seed):
    spec = study(PARAMETERS, budget={"trials": 50}, seed=seed)
    trials = run_study(spec, smooth)
    count = ended(spec, trials)
    assert count is not None
    assert 15 <= count < 45
    best = max(trial.verdict.objectives["throughput_steps_per_s"] for trial in trials[:count])
    assert best > 100 * (1 - 4 * LITTLE_RATIO)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_rugged_space_is_searched_on(study, run_study, seed):
    spec = study(PARAMETERS, budget={"trials": 50}, seed=seed)
    assert ended(spec, run_study(spec, rugged)) is None


def test_other_strategies_use_their_budget(study, run_study):
    spec = study(PARAMETERS, budget={"trials": 40}, strategy="random")
    assert ended(spec, run_study(spec, lambda config: 1.0)) is None


def test_what_is_said_is_an_expectation(study, run_study):
    spec = study(PARAMETERS, budget={"trials": 50})
    trials = run_study(spec, smooth)
    said = little_expected(spec, Space(spec), trials[: ended(spec, trials)])
    assert said.startswith("the model expects no more than 0.")
    assert "optim" not in said


def test_what_stays_unexplained_counts_as_a_chance():
    plane, draws = Shape((numbers(range(32)), numbers(range(32)))), Random(0)
    rows = np.array([[draws.randrange(32), draws.randrange(32)] for _ in range(40)], dtype=np.int32)
    scores = -((rows[:, 0] / 32 - 0.5) ** 2) + np.array([draws.gauss(0, 0.02) for _ in rows])
    seen = Seen(rows, scores, np.full(len(rows), -math.inf))
    asked = np.array([[16, 20], [17, 3], [15, 11]], dtype=np.int32)
    assert (expected_gain(plane, seen, asked) > 1.5 * np.exp(promise(plane, seen, asked))).all()
