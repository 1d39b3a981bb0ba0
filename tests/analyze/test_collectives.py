import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.analyze.collectives import (
    Link,
    algorithm_bandwidth_bytes_per_s,
    bucket_ready_s,
    bus_bandwidth_bytes_per_s,
    collective_s,
    fit_link,
    latency_steps,
    overlap,
    traffic_factor,
)  # fmt: skip
from autotuner.types import Estimate


def link(alpha_s=1e-5, beta_s_per_byte=1e-10):
    return Link(*(Estimate(value, value, value) for value in (alpha_s, beta_s_per_byte)))


@pytest.mark.parametrize(
    ("operation", "processes", "factor"),
    [("all_reduce", 2, 1), ("all_reduce", 8, 1.75), ("all_gather", 8, 0.875), ("reduce_scatter", 4, 0.75),
     ("broadcast", 8, 1)],
)  # fmt: skip
def test_factors_are_those_of_nccl_tests(operation, processes, factor):
    assert traffic_factor(processes, operation) == factor
    assert bus_bandwidth_bytes_per_s(1e9, 0.01, processes, operation) == pytest.approx(1e11 * factor)
    assert algorithm_bandwidth_bytes_per_s(1e9, 0.01) == pytest.approx(1e11)


@pytest.mark.parametrize(("processes", "ring", "tree"), [(2, 2, 2), (4, 6, 4), (8, 14, 6), (5, 8, 6), (1024, 2046, 20)])
def test_steps_of_ring_and_tree(processes, ring, tree):
    assert latency_steps(processes) == ring
    assert latency_steps(processes, algorithm="tree") == tree
    assert 2 * latency_steps(processes, "all_gather") == ring


def test_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    both = sum(collective_s(1e6, 8, link(), operation) for operation in ("reduce_scatter", "all_gather"))
    assert collective_s(1e6, 8, link()) == pytest.approx(both)
    assert collective_s(1e6, 8, link()) == pytest.approx(14 * 1e-5 + 1.75 * 1e6 * 1e-10)
    assert collective_s(1e6, 1, link()) == 0


def test_one_process_has_no_bus():
    with pytest.raises(ValueError, match="nothing to exchange"):
        traffic_factor(1)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(2, 512), st.floats(0, 1e9), st.floats(0, 1e9))
def test_more_bytes_and_more_processes_never_cost_less(processes, some, more):
    low, high = sorted((some, more))
    assert collective_s(low, processes, link()) <= collective_s(high, processes, link())
    assert collective_s(low, processes, link()) <= collective_s(low, processes + 1, link())
    assert collective_s(low, processes, link(), algorithm="tree") <= collective_s(low, processes, link())


@pytest.mark.parametrize("algorithm", ["ring", "tree"])
@pytest.mark.parametrize("processes", [2, 8])
def test_a_fit_finds_alpha_and_beta_through_noise(algorithm, processes):
    draw = random.Random(5)
    sizes = [2**power for power in range(3, 29)]
    times_s = [
        (size, collective_s(size, processes, link(), algorithm=algorithm) * (1 + draw.gauss(0, 0.03))) for size in sizes
    ]
    found = fit_link(times_s, processes, algorithm=algorithm)
    for part, truth in ((found.alpha_s, 1e-5), (found.beta_s_per_byte, 1e-10)):
        assert part.value == pytest.approx(truth, rel=0.05)
        assert part.low <= truth <= part.high
    assert found.misfit_ratio < 0.12


def test_times_that_follow_no_such_line_are_not_fitted():
    assert fit_link([(8, 1e-5), (16, 1e-5)], 2) is None
    assert fit_link([(8, 4e-5), (1e6, 3e-5), (2e6, 1e-5), (3e6, 1e-6)], 2) is None


def test_neither_part_is_negative():
    found = fit_link([(1e6, 0.99e-4), (2e6, 2.02e-4), (4e6, 4.0e-4), (8e6, 8.0e-4), (16e6, 16.1e-4)], 2)
    assert found.alpha_s.value >= 0
    assert found.alpha_s.low == 0


def test_what_hides_and_what_shows():
    ready_s = bucket_ready_s(0.100, [2e6, 2e6, 1e6])
    assert ready_s == pytest.approx([0.040, 0.080, 0.100])
    assert overlap(0.100, ready_s, [0.01, 0.01, 0.01]).exposed_s == pytest.approx(0.01)  # the last is always seen
    assert overlap(0.100, ready_s, [0.05, 0.05, 0.05]).exposed_s == pytest.approx(0.04 + 0.15 - 0.1)
    alone = overlap(0.0, [0.0] * 3, [0.02, 0.03, 0.01])
    assert (alone.exposed_s, alone.hidden_ratio) == (pytest.approx(0.06), 0)
    assert overlap(0.1, [], []).hidden_ratio == 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(0, 1), st.lists(st.tuples(st.floats(1, 1e8), st.floats(0, 1)), min_size=1, max_size=12))
def test_exposed_lies_between_the_last_bucket_and_everything(compute_s, buckets):
    sizes, times_s = zip(*buckets, strict=True)
    found = overlap(compute_s, bucket_ready_s(compute_s, sizes), times_s)
    assert times_s[-1] - 1e-9 <= found.exposed_s <= found.communication_s + 1e-9
    assert found.exposed_s >= found.communication_s - compute_s - 1e-9
    assert -1e-9 <= found.hidden_ratio <= 1
