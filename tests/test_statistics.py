"""Statistics against published values, known truths and simulation."""

import math
import random
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.statistics import (
    _t_bound,
    estimate_log_ratio,
    half_width_ratio,
    has_plateaued,
    is_flat,
    pairs_for_half_width,
    required_requests,
)


def gaussian(count, sd=1.0, seed=0, mean=0.0):
    rng = random.Random(seed)
    return [rng.gauss(mean, sd) for _ in range(count)]


class TestHalfWidth:
    def test_few_samples_say_nothing(self):
        assert half_width_ratio([1.0] * 4) == math.inf

    def test_no_noise_no_width(self):
        assert half_width_ratio([3.0] * 5) == 0

    def test_zero_median_and_infinite_samples_say_nothing(self):
        assert half_width_ratio([0.0] * 9) == math.inf
        assert half_width_ratio([1.0, 2.0, math.inf, 2.0, 1.0]) == math.inf
        assert half_width_ratio([1.0, 2.0, math.nan, 2.0, 1.0]) == math.inf

    def test_is_near_the_asymptotic_width(self):
        """The median of n Gaussians has standard error 1.2533 sd / sqrt(n)."""
        widths = [half_width_ratio(gaussian(400, 0.05, seed, mean=1.0)) for seed in range(20)]
        assert sum(widths) / 20 == pytest.approx(1.96 * 1.2533 * 0.05 / math.sqrt(400), rel=0.25)

    def test_of_a_weighted_mean_it_is_near_the_asymptotic_width_too(self):
        """Weights of 1 and 3 in turn: of n Gaussians sqrt(10 n / 2) / (4 n / 2) standard deviations."""
        widths = [half_width_ratio(gaussian(400, 0.05, seed, mean=1.0), [1.0, 3.0] * 200) for seed in range(20)]
        assert sum(widths) / 20 == pytest.approx(1.96 * math.sqrt(2000) / 800 * 0.05, rel=0.25)
        assert half_width_ratio([3.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]) == 0

    def test_same_samples_same_answer_whatever_the_scale(self):
        samples = gaussian(50, 0.1, mean=1.0)
        assert half_width_ratio(samples) == half_width_ratio(samples)
        scaled = half_width_ratio([-8 * value for value in samples])
        assert scaled == pytest.approx(half_width_ratio(samples), rel=0.1)

    def test_autocorrelation_widens_it(self):
        rng, state, slow = random.Random(0), 0.0, []
        for _ in range(200):
            state = 0.95 * state + math.sqrt(1 - 0.95**2) * rng.gauss(0, 0.05)
            slow.append(1 + state)
        shuffled = random.Random(1).sample(slow, len(slow))
        assert half_width_ratio(slow) > 1.5 * half_width_ratio(shuffled)

    def test_is_cheap(self):
        """Meant to be < 2 ms for 50 samples; asserted with a margin of 25 for a busy machine."""
        samples = gaussian(50, mean=10.0)
        half_width_ratio(samples)
        begun_s = time.process_time()
        for _ in range(20):
            half_width_ratio(samples)
        assert (time.process_time() - begun_s) / 20 < 0.05


class TestIsFlat:
    def test_constant_is_flat_and_a_line_is_not(self):
        assert is_flat([0.1] * 10)
        assert not is_flat([0.1 * place for place in range(10)])
        assert not is_flat([1.0 - 0.01 * place for place in range(3)])

    def test_only_the_last_ten_count(self):
        assert is_flat([100.0, 50.0, 25.0, *([1.0, 1.01] * 5)])

    def test_too_few_or_broken_values_are_not_flat(self):
        assert not is_flat([])
        assert not is_flat([1.0, 1.0])
        assert not is_flat([1.0, math.nan, 1.0])

    @pytest.mark.parametrize("count", [3, 5, 10])
    def test_pure_noise_is_called_sloped_in_one_of_ten(self, count):
        sloped = sum(not is_flat(gaussian(count, 1.0, seed)) for seed in range(2000))
        assert 0.08 < sloped / 2000 < 0.125


class TestHasPlateaued:
    def test_shrinking_as_it_should_is_no_plateau(self):
        for count in (8, 20, 100, 1000):
            assert not has_plateaued([1 / math.sqrt(n) for n in range(5, 5 + count)])

    def test_no_change_is_a_plateau(self):
        assert has_plateaued([0.5, 0.3, *[0.2, 0.201] * 4])

    def test_needs_eight_finite_estimates(self):
        assert not has_plateaued([0.2] * 7)
        assert has_plateaued([0.2] * 8)
        assert not has_plateaued([*[0.2] * 7, math.inf])


class TestRequiredRequests:
    @pytest.mark.parametrize(
        ("share", "confidence", "expected"),
        [
            (0.90, 0.99, (44, 64, 81, 127, 197, 681)),
            (0.95, 0.99, (90, 130, 165, 259, 398, 1372)),
            (0.99, 0.99, (459, 662, 838, 1307, 2010, 6898)),
            (0.90, 0.95, (29, 46, 61, 103, 167, 627)),
            (0.95, 0.95, (59, 93, 124, 208, 336, 1260)),
            (0.99, 0.95, (299, 473, 628, 1049, 1693, 6323)),
        ],
    )
    def test_is_the_mlperf_table(self, share, confidence, expected):
        """LoadGen 6.0.17 itself asks for 459 requests at p99 and 99 %."""
        assert tuple(required_requests(hits, share, confidence) for hits in (0, 1, 2, 5, 10, 50)) == expected

    @given(st.integers(0, 60), st.floats(0.5, 0.995), st.floats(0.5, 0.999))
    def test_is_the_first_that_suffices(self, hits, share, confidence):
        count = required_requests(hits, share, confidence)

        def chance(total):
            return math.fsum(math.comb(total, k) * (1 - share) ** k * share ** (total - k) for k in range(hits + 1))

        assert chance(count) <= (1 - confidence) * (1 + 1e-9)
        assert count == hits + 1 or chance(count - 1) > (1 - confidence) * (1 - 1e-9)

    @pytest.mark.parametrize("hits", [300, 1259, 20_000])
    def test_many_violations_do_not_underflow(self, hits):
        """Far from the mean single terms underflow to 0; the normal approximation tells where the answer lies."""
        count = required_requests(hits, 0.95, 0.95)
        mean, sd = 0.05 * count, math.sqrt(count * 0.05 * 0.95)
        assert (hits + 0.5 - mean) / sd == pytest.approx(-1.645, abs=0.03)

    @pytest.mark.parametrize("wrong", [(-1, 0.9, 0.9), (0, 1.0, 0.9), (0, 0.9, 0.0)])
    def test_refuses_nonsense(self, wrong):
        with pytest.raises(ValueError, match="violations"):
            required_requests(*wrong)


class TestEstimateLogRatio:
    def test_too_few_pairs_say_nothing(self):
        nothing = estimate_log_ratio([], [])
        assert (nothing.mean, nothing.low, nothing.high, nothing.count) == (0.0, -math.inf, math.inf, 0)
        assert estimate_log_ratio([0.5], [0]).mean == 0.5
        assert estimate_log_ratio([0.1, 0.2, 0.1, 0.2], [0, 1, 2, 3]).high == math.inf

    def test_equal_pairs_leave_no_doubt(self):
        for value in (0.05, 0.1 + 0.2, 0.0):
            sure = estimate_log_ratio([value] * 6, [0, 0, 1, 1, 2, 2])
            assert (sure.low, sure.high) == (pytest.approx(value), pytest.approx(value))

    def test_bound_is_where_the_e_process_rejects(self):
        """Wang and Ramdas 2024; Pérez-Ortiz et al. 2024: the e-value at the bound is 1 / alpha."""
        for count in (5, 7.5, 12, 30, 1000):
            t = _t_bound(count, 0.05)
            inner = (1 + t**2 / (count - 1)) / (1 + t**2 / ((1 + count) * (count - 1)))
            assert (1 + count) ** -0.5 * inner ** (count / 2) == pytest.approx(20)

    def test_launch_effects_widen_it(self):
        """The same values, once as six launches that differ and once as pairs without a common launch."""
        values = [base + wiggle for base in (0.00, 0.04, 0.01, 0.05, 0.02, 0.03) for wiggle in (-0.001, 0.001)]
        launched = estimate_log_ratio(values, [place // 2 for place in range(12)])
        alone = estimate_log_ratio(values, list(range(12)))
        assert launched.high - launched.low > 1.8 * (alone.high - alone.low)

    def test_one_spike_does_not_blind_it(self):
        calm = [0.05 + noise for noise in gaussian(12, 0.01, seed=3)]
        launches = [place // 2 for place in range(12)]
        spiked = estimate_log_ratio([*calm[:-1], 0.9], launches)
        assert spiked.low > math.log(1.01)
        assert spiked.mean == pytest.approx(0.05, abs=0.01)

    def test_ties_do_not_hide_the_rest(self):
        """With most values equal there is no scale to call the others spikes."""
        assert estimate_log_ratio([0.0] * 7 + [0.3] * 5, list(range(12))).pair_sd > 0.1

    def test_an_interval_that_says_nothing_is_infinite(self):
        """Just where the e-process begins to reject, the bound is huge; e to that power would overflow."""
        assert 700 < _t_bound(5, 0.02778) < math.inf
        assert estimate_log_ratio([0.0, 0.9, -0.5, 0.7, 3.0], list(range(5)), 0.02778).high == math.inf

    def test_refuses_nonsense(self):
        for wrong in (([math.inf], [0]), ([0.1], []), ([math.nan, 0.1], [0, 1])):
            with pytest.raises(ValueError, match="finite log ratios"):
                estimate_log_ratio(*wrong)

    @given(st.lists(st.integers(-64, 64), min_size=5, max_size=40), st.randoms(use_true_random=False))
    def test_moves_and_mirrors_with_the_data(self, sixtyfourths, rng):
        values, shift = [value / 64 for value in sixtyfourths], 0.5  # exact in binary: ties stay ties
        launches = sorted(rng.randrange(6) for _ in values)
        one, other = estimate_log_ratio(values, launches), estimate_log_ratio([shift - v for v in values], launches)
        assert other.mean == pytest.approx(shift - one.mean, abs=1e-9)
        assert one.low <= one.mean <= one.high
        if math.isfinite(one.high) and one.pair_sd > 1e-6:
            assert other.low == pytest.approx(shift - one.high, abs=1e-6)

    @pytest.mark.parametrize("per_launch", [1, 2, 4])
    @pytest.mark.parametrize("launch_sd", [0.0, 0.01, 0.03])
    def test_covers_the_truth_at_every_look_at_once(self, per_launch, launch_sd):
        """Anytime validity, the strictest way: no look from pair 6 to 30 may miss; 95 %, less luck."""
        missed = 0
        for seed in range(200):
            rng = random.Random(seed)
            effects = [rng.gauss(0, launch_sd) for _ in range(30)]
            launches = [place // per_launch for place in range(30)]
            values = [0.05 + effects[launch] + rng.gauss(0, 0.01) for launch in launches]
            looks = range(max(6, 2 * per_launch + 1), 31, 2)
            estimates = [estimate_log_ratio(values[:look], launches[:look]) for look in looks]
            missed += any(not seen.low <= 0.05 <= seen.high for seen in estimates)
        assert missed / 200 <= 0.08


def test_pairs_for_half_width_is_the_first_that_suffices():
    wanted = pairs_for_half_width(0.01, 0.02)
    assert wanted is not None

    def half(count):
        return _t_bound(count, 0.05) * 0.02 / math.sqrt(count)

    assert half(wanted) <= 0.01 < half(wanted - 1)
    assert pairs_for_half_width(0.0, 0.02) is None
    assert pairs_for_half_width(1e-6, 0.02) is None
    assert pairs_for_half_width(0.01, math.inf) is None


def test_import_needs_neither_numpy_nor_scipy():
    """Numpy costs a tenth of a second, and the command line imports this."""
    code = "import sys, autotuner.statistics; sys.exit(bool({'numpy', 'scipy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
