import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autotuner.analyze.batch_slope import Line, fit_line

SIZES = (1, 2, 4, 8, 16)


def test_the_share_of_a_known_line():
    line = fit_line({b: 0.010 + 0.001 * b for b in SIZES})
    share = line.overhead_share(10)
    assert share.value == pytest.approx(0.5)
    assert (share.low, share.high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert line.time_s(10) == pytest.approx(0.020)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(1e-4, 1), st.floats(1e-6, 1), st.lists(st.floats(0.9, 1.1), min_size=5, max_size=5))
def test_shares_stay_in_their_bounds_and_fall_with_the_batch(fixed_s, per_item_s, noise):
    line = fit_line({b: (fixed_s + per_item_s * b) * factor for b, factor in zip(SIZES, noise, strict=True)})
    assume(line is not None)
    shares = [line.overhead_share(b) for b in (1, 2, 8, 64)]
    assert all(0 <= share.low <= share.value <= share.high <= 1 for share in shares)
    assert [share.value for share in shares] == sorted((share.value for share in shares), reverse=True)


@pytest.mark.parametrize(("fixed_s", "batch"), [(0.010, 1), (0.010, 16), (0.001, 4), (0.050, 2)])
def test_the_interval_covers_the_true_share(fixed_s, batch):
    draw, covered, trials = random.Random(3), 0, 400
    truth = fixed_s / (fixed_s + 0.002 * batch)
    for _ in range(trials):
        line = fit_line({b: (fixed_s + 0.002 * b) * (1 + draw.gauss(0, 0.03)) for b in SIZES})
        share = line.overhead_share(batch)
        covered += share.low <= truth <= share.high
    assert 0.92 <= covered / trials <= 0.99


def test_times_that_say_nothing_leave_the_share_open():
    noisy = fit_line({1: 0.010, 2: 0.014, 4: 0.011})
    share = noisy.overhead_share(4)
    assert (share.low, share.high) == (0.0, 1.0)


def test_a_slope_that_is_negative_by_noise_alone_is_none():
    line = fit_line({1: 0.1000, 2: 0.1002, 4: 0.0999, 8: 0.0998, 16: 0.0998})
    assert line.per_item_s == 0
    assert line.overhead_share(64).value == 1
    assert line.overhead_share(1).low > 0.99
    assert line.misfit_ratio < 0.003


def test_a_fixed_part_that_is_negative_by_noise_alone_is_none():
    line = fit_line({1: 0.0099, 2: 0.0202, 4: 0.0400, 8: 0.0800, 16: 0.1620})
    assert line.fixed_s == 0
    assert line.per_item_s == pytest.approx(0.01, rel=0.02)
    assert line.overhead_share(4).value == 0


@pytest.mark.parametrize(
    "times_s",
    [
        {1: 0.1, 2: 0.2},
        {1: 0.10, 2: 0.09, 4: 0.07, 8: 0.03},  # falls
        {1: 0.01, 2: 0.03, 4: 0.07, 8: 0.15},  # through less than nothing
        {1: 0.1, 2: 0.0, 4: 0.3},
    ],
    ids=str,
)
def test_no_line_where_none_can_be_said(times_s):
    assert fit_line(times_s) is None


def test_a_line_without_uncertainty_is_still_a_line():
    assert Line(0.01, 0.001, 0.0).overhead_share(10).value == pytest.approx(0.5)
