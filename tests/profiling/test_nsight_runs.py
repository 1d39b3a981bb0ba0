"""nsys and ncu around the real profiled process. Neither is here: programs of their names stand in.

They really run the command that they are given, and then print tables written by hand. What the real ones do remains
to be seen on a GPU.
"""

import json
import os
import stat
import sys
import textwrap

import pytest

from autotuner import api
from autotuner.profiling import nsight
from autotuner.profiling.request import Request

STUDY = """
workload: {kind: replay, step_s: "0.001"}
executor: {kind: inline}
probes: []
parameters:
  fast: {int: [0, 1], default: 0}
objectives: [{maximize: throughput_tokens_per_s}]
protocol: {block_s: 0.005, warmup_min_s: 0.01, warmup_max_s: 0.05, min_measure_s: 0.02, max_measure_s: 0.05}
"""
NSYS = """
if sys.argv[1] == "profile":
    done = subprocess.run(sys.argv[sys.argv.index(sys.executable):])
    open(sys.argv[sys.argv.index("-o") + 1] + ".nsys-rep", "w").write("report")
    sys.exit(done.returncode)
assert sys.argv[1] == "stats" and sys.argv[-1].endswith(".nsys-rep") and open(sys.argv[-1]).read() == "report"
print("Processing ...")
print("Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name")
print("100.0,5000,5,1000.0,1000.0,1,2,0.1,gemm")
"""
NCU = """
done = subprocess.run(sys.argv[sys.argv.index(sys.executable):])
with open(sys.argv[sys.argv.index("--log-file") + 1], "w") as file:
    metrics = sys.argv[sys.argv.index("--metrics") + 1].split(",")
    row = lambda cells: file.write(",".join('"%s"' % cell for cell in cells) + chr(10))
    row(["ID", "Kernel Name", *metrics])
    row(["", "", "ns", *["%"] * (len(metrics) - 1)])
    row([0, sys.argv[sys.argv.index("--kernel-name") + 1], *["50"] * len(metrics)])
sys.exit(done.returncode)
"""


@pytest.fixture
def request_(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    spec = api.read_spec(file)
    return Request(spec.dump(), spec.baseline, "range", 3, 0.1, 100.0, str(tmp_path))


@pytest.fixture
def install(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def write(name, body):
        program = folder / name
        program.write_text(f"#!{sys.executable}\nimport subprocess, sys\n{textwrap.dedent(body)}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return write


def test_nsys_runs_the_child_and_its_tables_are_read(request_, install):
    install("nsys", NSYS)
    tables, why_not = nsight.run_nsys(request_, 60)
    assert why_not == ""
    assert [row.name for row in tables.kernels] == ["gemm"]
    assert json.loads(request_.answer_path.read_text())["failure"] == ["", ""]


def test_ncu_runs_the_child_on_the_top_kernels(request_, install):
    install("ncu", NCU)
    kernels = ["void at::native::gemm<128>(float*)", "softmax(int)", "gemm<64>(int)"]
    (seen,), why_not = nsight.run_ncu(request_, kernels, 60)
    assert why_not == ""
    assert seen.kernel == "regex:^(gemm|softmax)$"
    assert seen.sm_ratio == 0.5
    assert json.loads(request_.answer_path.read_text())["failure"] == ["", ""]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('ERROR: unrecognised option'); sys.exit(1)", "nsys: unrecognised option"),
        ("sys.exit(9)", "nsys: exit code 9"),
        ("pass", "nsys stats: exit code 0, and no table"),
        ("import time; time.sleep(60)", "nsys gave no result within 1 s"),
    ],
)
def test_what_nsys_cannot_do_is_one_line(request_, install, body, words):
    install("nsys", body)
    tables, why_not = nsight.run_nsys(request_, 1 if "sleep" in body else 60)
    assert tables is None
    assert words in why_not
    assert "\n" not in why_not


def test_the_permission_that_ncu_lacks_is_explained(request_, install):
    install("ncu", "print('==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'); sys.exit(1)")
    counters, why_not = nsight.run_ncu(request_, [], 60)
    assert counters == ()
    assert "NVreg_RestrictProfilingToAdminUsers=0" in why_not


def test_missing_tools_are_said(request_, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert nsight.run_nsys(request_, 5) == (None, "nsys is not on the path")
    assert nsight.run_ncu(request_, [], 5) == ((), "ncu is not on the path")


def test_the_commands_can_be_copied(request_, tmp_path):
    import shlex

    path = request_.save()
    lines = nsight.commands(tmp_path, path, ["void k<1>(int)"])
    words = shlex.split(lines["nsys"])
    assert words[: words.index("&&")] == nsight.nsys_command(tmp_path, path)
    for option in ("-t", "cuda,nvtx,osrt", "--capture-range=cudaProfilerApi", "--capture-range-end=stop"):
        assert option in words
    assert "cuda_gpu_kern_sum,cuda_api_sum,cuda_gpu_mem_time_sum" in words
    assert shlex.split(lines["ncu"])[-4:] == [sys.executable, "-m", "autotuner.profiling.child", str(path)]
    assert "regex:^(k)$" in shlex.split(lines["ncu"])
