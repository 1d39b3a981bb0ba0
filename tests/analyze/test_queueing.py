from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.analyze.queueing import (
    InputQueue,
    enough_workers,
    expected_wait_s,
    explain_queue,
    fluid_wait_s,
    most_useful_workers,
    wait_ratio,
)  # fmt: skip

QUEUE = InputQueue(workers=2, prepare_s=0.100, step_s=0.025)
QUEUES = st.builds(
    InputQueue, st.integers(0, 6), st.floats(0.001, 0.1), st.floats(0.001, 0.1), st.integers(1, 4),
    st.floats(0, 3), st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 16), st.floats(0, 0.01),
)  # fmt: skip


def test_rates_and_utilisation():
    assert (QUEUE.arrival_rate_per_s, QUEUE.service_rate_per_s) == (pytest.approx(20), pytest.approx(40))
    assert QUEUE.utilisation_ratio == pytest.approx(0.5)
    assert not QUEUE.blocks
    assert replace(QUEUE, workers=5).blocks
    assert replace(QUEUE, workers=8, cores=2).arrival_rate_per_s == pytest.approx(20)  # computing needs cores
    assert replace(QUEUE, workers=8, cores=2, cpu_ratio=0.25).arrival_rate_per_s == pytest.approx(80)
    assert replace(QUEUE, workers=8, cores=2, cpu_ratio=0).arrival_rate_per_s == pytest.approx(
        80
    )  # sleeping needs none


@pytest.mark.parametrize(
    ("workers", "wait_s"), [(0, 0.100), (1, 0.075), (2, 0.025), (3, 0.1 / 3 - 0.025), (4, 0), (9, 0)]
)
def test_without_variance_the_bound_is_the_answer(workers, wait_s):
    queue = replace(QUEUE, workers=workers)
    assert expected_wait_s(queue) == pytest.approx(wait_s, abs=1e-9)
    almost = replace(queue, step_cv2=2e-6)  # the recursion, not the shortcut
    assert expected_wait_s(almost) == pytest.approx(wait_s, abs=2e-4)


def test_the_process_that_steps_pays_for_taking_over():
    queue = replace(QUEUE, workers=8, handover_s=0.005)
    assert expected_wait_s(queue) == pytest.approx(0.005)
    assert expected_wait_s(replace(queue, prepare_cv2=2e-6)) == pytest.approx(0.005, abs=1e-5)
    assert enough_workers(queue) is None


@settings(max_examples=40, deadline=None, derandomize=True)
@given(QUEUES)
def test_waiting_is_never_less_than_the_bound_nor_more_than_a_batch_alone(queue):
    wait_s = expected_wait_s(queue)
    assert wait_s >= fluid_wait_s(queue) * 0.97 - 1e-9
    slowest_s = max(1, min(queue.workers, most_useful_workers(queue))) / queue.arrival_rate_per_s
    assert wait_s <= (slowest_s + queue.handover_s) * 1.03
    assert 0 <= wait_ratio(queue) < 1


@settings(max_examples=20, deadline=None, derandomize=True)
@given(QUEUES.filter(lambda queue: queue.workers > 0))
def test_more_workers_more_prefetching_and_steadier_batches_never_hurt(queue):
    endless = replace(queue, cpu_ratio=0.0)
    wait_s = expected_wait_s(endless) + 1e-9
    assert expected_wait_s(replace(endless, workers=queue.workers + 1)) <= wait_s
    assert expected_wait_s(replace(endless, prefetch_factor=queue.prefetch_factor + 1)) <= wait_s
    assert expected_wait_s(replace(endless, prepare_cv2=0, step_cv2=0)) <= wait_s


def test_a_worker_takes_the_core_that_another_leaves():
    """Two on one core are one with twice the buffer, not two at half the pace."""
    one = replace(QUEUE, workers=1, prefetch_factor=4, prepare_cv2=1.0)
    two = replace(QUEUE, workers=2, prefetch_factor=2, prepare_cv2=1.0, cores=1)
    assert expected_wait_s(two) == pytest.approx(expected_wait_s(one))


def test_as_many_workers_as_one_likes():
    queue = replace(QUEUE, workers=400, prepare_s=8.0, step_s=0.010, prepare_cv2=0.1)
    assert 1 <= expected_wait_s(queue) / fluid_wait_s(queue) < 1.6


def test_slow_batches_make_a_queue_wait_that_could_keep_up():
    ready = replace(QUEUE, workers=5)
    assert wait_ratio(ready) == 0
    assert wait_ratio(replace(ready, prepare_cv2=1.0)) > 0.1
    assert wait_ratio(replace(ready, prepare_cv2=1.0, prefetch_factor=16)) < 0.02


def test_a_single_server_with_an_endless_buffer_waits_as_a_step_of_m_m_1_idles():
    """One worker, exponential both ways, much prefetching: the step is idle 1 - lambda / mu of the time."""
    queue = InputQueue(1, 0.050, 0.025, prefetch_factor=200, prepare_cv2=1, step_cv2=1)
    assert wait_ratio(queue) == pytest.approx(0.5, abs=0.01)


def test_a_buffer_of_one_starves_as_two_machines_in_a_line():
    """Equal exponential machines and no room but the one in the hand: 2/3 of a machine's rate (Hunt 1956)."""
    queue = InputQueue(1, 0.02, 0.02, prefetch_factor=1, prepare_cv2=1, step_cv2=1)
    assert 1 - wait_ratio(queue) == pytest.approx(2 / 3, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "enough"),
    [({}, 4), ({"prepare_s": 0.001}, 0), ({"cores": 2}, None), ({"cores": 4}, 4), ({"prepare_cv2": 1.0}, 10)],
    ids=str,
)
def test_enough_workers(changes, enough):
    queue = replace(QUEUE, **changes)
    assert enough_workers(queue) == enough
    if enough:
        assert wait_ratio(replace(queue, workers=enough)) <= 0.05 < wait_ratio(replace(queue, workers=enough - 1))


@pytest.mark.parametrize("cv2", [5e-324, 1e-7, 99.0, 1e300])
def test_any_variance_has_an_answer(cv2):
    assert 0 <= wait_ratio(replace(QUEUE, workers=5, prepare_cv2=cv2)) < 1


def test_no_more_workers_than_the_cores_feed():
    assert most_useful_workers(replace(QUEUE, cores=2)) == 2
    assert most_useful_workers(replace(QUEUE, cores=2, cpu_ratio=0.25)) == 8
    assert most_useful_workers(QUEUE) == 128


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {},
            ("20 batches arrive a second for 40 steps (utilisation 0.50)", "runs empty", "50%", "4 workers are enough"),
        ),
        ({"workers": 8}, ("fills and stops the workers", "waits 0%")),
        ({"workers": 0}, ("Without workers", "80%")),
        ({"workers": 4, "cores": 2}, ("no number of workers is enough", "2 cores leave 50%")),
        ({"workers": 5, "prepare_cv2": 1.0}, ("0% if no batch were slower than the mean", "10 workers are enough")),
        ({"workers": 8, "handover_s": 0.01}, ("taking batches over leaves 29%",)),
        ({"prepare_s": 0.03}, ("2 workers are enough",)),
    ],
    ids=str,
)
def test_the_sentence_says_why(changes, parts):
    sentence = explain_queue(replace(QUEUE, **changes))
    assert all(part in sentence for part in parts), sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [{"workers": -1}, {"prepare_s": 0}, {"step_s": 0}, {"prefetch_factor": 0}, {"cpu_ratio": 1.1}, {"cores": 0}],
)
def test_bounds_are_checked(changes):
    with pytest.raises(ValueError, match="not an input queue"):
        replace(QUEUE, **changes)
