"""Parsers of nsys and ncu. The CSV texts are written by hand in the documented formats; no tool printed them here.

What public outputs show of the formats, and is imitated: progress lines before a table, nsys with and without quotes,
thousands separators, kernel names with commas, units below ncu's raw header, `n/a` where a device has no counter.
"""

import math

import pytest

from autotuner.analyze import nsight

NSYS = """
Generating SQLite file nsys.sqlite from nsys.nsys-rep
Processing [nsys.sqlite] with [cuda_gpu_kern_sum.py]...

Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
20.0,"2,000,000",50,40000.0,39000.0,30000,60000,100.0,"void reduce_kernel<512, 1, Op<float>>(float *, int)"
80.0,"8,000,000",10,800000.0,790000.0,700000,900000,5000.0,gemm_128x128

Processing [nsys.sqlite] with [cuda_api_sum.py]...

Time (%),Total Time (ns),Num Calls,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
90.0,9000000,12,750000.0,740000.0,1000,900000,100.0,cudaStreamSynchronize
10.0,1000000,200,5000.0,4500.0,3000,9000,100.0,cudaLaunchKernel

Processing [nsys.sqlite] with [cuda_gpu_mem_time_sum.py]...

Time (%),Total Time (ns),Count,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Operation
100.0,500000,5,100000.0,100000.0,90000,110000,100.0,[CUDA memcpy Host-to-Device]
"""


def test_three_tables_of_one_output():
    tables = nsight.parse_nsys(NSYS)
    assert [(k.name, k.count) for k in tables.kernels] == [
        ("gemm_128x128", 10),
        ("void reduce_kernel<512, 1, Op<float>>(float *, int)", 50),
    ]
    assert tables.kernels[0].total_s == pytest.approx(8e-3)
    assert tables.kernels[0].median_s == pytest.approx(790e-6)
    assert [c.name for c in tables.calls] == ["cudaStreamSynchronize", "cudaLaunchKernel"]
    assert tables.copies[0].name == "[CUDA memcpy Host-to-Device]"
    assert tables.copies[0].total_s == pytest.approx(0.5e-3)


def test_quoted_columns_other_units_and_no_median():
    text = '"Time (%)","Total Time (us)","Instances","Avg (us)","Name"\n"100.0","1,500.5","3","500","k"\n'
    (row,) = nsight.parse_nsys(text).kernels
    assert row.total_s == pytest.approx(1500.5e-6)
    assert row.median_s == pytest.approx(500.2e-6, rel=1e-3)


@pytest.mark.parametrize(
    "text", ["", "SKIPPED: nsys.sqlite does not contain CUDA kernel data.\n", "Time (%),Other\n1,2\n"]
)
def test_no_table_is_empty(text):
    assert nsight.parse_nsys(text) == nsight.NsysTables()


HEAD = ["ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream", "Block Size", "Grid Size"]
KERNEL = "void at::native::elementwise_kernel<128, 4>(int, float)"


def line(cells):
    return ",".join(f'"{cell}"' for cell in cells) + "\n"


def raw(*launches, unit="us"):
    """ncu --csv --page raw: a column a metric, units in the second row."""
    metrics = [*nsight.METRICS]
    units = [unit, "%", "%", "%", "sector/request", "sector/request", "%", "%"]
    text = "==PROF== Connected to process 1\n==PROF== Profiling: 0%....50%....100% - 9 passes\n"
    text += line(HEAD + metrics) + line([""] * len(HEAD) + units)
    for number, (kernel, *values) in enumerate(launches):
        text += line([number, 1, "python", "127.0.0.1", kernel, 1, 7, "(128, 1, 1)", "(9, 1, 1)", *values])
    return text + "==PROF== Disconnected from process 1\n"


def test_raw_pages_are_means_over_launches():
    rows = [
        (KERNEL, "1,000.00", 20, 80, 50, 4.0, 4.0, 100, 100),
        (KERNEL, "3,000.00", 40, 60, 70, 8.0, 4.0, 50, 100),
        ("gemm", 100, 90, 10, 30, 16, 16, 100, 100),
    ]
    slow, fast = nsight.parse_ncu(raw(*rows))
    assert (slow.kernel, slow.launches) == (KERNEL, 2)
    assert slow.duration_s == pytest.approx(2e-3)
    assert (slow.sm_ratio, slow.dram_ratio, slow.occupancy_ratio) == (
        pytest.approx(0.3), pytest.approx(0.7), pytest.approx(0.6),
    )  # fmt: skip
    assert (slow.load_sectors, slow.load_used_ratio) == (6.0, pytest.approx(0.75))
    assert fast.kernel == "gemm"


@pytest.mark.parametrize(("unit", "seconds"), [("ns", 1e-9), ("nsecond", 1e-9), ("us", 1e-6), ("msecond", 1e-3)])
def test_durations_have_units(unit, seconds):
    (seen,) = nsight.parse_ncu(raw((KERNEL, 7, 1, 1, 1, 4, 4, 100, 100), unit=unit))
    assert seen.duration_s == pytest.approx(7 * seconds)


def test_counters_that_a_device_has_not_are_nan():
    (seen,) = nsight.parse_ncu(raw((KERNEL, 7, 1, "n/a", 1, "n/a", "", 100, 100)))
    assert math.isnan(seen.dram_ratio)
    assert math.isnan(seen.load_sectors)
    assert seen.sm_ratio == 0.01


def test_the_long_form_says_the_same():
    text = line([*HEAD, "Section Name", "Metric Name", "Metric Unit", "Metric Value"])
    for metric, unit, value in ((nsight.DURATION, "us", "1,205.00"), (nsight.DRAM, "%", "78.4"), ("other", "", "3")):
        text += line([0, 1, "python", "h", KERNEL, 1, 7, "(1, 1, 1)", "(1, 1, 1)", "Command line", metric, unit, value])
    (seen,) = nsight.parse_ncu(text)
    assert seen.duration_s == pytest.approx(1205e-6)
    assert seen.dram_ratio == pytest.approx(0.784)
    assert math.isnan(seen.sm_ratio)


@pytest.mark.parametrize("text", ["", "==ERROR== ERR_NVGPUCTRPERM - no permission\n", "==PROF== nothing matched\n"])
def test_no_counters_are_none(text):
    assert nsight.parse_ncu(text) == ()


def test_complaints_are_one_line():
    assert nsight.complaint("noise\n==ERROR== No kernels were profiled.\nmore") == "No kernels were profiled."
    assert nsight.complaint("all is well\n") == ""


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("gemm_128", "gemm_128"),
        ("void gemm<128, float>(int)", "gemm"),
        ("void at::native::(anonymous namespace)::softmax_warp<float>(float*)", "softmax_warp"),
        ("at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float> >(int)",
         "vectorized_elementwise_kernel"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
         "ncclDevKernel_AllReduce_Sum_f32_RING_LL"),
        ("void cutlass::Kernel2<cutlass_80_tensorop>(T1::Params)", "Kernel2"),
    ],
)  # fmt: skip
def test_base_names(kernel, name):
    assert nsight.base_name(kernel) == name
