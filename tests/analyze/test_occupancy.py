import importlib.util
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.analyze.occupancy import MULTIPROCESSORS, Limit, explain_occupancy, occupancy

CAPABILITIES = st.sampled_from(sorted(MULTIPROCESSORS))
KIB = 1024


def reference():
    """The program of the benchmark that asks NVIDIA's header."""
    path = Path(__file__).parents[2] / "benchmarks" / "model_checks" / "occupancy.py"
    spec = importlib.util.spec_from_file_location("occupancy_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("capability", "launch", "blocks", "ratio", "binding"),
    [
        # CUDA C++ Best Practices Guide, "Calculating Occupancy": 37 registers on 7.0
        ((7, 0), (128, 37, 0), 12, 0.75, {Limit.REGISTERS}),
        ((7, 0), (320, 37, 0), 4, 0.625, {Limit.REGISTERS}),
        # "to have 100 % occupancy, each thread can use at most 32 registers"
        ((7, 0), (256, 32, 0), 8, 1.0, {Limit.WARPS, Limit.REGISTERS}),
        ((7, 0), (256, 33, 0), 6, 0.75, {Limit.REGISTERS}),
        # CUDA tuning guides: blocks, warps and shared memory of an SM
        ((8, 0), (32, 16, 0), 32, 0.5, {Limit.BLOCKS}),
        ((8, 6), (32, 16, 0), 16, 1 / 3, {Limit.BLOCKS}),
        ((8, 9), (32, 16, 0), 24, 0.5, {Limit.BLOCKS}),
        ((9, 0), (1024, 32, 0), 2, 1.0, {Limit.WARPS, Limit.REGISTERS}),
        ((8, 6), (1024, 32, 0), 1, 2 / 3, {Limit.WARPS}),
        ((7, 5), (1024, 64, 0), 1, 1.0, {Limit.WARPS, Limit.REGISTERS}),
        ((8, 0), (128, 32, 163 * KIB), 1, 1 / 16, {Limit.SHARED_MEMORY}),
        ((9, 0), (128, 32, 227 * KIB), 1, 1 / 16, {Limit.SHARED_MEMORY}),
        ((9, 0), (384, 168, 200 * KIB), 1, 12 / 64, {Limit.REGISTERS, Limit.SHARED_MEMORY}),  # as FlashAttention-3
        ((12, 0), (128, 32, 50 * KIB), 1, 4 / 48, {Limit.SHARED_MEMORY}),  # 1 KiB goes to the system: not two
        ((12, 0), (128, 32, 49 * KIB), 2, 8 / 48, {Limit.SHARED_MEMORY}),
        ((7, 0), (128, 32, 48 * KIB), 2, 8 / 64, {Limit.SHARED_MEMORY}),
    ],
)
def test_published_values(capability, launch, blocks, ratio, binding):
    found = occupancy(capability, *launch)
    assert (found.blocks, found.ratio) == (blocks, pytest.approx(ratio))
    assert set(found.binding) == binding


@pytest.mark.parametrize(
    ("launch", "limit"),
    [((1025, 32, 0), Limit.WARPS), ((1024, 72, 0), Limit.REGISTERS), ((32, 32, 227 * KIB + 1), Limit.SHARED_MEMORY)],
)
def test_what_cannot_be_launched_says_why(launch, limit):
    found = occupancy((9, 0), *launch)
    assert (found.blocks, found.ratio, found.binding) == (0, 0, (limit,))
    assert "cannot be launched" in explain_occupancy(found)
    assert limit in explain_occupancy(found)


def test_a_warp_lives_in_one_partition():
    """21 warps of 96 registers would fit into 65,536 registers, but a quarter of these holds only 5 such warps."""
    assert 21 * 32 * 96 < 65536
    assert occupancy((9, 0), 21 * 32, 96, 0).blocks == 0
    assert occupancy((9, 0), 20 * 32, 96, 0).blocks == 1


@settings(max_examples=300, deadline=None, derandomize=True)
@given(CAPABILITIES, st.integers(1, 1024), st.integers(0, 255), st.integers(0, 100_000))
def test_asking_for_more_never_holds_more(capability, threads, registers, shared):
    found = occupancy(capability, threads, registers, shared)
    assert 0 <= found.ratio <= 1
    assert found.binding
    assert found.warps == found.blocks * -(-threads // 32)
    assert occupancy(capability, threads, min(255, registers + 1), shared).blocks <= found.blocks
    assert occupancy(capability, threads, registers, shared + 1).blocks <= found.blocks
    assert occupancy(capability, min(1024, threads + 1), registers, shared).blocks <= found.blocks


def test_the_sentence_names_the_limit():
    half = "An SM holds 4 blocks, 32 warps, 50% of what it could; more is kept out by registers."
    assert explain_occupancy(occupancy((9, 0), 256, 64, 0)) == half
    assert explain_occupancy(occupancy((9, 0), 256, 32, 0)) == "An SM holds 8 blocks, 64 warps, 100% of what it could."
    assert "by warps" in explain_occupancy(occupancy((8, 6), 1024, 16, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(((6, 0), 32, 32, 0), "6.0 is none of 7.0"), (((9, 0), 0, 32, 0), "0 threads"), (((9, 0), 32, 256, 0), "256 reg"),
     (((9, 0), 32, 32, -1), "-1 bytes")],
)  # fmt: skip
def test_what_no_kernel_has_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        occupancy(*arguments)


def test_nvidias_header_says_the_same():
    benchmark = reference()
    include = benchmark.include_folder()
    if include is None or shutil.which("g++") is None:
        pytest.skip("no cuda_occupancy.h, or no compiler")
    assert benchmark.differences(benchmark.random_launches(200, seed=1), include) == []
