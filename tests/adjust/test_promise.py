"""What a configuration promises, against numbers that can be computed otherwise."""

import math

import numpy as np
import pytest

from autotuner.adjust.dimensions import Shape, numbers
from autotuner.adjust.promise import Seen, _ranks, log_expected_improvement, outlook, promise

LINE = Shape((numbers(range(32)),))


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


@pytest.mark.parametrize("by_rank", [False, True])
def test_one_wild_value_leads_logarithms_astray_and_not_ranks(by_rank):
    """-60 is a configuration e^60 times slower: beside it all others look alike to a model of logarithms."""
    known = seen({0: 1.0, 8: 2.0, 16: 3.0, 24: 2.0, 31: -60.0})
    values = promise(LINE, known, places(12, 20, 30), by_rank=by_rank)
    assert max(values[:2]) > values[2]
    spread = float(np.ptp(promise(LINE, known, places(2, 14), by_rank=by_rank)))
    assert (spread > 1) == by_rank


def test_what_is_said_is_a_ratio_only_of_logarithms():
    scores = np.array([0.0, 0.1, 0.2])
    for are_logs, words in ((True, "times as good as the best"), (False, "better than the best")):
        known = Seen(places(0, 8, 16), scores, np.full(3, -np.inf), are_logs)
        assert words in outlook(LINE, known, places(12))
    broken = Seen(places(0, 8, 16), scores, np.array([-1.0, 0.3, math.inf]))
    assert "% sure to run and keep the limits" in outlook(LINE, broken, places(12))


def test_how_far_beyond_a_limit_counts():
    known = seen({0: 1.0, 8: 1.0, 16: 1.0, 24: math.nan}, [8.0, 2.0, 0.1, math.inf])
    assert known.labels == pytest.approx([-3.0, -3.0, -math.log2(1.5), -1.0])
