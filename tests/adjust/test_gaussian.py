"""The model against its own formulas, written out, and against what it is for."""

import itertools
import math

import numpy as np
import pytest

from autotuner.adjust.dimensions import Shape, names, numbers
from autotuner.adjust.gaussian import GaussianProcess, _loss, fit, prior

SHAPE = Shape((numbers([1, 2, 4, 8, 16]), names(3), numbers([7]), numbers([16, 32, 48, 64, 80, 96, 112, 128])))
BELIEVED = prior(SHAPE, 0.01, 1.5)


def rows(count, seed=0):
    """Some of all, none twice."""
    draw = np.random.default_rng(seed)
    every = np.array(list(itertools.product(*(range(each.size) for each in SHAPE.dimensions))), dtype=np.int32)
    return every[draw.choice(len(every), count, replace=False)]


def matern(r):
    return (1 + math.sqrt(5) * r + 5 * r * r / 3) * math.exp(-math.sqrt(5) * r)


def kernel(a, b, theta):
    """As the module describes it, one pair at a time."""
    count = len(SHAPE.traits)
    squares = [table[a[i], b[i]] / math.exp(reach) ** 2 for (i, table), reach in zip(SHAPE.traits, theta, strict=False)]
    joint, additive = matern(math.sqrt(sum(squares))), sum(matern(math.sqrt(s)) for s in squares) / count
    return math.exp(theta[count]) * joint + math.exp(theta[count + 1]) * additive


def test_what_is_known_of_values():
    """Powers of two lie evenly; of other numbers it also counts how round they are; one value says nothing."""
    assert [i for i, _ in SHAPE.traits] == [0, 1, 3, 3]
    assert SHAPE.traits[0][1][0] == pytest.approx([0, 1 / 16, 1 / 4, 9 / 16, 1])
    assert (SHAPE.traits[1][1] == 1 - np.eye(3)).all()
    halvings = SHAPE.traits[3][1]
    assert halvings[0, 2] == halvings[0, 4] == 0  # 16, 48 and 80
    assert halvings[0, 7] == 1  # 16 and 128


def test_the_forecast_is_the_textbooks():
    known, asked, draw = rows(12), rows(9, seed=1), np.random.default_rng(2)
    values, theta = draw.normal(3, 2, 12), BELIEVED.centre + draw.normal(0, 0.5, len(BELIEVED.centre))
    found = GaussianProcess(SHAPE, known, values, theta, 3.0, 2.0).forecast(asked)
    own = np.array([[kernel(a, b, theta) for b in known] for a in known])
    own += (math.exp(theta[-1]) + 1e-6) * np.eye(12)
    cross = np.array([[kernel(a, b, theta) for b in known] for a in asked])
    variance = math.exp(theta[-3]) + math.exp(theta[-2]) - np.einsum("ij,ji->i", cross, np.linalg.solve(own, cross.T))
    assert found.mean == pytest.approx(3 + 2 * cross @ np.linalg.solve(own, (values - 3) / 2), abs=1e-3)
    assert found.deviation == pytest.approx(2 * np.sqrt(variance), abs=1e-3)


def test_the_gradient_is_the_losss():
    known, draw = rows(15), np.random.default_rng(3)
    values, theta = draw.normal(0, 1, 15), BELIEVED.centre + draw.normal(0, 0.5, len(BELIEVED.centre))
    seen = SHAPE.indicators(known)
    gradient = _loss(theta, SHAPE, seen, values, BELIEVED)[1]
    for place in range(len(theta)):
        step = np.zeros(len(theta))
        step[place] = 1e-5
        two = [_loss(theta + sign * step, SHAPE, seen, values, BELIEVED)[0] for sign in (1, -1)]
        assert gradient[place] == pytest.approx((two[0] - two[1]) / 2e-5, rel=1e-3, abs=1e-4)


def test_what_does_not_matter_reaches_further():
    known = rows(40)
    values = np.sin(known[:, 0].astype(float))  # the first parameter alone
    theta = fit(SHAPE, known, (values - values.mean()) / values.std(), BELIEVED)
    assert theta[0] < theta[1] - 0.5
    assert theta[0] < theta[2] - 0.5


def test_a_long_range_is_compared_by_the_values_that_occur():
    """A table of all values of each other would be 28 GiB; narrowed it says the same of those that occur."""
    long = Shape((numbers(range(1, 60_001)), names(2)))
    known, asked = (np.array(some, dtype=np.int32) for some in ([[0, 0], [59_999, 1], [29_999, 0]], [[100, 1], [0, 1]]))
    narrow, (here, there) = long.narrowed(known, asked)
    assert narrow.dimensions[0].size == 5  # and the second, so that it never shrinks to one
    assert narrow.trait_count == long.trait_count
    wanted = (np.log2(101) / np.log2(60_000)) ** 2
    assert narrow.traits[0][1][there[0, 0], here[0, 0]] == pytest.approx(wanted)
