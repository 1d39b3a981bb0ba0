"""The noise scale against simulated gradients whose noise is known."""

import math

import numpy as np
import pytest

from autotuner.analyze.gradient_noise import noise_scale


def norms(seed, steps, micro, per_step, truth, width=80):
    """Squared norms of micro and global batches: a gradient of length 1 under noise of total variance `truth`."""
    rng = np.random.default_rng(seed)
    gradient = rng.normal(size=width)
    spread = rng.uniform(0.2, 2, size=width)  # not the same in all directions
    spread *= math.sqrt(truth) / np.linalg.norm(spread)
    batches = gradient / np.linalg.norm(gradient) + rng.normal(size=(steps, per_step, width)) * spread / micro**0.5
    return (batches**2).sum(axis=-1).ravel(), (batches.mean(axis=1) ** 2).sum(axis=-1)


@pytest.mark.parametrize(
    ("steps", "micro", "per_step", "truth"),
    [(20, 4, 4, 50), (50, 4, 4, 50), (100, 8, 2, 20), (100, 1, 8, 20), (20, 4, 8, 100), (400, 8, 4, 400)],
)
def test_the_truth_lies_within_the_interval(steps, micro, per_step, truth):
    found = [noise_scale(micro, micro * per_step, *norms(s, steps, micro, per_step, truth)) for s in range(60)]
    told = [each for each in found if each is not None]
    assert len(told) >= 55
    assert sum(each.low <= truth <= each.high for each in told) >= 0.9 * len(told)
    assert np.median([each.value for each in told]) == pytest.approx(truth, rel=0.1)
    assert all(each.low <= each.value <= each.high for each in told)


def test_of_a_gradient_that_the_noise_hides_only_the_lower_end_is_told():
    found = [noise_scale(4, 16, *norms(seed, 50, 4, 4, 5000)) for seed in range(60)]
    assert [each.value for each in found] == [math.inf] * 60
    assert sum(each.low <= 5000 for each in found) >= 54, "what it is at least is true"
    assert np.median([each.low for each in found]) > 100


def test_more_steps_narrow_the_interval():
    few, many = (noise_scale(4, 16, *norms(1, steps, 4, 4, 50)) for steps in (30, 300))
    assert many.high - many.low < (few.high - few.low) / 2


def test_gradients_without_noise_have_none():
    found = noise_scale(2, 8, [1.0] * 20, [1.0] * 20)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_the_same_norms_give_the_same_answer():
    seen = norms(3, 40, 4, 4, 50)
    assert noise_scale(4, 16, *seen) == noise_scale(4, 16, *seen)


@pytest.mark.parametrize("big", [[1.0] * 11, [*[1.0] * 19, math.nan], [*[1.0] * 19, math.inf]])
def test_too_few_steps_or_norms_that_are_no_numbers_tell_nothing(big):
    assert noise_scale(2, 8, [1.1] * len(big), big) is None


@pytest.mark.parametrize(("small", "big", "count"), [(8, 8, 20), (8, 4, 20), (0, 8, 20), (2, 8, 30), (2, 8, 10)])
def test_arguments_that_make_no_sense_are_refused(small, big, count):
    with pytest.raises(ValueError, match="norms for 20 steps"):
        noise_scale(small, big, [1.0] * count, [1.0] * 20)
