import pytest

from autotuner.report.sparkline import FAILED, LEVELS, shares_of_best, sparkline


def test_the_best_is_full_and_a_failure_is_marked():
    assert sparkline(shares_of_best([1.0, None, 4.0, 8.0, -1.0], maximize=True), 60) == "▁×▄█▁"
    assert sparkline(shares_of_best([1.0, None, 4.0, 8.0], maximize=False), 60) == "█×▂▁"


@pytest.mark.parametrize("count", [1, 59, 60, 61, 119, 2000])
def test_it_is_never_wider_and_keeps_what_stands_out(count):
    heights = [0.1] * count
    heights[count // 2] = 1.0
    line = sparkline(heights, 60)
    assert len(line) == min(60, count)
    assert line.count(LEVELS[-1]) == 1


def test_nothing_and_nothing_but_failures():
    assert sparkline([], 60) == ""
    assert sparkline(shares_of_best([None] * 100, maximize=True), 60) == FAILED * 60
