"""What a GPU can do at most: everything is measured, and stands in the order that hardware cannot but have."""

import pytest

from autotuner.doctor import measure_ceilings
from autotuner.doctor.operations import operations
from autotuner.monitor import gpu

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def notes() -> list[str]:
    return []


@pytest.fixture(scope="module")
def found(notes: list[str]):
    return measure_ceilings("cuda", quick=False, note=notes.append)


def test_everything_is_measured_or_said_why_not(found, notes: list[str], device: gpu.Gpu) -> None:
    missing = {each.ceiling for each in operations("cuda", quick=False)} - found.values.keys()
    assert missing <= {"matmul_float8_e4m3fn_flops_per_s", "disk_read_bytes_per_s"}, notes
    assert found.environment["gpu"] == device.name
    assert found.value("cache_bytes") > 2**20


def test_ceilings_stand_in_their_order(found) -> None:
    value = found.value
    assert value("matmul_bfloat16_flops_per_s") > 2 * value("matmul_float32_flops_per_s")
    assert value("matmul_tf32_flops_per_s") > 2 * value("matmul_float32_flops_per_s")
    assert value("upload_pinned_bytes_per_s") > value("upload_pageable_bytes_per_s")
    assert value("copy_bytes_per_s") > 4 * value("upload_pinned_bytes_per_s")
    assert value("graph_launch_s") < value("launch_s")
    if float8 := value("matmul_float8_e4m3fn_flops_per_s"):
        assert float8 > 1.3 * value("matmul_bfloat16_flops_per_s")


def test_the_quick_subset_agrees_with_the_whole(found) -> None:
    quick = measure_ceilings("cuda", quick=True)
    for name in ("matmul_bfloat16_flops_per_s", "copy_bytes_per_s", "triad_bytes_per_s"):
        assert quick.value(name) == pytest.approx(found.value(name), rel=0.15)
