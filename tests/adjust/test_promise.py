"""What a configuration promises, against numbers that can be computed otherwise."""

import math

import numpy as np
import pytest

from autotuner.adjust.dimensions import Dimension, Shape
from autotuner.adjust.promise import Seen, _ranks, log_expected_improvement, promise

LINE = Shape((Dimension(tuple(range(32)), ordered=True),))


def seen(values, excess=None):
    """Of `{place: score}`; NaN for a failure."""
    scores = np.array(list(values.values()), dtype=float)
    kept = np.where(np.isnan(scores), math.inf, -math.inf) if excess is None else np.array(excess)
    return Seen(np.array([[place] for place in values], dtype=np.int32), scores, kept)


def places(*some):
    return np.array([[place] for place in some], dtype=np.int32)


@pytest.mark.parametrize("z", [-3.0, -0.5, 0.0, 2.0])
def test_expected_improvement_is_an_integral(z):
    draws = np.linspace(-12, 12, 400_001)
    density = np.exp(-(draws**2) / 2) / math.sqrt(2 * math.pi)
    gain = np.trapezoid(np.maximum(0, z + draws) * density, draws)
    assert log_expected_improvement(np.array([z]))[0] == pytest.approx(math.log(gain), abs=1e-4)


def test_the_hopeless_are_told_apart():
    values = log_expected_improvement(np.array([-200.0, -40.0, -10.01, -9.99, -5.0]))
    assert (np.diff(values) > 0).all()
    assert values[3] - values[2] < 0.5


def test_more_is_promised_between_good_ones_than_between_bad_ones():
    known = seen({0: 0.0, 8: 1.0, 16: 3.0, 20: 3.0, 31: 0.0})
    assert promise(LINE, known, places(18))[0] > promise(LINE, known, places(4))[0]


def test_what_is_like_failures_promises_little():
    known = seen({0: 1.0, 4: 2.0, 8: 3.0, 12: math.nan, 16: math.nan, 20: math.nan, 31: math.nan})
    near, far = promise(LINE, known, places(9, 18))
    assert near > far + 1


def test_a_limit_says_how_far_it_is():
    """The same scores, and a violation that grows: what breaks the limit a little beyond is told from what keeps it."""
    scores = {place: 1.0 + 0.05 * place for place in (0, 6, 12, 18, 24, 30)}
    excess = [(place - 20) / 20 for place in scores]
    known = seen(scores, excess)
    assert not known.feasible[4:].any()
    assert known.feasible[:4].all()
    values = promise(LINE, known, places(*range(13, 24)))
    assert 16 <= 13 + int(np.argmax(values)) <= 21


def test_an_expectation_leads_where_nothing_is_known():
    known, asked = seen({0: 1.0, 31: 1.0}), places(8, 16, 24)
    hoped = np.array([0.0, 0.0, 1.0])
    assert int(np.argmax(promise(LINE, known, asked, np.zeros(2), hoped))) == 2


def test_ranks_share_a_place_when_equal():
    ranked = _ranks(np.array([5.0, 1.0, 5.0, 1000.0]))
    assert ranked[0] == ranked[2]
    assert ranked[1] < ranked[0] < ranked[3]
    assert ranked[3] == pytest.approx(1.15, abs=0.01)  # the normal quantile of 7/8
