"""The watch over a history: no alarm of noise, a real change found where it is, and a forecast that holds."""

import math
import random

import numpy as np
import pytest

from autotuner.analyze.change_chart import FEWEST, SHORTEST, THRESHOLD, WINDOW, inflation
from autotuner.analyze.drift import find_drift, forecast

STEP = math.log(0.95)


def noise(count, seed, spread=0.02):
    rng = random.Random(seed)
    return [rng.gauss(0.0, spread) for _ in range(count)]


def spikes(series, seed, size=0.5):
    rng = random.Random(seed)
    return [value - (size if rng.random() < 0.05 else 0.0) for value in series]


def alike(count, seed, weight):
    rng, value, found = random.Random(seed), 0.0, []
    for _ in range(count):
        value = weight * value + math.sqrt(1 - weight**2) * rng.gauss(0.0, 0.02)
        found.append(value)
    return found


def stepped(before, after, seed, step=STEP):
    return [value + (step if place >= before else 0.0) for place, value in enumerate(noise(before + after, seed))]


@pytest.mark.parametrize(
    "make",
    [noise, lambda n, seed: spikes(noise(n, seed), seed), lambda n, seed: alike(n, seed, 0.5)],
    ids=["normal", "spiking", "correlated"],
)
def test_noise_alone_is_seldom_called_a_change(make):
    alarms = sum(len(find_drift(make(200, seed)).changes) for seed in range(10))
    assert alarms <= 5  # of 2,000 values; `benchmarks/drift_detection.py` counts them over 100,000


def test_a_step_of_5_percent_at_2_percent_noise_is_seen_within_20_values():
    seen = [[c for c in find_drift(stepped(30, 20, seed)).changes if c.proven_at >= 30] for seed in range(20)]
    assert sum(bool(changes) for changes in seen) >= 19
    found = [changes[0] for changes in seen if changes]
    assert all(change.direction == -1 for change in found)
    assert sum(abs(change.index - 30) <= 3 for change in found) >= 0.9 * len(found)
    assert sum(change.low <= STEP <= change.high for change in found) >= 0.85 * len(found)


def test_what_was_proven_stays_proven_however_much_comes_after():
    series = stepped(30, 60, seed=3)
    early = find_drift(series[: find_drift(series).changes[0].proven_at + 1])
    late = find_drift(series)
    assert early.changes[0].index == late.changes[0].index
    assert early.changes[0].proven_at == late.changes[0].proven_at
    assert early.changes[0].high - early.changes[0].low > late.changes[0].high - late.changes[0].low
    assert not find_drift(series[: early.changes[0].proven_at]).changes


def test_no_later_value_changes_what_was_said_before():
    series = [*stepped(25, 30, seed=8), *stepped(10, 30, seed=9, step=0.2)]
    rng = random.Random(0)
    spreads = [rng.expovariate(100.0) for _ in series]
    known = []
    for count in range(len(series) + 1):
        found = [(c.index, c.proven_at) for c in find_drift(series[:count], spreads[:count]).changes]
        assert found[: len(known)] == known
        known = found
    assert len(known) >= 2


def test_up_and_down_again_are_two_changes():
    series = [value + (0.2 if 20 <= place < 45 else 0.0) for place, value in enumerate(noise(70, 5))]
    found = find_drift(series)
    assert [change.direction for change in found.changes] == [1, -1]
    assert [change.index for change in found.changes] == pytest.approx([20, 45], abs=1)
    assert found.since == found.changes[1].index
    assert found.count == 70 - found.since
    assert found.level == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("size", [0.1, 10.0, 1e6])
def test_outliers_are_no_change_however_far_they_lie(size):
    series = noise(60, 7)
    for place in (11, 30, 31, 50):
        series[place] -= size
    assert find_drift(series).changes == ()


def test_what_is_not_finite_or_far_less_certain_is_set_aside():
    series = [*noise(20, 1), math.nan, *stepped(10, 20, 2)]
    spreads = [0.01] * len(series)
    series[5], spreads[5] = 1.0, 0.5
    found = find_drift(series, spreads)
    assert found.set_aside == (5, 20)
    assert abs(found.changes[0].index - 31) <= 2


def test_equal_values_and_few_values_say_nothing():
    assert find_drift([3.0] * 50).changes == ()
    assert find_drift([1.0, 2.0] * (FEWEST // 2 - 1)).score == 0.0
    assert math.isnan(find_drift([]).level)
    with pytest.raises(ValueError, match="spreads"):
        find_drift([1.0], [1.0, 2.0])


def test_a_coarse_clock_whose_values_are_often_equal_is_no_change():
    alarms = [c for seed in range(8) for c in find_drift([round(v, 2) for v in noise(150, seed)]).changes]
    assert len(alarms) <= 3  # of 1,200 values


@pytest.mark.parametrize("known", [5, 12, 30, 120])
def test_the_forecast_holds_the_next_value(known):
    held = 0
    for seed in range(100):
        *series, following = noise(known + 1, seed)
        expected = forecast(series)
        held += expected.low <= following <= expected.high
        assert expected.slope == 0.0 or known > FEWEST
    assert held >= 88


def test_a_forecast_is_of_the_present_level():
    expected = forecast(stepped(30, 30, 4, step=1.0))
    assert expected.value == pytest.approx(1.0, abs=0.03)
    assert expected.low < expected.value < expected.high
    assert expected.high - expected.low < 0.2


def test_a_proven_trend_goes_on_and_an_unproven_one_does_not():
    rising = [0.004 * place + value for place, value in enumerate(noise(15, 6, spread=0.003))]
    assert forecast(rising).slope == pytest.approx(0.004, rel=0.2)
    assert forecast(rising).value == pytest.approx(0.06, abs=0.005)
    assert [forecast(noise(60, seed)).slope for seed in range(30)].count(0.0) >= 29


def test_without_values_nothing_is_forecast():
    assert math.isnan(forecast([]).value)
    assert forecast([1.0, 1.1]).high == math.inf


def by_definition(series):
    """(index, proven_at) of each change and the last score, one look and one cut after the other."""
    start, found, highest = 0, [], 0.0
    for end in range(FEWEST, len(series) + 1):
        begin, highest, best = max(start, end - WINDOW), 0.0, SHORTEST
        seen = np.array(series[begin:end])
        size = len(seen)
        ranks = np.sign(seen[:, None] - seen[None, :]).sum(axis=1) / 2
        variance = float((ranks**2).sum()) / size
        for cut in range(SHORTEST, size - SHORTEST + 1) if size >= FEWEST and variance else ():
            score = abs(ranks[:cut].sum()) / math.sqrt(cut * (size - cut) * variance / (size - 1))
            if score > highest:
                highest, best = score, cut
        highest = highest / inflation(ranks, best) if highest else 0.0
        if highest > THRESHOLD:
            start = begin + best
            found.append((start, end - 1))
    return found, highest


@pytest.mark.parametrize(
    "series",
    [
        noise(FEWEST - 1, 1), noise(FEWEST, 1), stepped(40, 70, 3), stepped(230, 60, 4), alike(320, 5, 0.7),
        [round(50 * value) / 50 for value in stepped(120, 130, 6, step=0.1)], [1.0] * 30, [0.0] * 110 + [1.0] * 110,
        [value + 0.1 * (place // 90 % 2) for place, value in enumerate(noise(330, 7))],
    ],
)  # fmt: skip
def test_many_looks_at_once_say_what_each_says_alone(series):
    found = find_drift(series)
    changes, score = by_definition(series)
    assert [(change.index, change.proven_at) for change in found.changes] == changes
    assert found.score == pytest.approx(score, rel=1e-12)
