"""What is read out of Chrome traces. The traces are written by hand in Kineto's form; none of them was recorded."""

import sys
from pathlib import Path

import pytest

from autotuner.analyze.trace import Kind, parse, summarise
from autotuner.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent))
from chrome_trace import AUTOGRAD, Trace


def read(trace):
    return summarise(parse(trace.json()))


def us(seconds):
    return pytest.approx(seconds * 1e-6, abs=1e-9)


def test_the_times_of_a_device_are_exclusive_and_add_up():
    trace = Trace().steps((0, 1000))
    trace.kernel("gemm", 10, 100, 400)
    trace.kernel("ncclDevKernel_AllReduce_Sum", 20, 300, 600, stream=20)  # 100 hidden, 200 exposed
    trace.copy("Memcpy HtoD (Pinned -> Device)", 30, 550, 700)  # 50 below the collective, 100 alone
    device = read(trace).device
    assert (device.compute_s, device.communication_s, device.copy_s) == (us(300), us(200), us(100))
    assert device.idle_s == us(400)
    assert device.overlap_ratio == pytest.approx(1 / 3)
    assert device.compute_s + device.communication_s + device.copy_s + device.idle_s == us(1000)


@pytest.mark.parametrize(
    ("launch_us", "gap_us", "cause"),
    [
        (250, 100, "host"),  # launched after the kernel before had ended at 200
        (150, 1.5, "kernel"),  # launched in time, and right behind
        (150, 100, "other"),  # launched in time, yet late: waiting for something else
    ],
)
def test_a_gap_has_a_cause(launch_us, gap_us, cause):
    trace = Trace().steps((0, 500))
    trace.kernel("first", 0, 0, 200)
    trace.kernel("second", launch_us, 200 + gap_us, 500)
    device = read(trace).device
    found = {"host": device.idle_host_s, "kernel": device.idle_kernel_s, "other": device.idle_other_s}
    assert found.pop(cause) == us(gap_us)
    assert set(found.values()) == {0.0}


def test_idleness_at_the_end_is_the_hosts():
    trace = Trace().steps((0, 500))
    trace.kernel("only", 0, 0, 200)
    assert read(trace).device.idle_host_s == us(300)


def test_idleness_after_a_wait_is_told_apart():
    trace = Trace().steps((0, 1000))
    trace.kernel("first", 0, 0, 200)
    trace.call("cudaStreamSynchronize", 10, 205)
    trace.kernel("second", 300, 310, 500)  # 110 after the wait
    trace.kernel("third", 600, 610, 1000)  # 110 for no such reason
    device = read(trace).device
    assert device.idle_host_s == us(220)
    assert device.idle_after_sync_s == us(110)


def test_kernels_that_run_at_once_leave_no_gap_between_them():
    trace = Trace().steps((0, 300))
    trace.kernel("one", 0, 0, 200, stream=7)
    trace.kernel("other", 0, 100, 300, stream=20)
    device = read(trace).device
    assert device.compute_s == us(300)
    assert device.idle_s == 0


def test_the_queue_counts_what_was_launched_and_has_not_begun():
    trace = Trace().steps((0, 100))
    trace.kernel("a", 0, 10, 40)
    trace.kernel("b", 0, 40, 70)
    trace.kernel("c", 5, 70, 100)
    device = read(trace).device
    assert device.queue_max == 3
    assert device.queue_mean == pytest.approx((10 + 40 + 65) / 100)
    assert device.launch_delay_s == us(40)


@pytest.mark.parametrize("name", ["cudaGraphLaunch", "cuGraphLaunch", "hipGraphLaunch"])
def test_cuda_graphs_are_noticed(name):
    trace = Trace().steps((0, 100)).kernel("k", 0, 10, 20)
    assert not read(trace).device.graphs
    assert read(trace.call(name, 30, 40)).device.graphs


def test_only_the_busiest_device_counts():
    trace = Trace().steps((0, 100)).kernel("here", 0, 10, 90).kernel("there", 0, 10, 20, device=1)
    seen = read(trace)
    assert seen.device.device == "0"
    assert [row.name for row in seen.kernels] == ["here"]


def test_the_hosts_time_adds_up_and_waits_come_first():
    trace = Trace().steps((0, 1000))
    trace.add("user_annotation", "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", 0, 200)
    trace.op("aten::set_", 50, 100)  # inside the wait: no operator of the step
    trace.op("aten::linear", 200, 400)
    trace.op("aten::item", 500, 700).call("cudaStreamSynchronize", 510, 690)
    trace.op("_compile.compile_inner (dynamo_timed)", 700, 800)
    trace.op("aten::mul", 820, 860, tid=AUTOGRAD)
    host = read(trace).host
    assert host.input_s == us(200)
    assert host.device_wait_s == us(180)
    assert host.compile_s == us(100)
    assert host.operators_s == us(200 + 20)
    assert host.other_threads_s == us(40)
    assert host.python_s == us(1000 - 200 - 180 - 100 - 220 - 40)
    assert list(host.threads) == ["main", "thread 101"]


def test_an_operator_pays_only_for_itself():
    trace = Trace().steps((0, 100)).op("aten::linear", 0, 100).op("aten::t", 10, 30).op("aten::addmm", 40, 90)
    own = {row.name: row.total_s for row in read(trace).operators}
    assert own == {"aten::linear": us(30), "aten::t": us(20), "aten::addmm": us(50)}


def test_rounding_clocks_do_not_make_time():
    trace = Trace().steps((0, 100)).op("outer", 0, 50).op("inner", 10, 50.4).op("next", 51, 60)
    own = {row.name: row.total_s for row in read(trace).operators}
    assert own["outer"] == us(10)
    assert own["next"] == us(9)


def test_rows_count_and_know_occupancy_and_bytes():
    trace = Trace().steps((0, 100), (100, 200))
    for start in (0, 100):
        trace.kernel("gemm<128>", start, start + 10, start + 40, **{"est. achieved occupancy %": 25})
        trace.copy("Memcpy HtoD (Pageable -> Device)", start, start + 50, start + 60, size=1000)
    seen = read(trace)
    kernel, copy = seen.kernels[0], seen.copies[0]
    assert (kernel.count, kernel.mean_s, kernel.share_ratio) == (2, us(30), pytest.approx(0.3))
    assert kernel.occupancy_ratio == 0.25
    assert copy.bytes == 2000
    assert seen.steps == 2


def test_casts_on_a_device_are_their_kernels():
    trace = Trace().steps((0, 100))
    trace.op("aten::to", 0, 40).op("aten::_to_copy", 5, 35).op("aten::copy_", 10, 30)
    trace.kernel("bfloat16_copy_kernel_cuda", 12, 50, 70)
    trace.op("aten::_to_copy", 40, 60).copy("Memcpy DtoH (Device -> Pageable)", 45, 70, 80)  # moves, converts nothing
    trace.kernel("gemm", 62, 80, 95)
    seen = read(trace)
    assert (seen.casts, seen.casts_s) == (1, us(20))


def test_casts_on_a_cpu_are_their_operators():
    trace = Trace().steps((0, 100)).op("aten::to", 0, 40).op("aten::_to_copy", 5, 35).op("aten::copy_", 10, 30)
    seen = read(trace)
    assert (seen.casts, seen.casts_s) == (1, us(30))
    assert seen.device is None


def test_the_picture_shows_the_median_step():
    trace = Trace().steps((0, 100), (100, 400), (400, 600))
    trace.op("short", 10, 20).op("long", 100, 300).op("median", 450, 500).kernel("k", 460, 480, 590)
    seen = read(trace)
    assert seen.lanes_s == us(200)
    assert [lane.name for lane in seen.lanes] == ["main thread", "GPU stream 7"]
    assert [bar.name for bar in seen.lanes[0].bars] == ["median"]
    assert seen.lanes[1].bars[0].start_s == us(80)


def test_the_picture_stays_drawable():
    trace = Trace().steps((0, 100_000))
    for start in range(0, 100_000, 5):
        trace.op("aten::add", start, start + 4)
    assert len(read(trace).lanes[0].bars) < 400


def test_a_trace_without_marks_is_read_whole():
    seen = read(Trace().op("aten::add", 100, 200).op("aten::mul", 300, 400))
    assert seen.steps == 1
    assert seen.window_s == us(300)


def test_categories_become_kinds():
    trace = Trace().op("aten::add", 0, 1).call("cudaDeviceSynchronize", 2, 3).kernel("ncclKernel_x", 4, 5, 6)
    trace.add("gpu_user_annotation", "autotune#step", 0, 9, pid=0, tid=7)  # on the device: said twice
    trace.add("gpu_memset", "Memset (Device)", 7, 8, pid=0, tid=7).add("cuda_sync", "Stream Sync", 8, 9, pid=0, tid=7)
    kinds = [event.kind for event in parse(trace.json())]
    assert kinds == [Kind.OPERATOR, Kind.SYNC, Kind.CALL, Kind.COMMUNICATION, Kind.COPY, Kind.OTHER]


def test_what_is_no_trace_is_said():
    with pytest.raises(UsageError, match="no Chrome trace"):
        parse({"events": 3})
    with pytest.raises(ValueError, match="empty"):
        summarise(parse({"traceEvents": []}))
