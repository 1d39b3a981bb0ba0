import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.analyze.memory_model import (
    activation_bytes,
    fit_memory,
    fsdp_peak_bytes,
    kv_cache_bytes,
    largest_shard_elements,
    zero_bytes,
)  # fmt: skip

GIB = 2**30


@pytest.mark.parametrize(("stage", "total"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_gives_the_numbers_of_the_paper(stage, total):
    """Rajbhandari et al. 2020, figure 1: 7.5 billion parameters on 64 devices."""
    assert zero_bytes(7.5e9, 64, stage).total_bytes == pytest.approx(total * 1e9, rel=0.015)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 10**11), st.integers(1, 4096))
def test_each_stage_needs_no_more_than_the_one_before(elements, devices):
    totals = [zero_bytes(elements, devices, stage).total_bytes for stage in (0, 1, 2, 3)]
    assert totals == sorted(totals, reverse=True)
    assert totals[3] == pytest.approx(totals[0] / devices)
    if devices == 1:
        assert len(set(totals)) == 1


def test_each_stage_shards_one_kind_more():
    states = [zero_bytes(100, 4, stage, parameter_bytes=4, gradient_bytes=4, optimizer_bytes=8) for stage in range(4)]
    kinds = [(s.parameters_bytes, s.gradients_bytes, s.optimizer_bytes) for s in states]
    assert kinds == [(400, 400, 800), (400, 400, 200), (400, 100, 200), (100, 100, 200)]


def test_nothing_to_share_among_no_devices():
    with pytest.raises(ValueError, match="0 devices"):
        zero_bytes(100, 0, 3)


def test_rows_that_do_not_divide_make_a_fuller_device():
    assert largest_shard_elements([(4, 3), (4,), ()], 2) == 6 + 2 + 1
    assert largest_shard_elements([(5, 3)], 2) == 9
    assert largest_shard_elements([(1, 1000)], 8) == 1000


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"layers": 32, "kv_heads": 32, "head_dim": 128, "tokens": 4096}, 2 * GIB),  # Llama 2 7B
        ({"layers": 32, "kv_heads": 8, "head_dim": 128, "tokens": 8192}, GIB),  # Llama 3 8B
        ({"layers": 80, "kv_heads": 8, "head_dim": 128, "tokens": 1, "sequences": 1}, 320 * 1024),  # Llama 3 70B
        ({"layers": 96, "kv_heads": 96, "head_dim": 128, "tokens": 1}, 4.5 * 2**20),  # GPT-3
    ],
    ids=str,
)
def test_known_caches(shape, expected):
    assert kv_cache_bytes(**shape) == expected
    assert kv_cache_bytes(**shape, element_bytes=1) == expected / 2


# Korthikanti et al. 2022, table 3: 22B, 175B, 530B, 1T with sequence length 2048 and tensor parallelism 8
MODELS = {
    "22B": (48, 6144, 64, 4),
    "175B": (96, 12288, 96, 1),
    "530B": (105, 20480, 128, 1),
    "1T": (128, 25600, 160, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_activations_by_the_papers_own_arithmetic(name):
    layers, hidden, heads, batch = MODELS[name]
    plane, score = 2048 * batch * hidden, 5 * heads * 2048 / hidden
    shape = (layers, hidden, heads, 2048, batch)
    assert activation_bytes(*shape) == pytest.approx(layers * plane * (34 + score))
    assert activation_bytes(*shape, tensor_parallel=8) == pytest.approx(layers * plane * (10 + 24 / 8 + score / 8))
    parallel = {"tensor_parallel": 8, "sequence_parallel": True}
    assert activation_bytes(*shape, **parallel) == pytest.approx(layers * plane * (34 + score) / 8)
    assert activation_bytes(*shape, recompute="attention", **parallel) == pytest.approx(layers * plane * 34 / 8)
    assert activation_bytes(*shape, recompute="everything") == pytest.approx(layers * plane * 2)


def test_selective_recomputation_saves_what_the_paper_says():
    """Section 5: it saves 70 % for GPT-3 and 65 % for MT-NLG, whose 5 a s / h are 80 and 64."""
    for hidden, heads, saved in ((12288, 96, 80 / 114), (20480, 128, 64 / 98)):
        kept = activation_bytes(1, hidden, heads, 2048, recompute="attention") / activation_bytes(
            1, hidden, heads, 2048
        )
        assert 1 - kept == pytest.approx(saved)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 64), st.integers(1, 32), st.integers(1, 4096), st.integers(1, 64), st.sampled_from([1, 2, 4, 8]))
def test_less_is_kept_the_more_is_computed_again_or_shared(layers, heads, tokens, batch, devices):
    shape = (layers, 64 * heads, heads, tokens, batch)
    kept = [activation_bytes(*shape, recompute=what) for what in ("nothing", "attention", "everything")]
    assert kept == sorted(kept, reverse=True)
    assert activation_bytes(*shape, tensor_parallel=devices) <= kept[0]
    assert activation_bytes(*shape[:-1], 2 * batch) == pytest.approx(2 * kept[0])


def test_a_transformer_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        activation_bytes(1, 64, 0, 16)


def test_what_batch_fits():
    line = fit_memory({b: 2 * GIB + b * GIB // 4 for b in (1, 2, 4, 8)})
    assert line.bytes_at(16).value == pytest.approx(6 * GIB)
    assert line.largest_batch(6 * GIB) in (15, 16)  # rounding of the last byte
    assert line.largest_batch(6.1 * GIB) == 16
    assert line.largest_batch(2 * GIB) == 0


def test_uncertainty_costs_room():
    noise = {1: 1.00, 2: 1.03, 4: 0.98, 8: 1.01}
    line = fit_memory({b: (2 + b / 4) * GIB * factor for b, factor in noise.items()})
    fits = line.largest_batch(6 * GIB)
    assert 0 < fits < 15
    assert line.bytes_at(fits).high <= 6 * GIB < line.bytes_at(fits + 1).high


def test_memory_that_falls_with_the_batch_is_no_line():
    assert fit_memory({1: 4.0, 2: 3.0, 4: 1.0}) is None
    assert fit_memory({1: 4.0, 2: 5.0}) is None


def test_memory_that_does_not_grow_sets_no_limit():
    line = fit_memory({1: GIB, 2: GIB, 4: GIB})
    assert line.largest_batch(2 * GIB) > 10**9
    assert math.isfinite(line.bytes_at(1).high)


def test_fsdp_needs_most_at_the_last_layers_when_nothing_is_freed_and_else_at_the_first():
    """By hand: four layers of 10 elements, 6 around them, two devices, a byte an element, no optimizer."""
    options = {"element_bytes": 1, "optimizer_bytes": 0}
    kept, rest = 46 / 2, 2 * 6
    assert fsdp_peak_bytes(10, 4, 6, 2, freed=False, **options) == kept + rest + 40 + 20 + 5
    assert fsdp_peak_bytes(10, 4, 6, 2, freed=True, **options) == kept + rest + 20 + 20 + 15


@pytest.mark.parametrize("devices", [2, 8])
def test_fsdp_freed_needs_less_and_both_more_than_their_stage(devices):
    kept, freed = (fsdp_peak_bytes(1e6, 20, 1e6, devices, freed=freed) for freed in (False, True))
    sizes = {"parameter_bytes": 4, "gradient_bytes": 4, "optimizer_bytes": 8}
    assert zero_bytes(21e6, devices, 3, **sizes).total_bytes < freed < kept
    assert kept < zero_bytes(21e6, devices, 0, **sizes).total_bytes
