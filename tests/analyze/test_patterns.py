"""Known bad patterns: on a CPU produced by real torch code; for a GPU, in traces and counters written by hand."""

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.analyze import patterns
from autotuner.analyze.flame import Stack
from autotuner.analyze.nsight import Counters
from autotuner.analyze.profile import CpuUse, Thread
from autotuner.analyze.trace import STEP, STEPS, parse, summarise

sys.path.insert(0, str(Path(__file__).parent))
from chrome_trace import Trace

pytestmark = pytest.mark.alone  # shares of real times decide
QUIET = CpuUse((Thread("python", True, 0.5),), 0.0, 1)


def names(found):
    return {pattern.name for pattern in found}


def find(trace, cpu=QUIET, **more):
    return patterns.find(summarise(parse(trace.json())), cpu, **more)


@pytest.fixture
def look(tmp_path):
    """Real steps of real torch code under the real profiler."""
    from autotuner.monitor.torch.profiler import record_steps

    def recorded(step, steps=3):
        step()
        path = tmp_path / "trace.json.gz"
        spent_s = record_steps(step, steps, "cpu", path, STEPS, STEP)
        seen = summarise(parse(json.loads(gzip.decompress(path.read_bytes()))))
        assert seen.steps == steps
        assert 0 < seen.window_s <= spent_s
        return seen

    return recorded


def test_real_casts_are_named(look):
    import torch

    data = torch.randn(500, 500)
    seen = look(lambda: data.to(torch.float64).to(torch.bfloat16).to(torch.float32))
    found = patterns.find(seen, QUIET)
    assert "casts" in names(found)
    assert seen.casts == 9
    assert "3 a step" in next(p.evidence for p in found if p.name == "casts")
    seen = look(lambda: [data @ data for _ in range(5)])
    assert "casts" not in names(patterns.find(seen, QUIET))


def test_a_real_storm_of_small_operators_is_named(look):
    import torch

    small, large = torch.randn(4), torch.randn(600, 600)

    def storm():
        total = small
        for _ in range(600):
            total = total + 1.0
        return total

    assert "operator_storm" in names(patterns.find(look(storm), QUIET))
    assert "operator_storm" not in names(patterns.find(look(lambda: [large @ large for _ in range(4)]), QUIET))


def test_real_items_are_named_as_a_gpus_trouble(look):
    import torch

    data = torch.randn(10)
    found = patterns.find(look(lambda: [data.sum().item(), bool((data > 0).any()), data.nonzero()]), QUIET)
    asked = next(pattern for pattern in found if pattern.name == "synchronising")
    assert "aten::_local_scalar_dense 2" in asked.evidence
    assert "aten::nonzero 1" in asked.evidence
    assert asked.share_ratio == 0
    assert "synchronising" not in names(patterns.find(look(lambda: data + data), QUIET))


def test_real_recompilations_are_named(look):
    import torch

    sizes = iter(range(2, 100))
    changing = torch.compile(lambda x: x * 2 + 1, dynamic=False, backend="eager")
    found = patterns.find(look(lambda: changing(torch.randn(next(sizes)))), QUIET)
    assert "recompiling" in names(found)
    assert "3 translations in 3 warm steps" in next(p.evidence for p in found if p.name == "recompiling")
    steady = torch.compile(lambda x: x * 2 + 3, dynamic=False, backend="eager")
    assert "recompiling" not in names(patterns.find(look(lambda: steady(torch.randn(5))), QUIET))


def test_a_real_wait_for_data_is_named(look):
    import time

    import torch

    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            time.sleep(0.01)
            return torch.zeros(2)

    batches = iter(torch.utils.data.DataLoader(Slow(), batch_size=2))
    seen = look(lambda: next(batches) + 1)
    assert "input_wait" in names(patterns.find(seen, QUIET))
    assert seen.host.input_s > 0.8 * seen.window_s


def storm_of_kernels(count, kernel_us, every_us):
    trace = Trace().steps((0, count * every_us))
    for i in range(count):
        trace.kernel("vectorized_elementwise_kernel<4>", i * every_us, i * every_us + 4, i * every_us + 4 + kernel_us)
    return trace


def test_tiny_kernels_need_to_be_tiny_and_many():
    found = find(storm_of_kernels(200, 2, 20))
    tiny = next(pattern for pattern in found if pattern.name == "tiny_kernels")
    assert "200 kernels a step" in tiny.evidence
    assert tiny.share_ratio == pytest.approx(0.9, abs=0.01)
    assert "tiny_kernels" not in names(find(storm_of_kernels(200, 15, 20)))
    assert "tiny_kernels" not in names(find(storm_of_kernels(50, 2, 20)))


def test_idleness_is_no_evidence_beside_cuda_graphs():
    trace = storm_of_kernels(200, 2, 20).call("cudaGraphLaunch", 1, 2)
    tiny = next(pattern for pattern in find(trace) if pattern.name == "tiny_kernels")
    assert tiny.share_ratio == 0
    assert "waits" not in tiny.evidence


def synchronising(waits):
    trace = Trace().steps((0, 1000))
    for i in range(10):
        trace.kernel("gemm", i * 100, i * 100 + 10, i * 100 + 60)
        if i < waits:
            trace.call("cudaStreamSynchronize", i * 100 + 5, i * 100 + 62)
    return trace


def test_waits_for_the_device_inside_a_step_are_named():
    found = find(synchronising(9))
    assert next(pattern for pattern in found if pattern.name == "synchronising").share_ratio == pytest.approx(0.45)
    assert "synchronising" not in names(find(synchronising(1))), "one wait a step is the step's own"


@pytest.mark.parametrize(("kind", "named"), [("Pageable -> Device", True), ("Pinned -> Device", False)])
def test_pageable_copies_are_named(kind, named):
    trace = Trace().steps((0, 1000)).kernel("gemm", 0, 5, 500)
    trace.copy(f"Memcpy HtoD ({kind})", 500, 510, 900, size=4 * 2**20)
    found = find(trace)
    assert ("pageable_copies" in names(found)) == named
    if named:
        assert "4.00 MiB a step at 10.0 GiB/s" in next(p.evidence for p in found if p.name == "pageable_copies")


def test_exposed_communication_is_named_and_hidden_is_not():
    exposed = Trace().steps((0, 100)).kernel("gemm", 0, 0, 50).kernel("ncclDevKernel_AllReduce", 0, 50, 90, stream=20)
    hidden = Trace().steps((0, 100)).kernel("gemm", 0, 0, 95).kernel("ncclDevKernel_AllReduce", 0, 50, 90, stream=20)
    assert "exposed_communication" in names(find(exposed))
    assert "exposed_communication" not in names(find(hidden))


COALESCED = Counters("void gather<float>(float*)", 5, load_sectors=4.0, store_sectors=4.0, dram_ratio=0.5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, set()),
        ({"load_sectors": 31.0}, {"uncoalesced_loads"}),
        ({"load_sectors": 12.0}, {"uncoalesced_loads"}),
        ({"load_sectors": 16.0, "load_used_ratio": 1.0}, set()),  # 16-byte elements, every byte used
        ({"load_sectors": 16.0, "load_used_ratio": 0.125}, {"uncoalesced_loads"}),
        ({"load_sectors": 16.0, "kernel": "vectorized_elementwise_kernel<4>"}, set()),
        ({"store_sectors": 32.0}, {"uncoalesced_stores"}),
        ({"load_sectors": float("nan")}, set()),
    ],
)
def test_scattered_access_is_told_from_wide_elements(change, named):
    trace = Trace().steps((0, 100)).kernel("void gather<float>(float*)", 0, 10, 60)
    found = find(trace, counters=[replace(COALESCED, **change)])
    assert names(found) == named
    if named and "kernel" not in change:
        assert found[0].share_ratio == pytest.approx(0.5)
        assert found[0].evidence.startswith("gather: ")


def busy(operator_us=100):
    return Trace().steps((0, 1000)).op("aten::mm", 0, operator_us)


def test_one_thread_among_idle_ones():
    alone = CpuUse((Thread("python", True, 0.98), Thread("pool", False, 0.02)), 0.0, 4)
    assert "one_thread" in names(find(busy(900), alone))
    shared = CpuUse((Thread("python", True, 0.98), Thread("pool", False, 0.9)), 0.0, 4)
    assert "one_thread" not in names(find(busy(900), shared))
    assert "one_thread" not in names(find(busy(900), replace(alone, intraop_threads=1)))


def test_a_pool_that_burns_more_than_operators_explain():
    spinning = CpuUse((Thread("python", True, 1.0), Thread("pool", False, 0.9)), 0.0, 2)
    assert "spinning_pool" in names(find(busy(100), spinning))
    assert "spinning_pool" not in names(find(busy(900), spinning))


def test_waiting_awake_is_told_from_sleeping():
    stacks = [
        Stack("main process", "MainThread", ("step (a.py:1)", "Queue.get (multiprocessing/queues.py:2)"), 80),
        Stack("main process", "MainThread", ("step (a.py:1)", "mm (b.py:3)"), 20),
    ]
    awake, asleep = (CpuUse((Thread("python", True, ratio),), 0.0, 1) for ratio in (0.95, 0.2))
    assert "busy_waiting" in names(find(busy(), awake, stacks=stacks))
    assert "busy_waiting" not in names(find(busy(), asleep, stacks=stacks))


def test_a_cuda_wait_that_burns_a_core_is_waiting_awake():
    trace = Trace().steps((0, 1000)).kernel("gemm", 0, 10, 900).call("cudaStreamSynchronize", 100, 900)
    assert "busy_waiting" in names(find(trace, CpuUse((Thread("python", True, 1.0),), 0.0, 1)))
    assert "busy_waiting" not in names(find(trace, CpuUse((Thread("python", True, 0.2),), 0.0, 1)))


def test_patterns_say_what_shows_them_and_come_in_order():
    found = find(synchronising(9), counters=[replace(COALESCED, load_sectors=32.0)])
    assert len(found) == 2
    assert all(pattern.evidence and pattern.advice and pattern.source for pattern in found)
    shares = [pattern.share_ratio for pattern in found]
    assert shares == sorted(shares, reverse=True)
