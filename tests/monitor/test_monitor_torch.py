import platform
import subprocess
import sys

import pytest

from autotuner.monitor import torch as monitor_torch
from autotuner.monitor.gpu import gpus


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which this process has not imported."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("Out of Memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("std::bad_alloc"), False),
        (KeyError("CUDA out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error, expected):
    assert monitor_torch.is_out_of_memory(error) is expected


@pytest.mark.slow
def test_real_errors_of_torch_on_a_cpu():
    program = """
import torch
from autotuner.monitor import torch as monitor_torch
def error_of(call):
    try:
        call()
    except Exception as error:
        return monitor_torch.is_out_of_memory(error)
assert error_of(lambda: torch.empty(1 << 50, dtype=torch.uint8)) is True
assert error_of(lambda: torch.ones(2, 3) @ torch.ones(2, 3)) is False
assert monitor_torch.versions()["torch"] == torch.__version__
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_cpu_has_no_allocator_to_observe_and_imports_no_torch():
    program = """
import sys
from autotuner.monitor import torch as monitor_torch
monitor_torch.synchronise("cpu")
monitor_torch.reset_peak_memory("cpu")
monitor_torch.release_memory("cpu")
assert monitor_torch.peak_memory_bytes("cpu") is None
assert monitor_torch.allocator_metrics("cpu") == {} == monitor_torch.versions()
with monitor_torch.TorchProbe().open("cpu") as reader:
    assert reader.read() == {}
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps and trims")
def test_freed_memory_goes_back_to_the_system():
    program = """
from pathlib import Path
from autotuner.monitor import torch as monitor_torch
def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
blocks = [bytes(4000) for _ in range(50_000)]
last = blocks.pop()  # above all others, so that the heap cannot shrink by itself
full = rss_bytes()
del blocks
kept = rss_bytes()
assert full - kept < 50e6, "the C library keeps it, or this test shows nothing"
monitor_torch.release_memory("cpu")
assert kept - rss_bytes() > 150e6
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.gpu
def test_the_allocator_of_a_gpu():
    if not gpus():
        pytest.skip("no GPU")  # before torch is imported, which takes seconds
    import torch

    with monitor_torch.TorchProbe().open("cuda") as reader:
        monitor_torch.reset_peak_memory("cuda")
        ballast = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
        monitor_torch.synchronise("cuda")
        assert monitor_torch.peak_memory_bytes("cuda") >= 1 << 30
        assert reader.read()["allocator_segments"] >= 1
        del ballast
        monitor_torch.release_memory("cuda")
        monitor_torch.reset_peak_memory("cuda")
        assert monitor_torch.peak_memory_bytes("cuda") < 1 << 30
        assert reader.read() == {"allocator_retries": 0.0, "allocator_segments": 0.0}
        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 45, dtype=torch.uint8, device="cuda")
    assert monitor_torch.is_out_of_memory(caught.value)
