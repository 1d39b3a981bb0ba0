import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.analyze.least_squares import fit_straight_line, student_975

PARTS = st.floats(0.01, 100)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (10, 2.2281), (30, 2.0423), (120, 1.9799)]
)
def test_quantiles_are_those_of_the_printed_table(degrees, quantile):
    assert student_975(degrees) == pytest.approx(quantile, abs=6e-5)


def test_many_degrees_are_nearly_normal_and_none_is_no_distribution():
    assert student_975(10**9) == pytest.approx(1.96, abs=0.003)
    with pytest.raises(ValueError, match="0 degrees"):
        student_975(0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PARTS, PARTS, st.booleans())
def test_points_on_a_line_are_found_again(intercept, slope, relative):
    line = fit_straight_line([(x, intercept + slope * x) for x in (1, 2, 5, 9)], relative=relative)
    assert line.intercept == pytest.approx(intercept, rel=1e-6, abs=1e-9 * slope)
    assert line.slope == pytest.approx(slope, rel=1e-6)
    assert line.at(7) == pytest.approx(intercept + 7 * slope)
    assert line.misfit_ratio < 1e-9


def test_numbers_of_draper_and_smith():
    """Their steam data in miniature: slope, intercept and standard errors of y = x by hand."""
    line = fit_straight_line([(1, 1.0), (2, 3.0), (3, 2.0), (4, 4.0)], relative=False)
    assert (line.slope, line.intercept) == (pytest.approx(0.8), pytest.approx(0.5))
    assert line.noise_sd**2 == pytest.approx(0.9)
    assert line.covariance == (pytest.approx(1.35), pytest.approx(-0.45), pytest.approx(0.18))


@pytest.mark.parametrize("points", [[], [(1, 1), (2, 2)], [(1, 1), (1, 2), (1, 3)], [(1, 1), (2, 2), (3, 0)]], ids=str)
def test_no_line_where_none_can_be_said(points):
    assert fit_straight_line(points, relative=True) is None


def test_long_times_do_not_decide_alone():
    points = [(1, 1.0), (2, 2.0), (4, 4.0), (1000, 1100.0)]
    assert fit_straight_line(points, relative=True).at(1) == pytest.approx(1.0, rel=0.06)
    assert abs(fit_straight_line(points, relative=False).at(1) - 1) > 0.1


@pytest.mark.parametrize("relative", [True, False])
def test_intervals_cover_the_truth_as_often_as_they_say(relative):
    draw, covered, trials = random.Random(7), [0, 0, 0], 600
    for _ in range(trials):

        def noisy(x):
            true = 3 + 0.5 * x
            return true * (1 + draw.gauss(0, 0.03)) if relative else true + draw.gauss(0, 0.1)

        line = fit_straight_line([(x, noisy(x)) for x in (1, 2, 4, 8, 16)], relative=relative)
        truths = ((line.intercept_interval(), 3), (line.slope_interval(), 0.5), (line.prediction(12), noisy(12)))
        covered = [
            sum(pair) for pair in zip(covered, (end.low <= true <= end.high for end, true in truths), strict=True)
        ]
    assert all(0.92 <= count / trials <= 0.98 for count in covered)


def test_a_prediction_is_less_certain_than_the_line_and_further_out():
    line = fit_straight_line([(1, 1.1), (2, 1.9), (3, 3.1), (4, 3.9)], relative=False)
    widths = [line.prediction(x).high - line.prediction(x).low for x in (2.5, 10, 100)]
    assert widths == sorted(widths)
    assert widths[0] > 2 * line.noise_sd
    assert math.isfinite(widths[-1])
