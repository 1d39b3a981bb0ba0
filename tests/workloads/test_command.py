"""Any program: what it says is found, what it fails at is said, and nothing of it is left."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from autotuner.executors.process import ProcessExecutor
from autotuner.plugins import Job
from autotuner.testing.workloads import check_workload
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol
from autotuner.workloads import programs
from autotuner.workloads.command import Command, Source
from autotuner.workloads.programs import ProgramError

NUMBERS = itertools.count()
QUICK = MeasurementProtocol(
    block_s=0.001, min_blocks=2, warmup_min_s=0, warmup_max_s=0, min_measure_s=0, max_measure_s=0.1, contended_retries=0
)
TORCH = """
import sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
a = torch.ones(64, 64)
began = time.perf_counter()
for _ in range(20): a = (a @ a).clamp(0, 1)
print(f"ready\\nloop {1e3 * (time.perf_counter() - began):.3f} ms")
"""
BLOCKED = r"""
#include <stdio.h>
#include <time.h>
static float a[256][256], b[256][256];
int main(void) {
    struct timespec x, y;
    clock_gettime(CLOCK_MONOTONIC, &x);
    for (int k = 0; k < 20; k++)
        for (int i = 0; i < 256; i += BLOCK) for (int j = 0; j < 256; j += BLOCK)
            for (int r = i; r < i + BLOCK; r++) for (int c = j; c < j + BLOCK; c++) b[c][r] = a[r][c] + k;
    clock_gettime(CLOCK_MONOTONIC, &y);
    printf("{\"timing\": {\"total_s\": %.9f}, \"block\": %d}\n",
           y.tv_sec - x.tv_sec + 1e-9 * (y.tv_nsec - x.tv_nsec), BLOCK);
    return b[3][5] < 0;
}
"""
JAVA = """
public class Fill { public static void main(String[] given) {
    int chunk = Integer.getInteger("chunk"); long sum = 0;
    for (int n = 0; n < 200_000; n += chunk) for (int i = 0; i < chunk; i++) sum += i;
    System.out.println("sum=" + sum + " threads=" + System.getenv("POOL"));
} }
"""


def script(text, *arguments, **options):
    return Command(argv=("{python}", "-c", text, *arguments), **options)


@pytest.fixture(scope="module")
def pool():
    with ProcessExecutor().open() as opened:
        yield opened


@pytest.fixture
def measure(pool):
    """In a process of its own."""

    def measured(workload, config=None):
        launch = f"launch{next(NUMBERS)}"
        found = pool.submit(Job(workload, config or {}, QUICK, launch=launch, log_path=Path("t.log"))).result(60)
        pool.close(launch)
        return found

    return measured


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_contract():
    workload = script("print({'a_s': 1})", "{n}", metrics={"a_s": {"pattern": r"'a_s': (\d)"}}, work={"samples": 10})
    check_workload(workload, [{"n": 1}, {"n": 2}])


def test_it_names_the_code_that_it_runs(folder):
    (folder / "run.sh").write_text("true")
    assert Command(argv=("sh", "run.sh", "{n}")).sources() == [folder / "run.sh"]
    assert Command(argv=("make", "bench")).sources() == [folder]
    assert Command(argv=("make", "bench"), cwd=folder.parent).sources() == [folder.parent]


def test_what_the_clock_and_the_kernel_say(measure):
    found = measure(script("import time; x = bytearray(80 * 2**20); sum(range(10**6)); time.sleep(0.1)"))
    assert isinstance(found, Measurement), found
    assert 80 * 2**20 < found.samples["run_peak_rss_bytes"][0] < 120 * 2**20
    assert found.samples["peak_memory_bytes"][0] == max(found.samples["run_peak_rss_bytes"])
    assert 0 < found.samples["run_cpu_s"][0] < 10
    assert found.samples["throughput_runs_per_s"][0] > 0


def test_memory_is_the_program_s_and_not_that_of_who_started_it(measure):
    small = measure(Command(argv=("sleep", "0.1")))
    assert small.samples["run_peak_rss_bytes"][0] < 8 * 2**20


def test_a_program_that_does_not_flush_is_ready_when_it_says_so(folder, measure):
    text = "import time; time.sleep(0.2); print('ready'); time.sleep(0.4)"
    latency_s = measure(script(text, ready="^ready")).samples["latency_s"]
    assert all(0.4 <= value < 0.6 for value in latency_s), latency_s


def test_numbers_are_read_from_stdout_whatever_else_is_said(measure):
    text = "import json, sys; print('a warning', file=sys.stderr); print(json.dumps({'a': 3}, indent=2))"
    assert measure(script(text, metrics={"a_s": {"json": "a"}})).samples["a_s"][0] == 3
    text = "import sys; print('took 4', file=sys.stderr)"
    assert measure(script(text, metrics={"a_s": {"pattern": r"took (\d)"}})).samples["a_s"][0] == 4


def test_what_an_earlier_run_wrote_is_not_this_one_s(folder):
    text = "import sys, pathlib; n = int(sys.argv[2]); n < 3 and pathlib.Path(sys.argv[1], 'r').write_text(f'took {n}')"
    workload = script(text, "{folder}", "{n}", metrics={"a_s": {"pattern": r"took (\d)", "file": "r"}})
    with workload.open({"n": 1}, "cpu") as opened:
        assert opened.step({"n": 1}).metrics["a_s"] == 1
        assert opened.step({"n": 1}).metrics["a_s"] == 1
        with pytest.raises(ProgramError, match="it was not written"):
            opened.step({"n": 3})


def test_what_a_build_sees_is_built_anew():
    plain = Command(argv=("true",), env={"CFLAGS": "-O{opt}"})
    assert plain.trait("opt").live
    assert not Command(argv=("true",), build=(("make",),), env=plain.env).trait("opt").live


def test_the_kernel_s_kill_is_want_of_memory(monkeypatch):
    counts = itertools.count()
    monkeypatch.setattr(programs, "_out_of_memory_kills", lambda: next(counts))
    with script("import os; os.kill(os.getpid(), 9)").open({}, "cpu") as opened, pytest.raises(MemoryError):
        opened.step({})
    monkeypatch.setattr(programs, "_out_of_memory_kills", lambda: 0)
    with script("import os; os.kill(os.getpid(), 9)").open({}, "cpu") as opened, pytest.raises(ProgramError):
        opened.step({})


def test_a_torch_script(folder, measure):
    (folder / "loop.py").write_text(TORCH)
    workload = Command(
        argv=("{python}", "loop.py", "{threads}"), cwd=folder, ready="^ready", work={"samples": 20},
        metrics={"loop_s": {"pattern": r"loop ([\d.]+) ms", "scale": 1e-3}},
    )  # fmt: skip
    found = measure(workload, {"threads": 1})
    assert isinstance(found, Measurement), found
    assert 0 < found.samples["loop_s"][0] < 30
    assert found.samples["latency_s"][0] < found.duration_s  # importing torch came before it was ready


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_c_program_compiled_with_different_block_sizes(measure):
    workload = Command(
        files={"t.c": BLOCKED}, build=(("cc", "-O1", "-DBLOCK={block}", "-o", "{folder}/t", "{folder}/t.c"),),
        argv=("{folder}/t",), metrics={"total_s": {"json": "timing.total_s"}, "block_count": {"json": "block"}},
    )  # fmt: skip
    assert not workload.trait("block").live
    for block in (1, 16):
        found = measure(workload, {"block": block})
        assert isinstance(found, Measurement), found
        assert found.samples["block_count"][0] == block
        assert found.samples["total_s"][0] > 0


def java():
    found = shutil.which("javac")
    return found is not None and subprocess.run([found, "-version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not java(), reason="no Java")
def test_a_java_program_with_its_heap_and_its_pool(measure):
    workload = Command(
        files={"Fill.java": JAVA}, build=(("javac", "-d", "{folder}", "{folder}/Fill.java"),),
        argv=("java", "-Xmx{heap_mb}m", "-Dchunk={chunk}", "-cp", "{folder}", "Fill"), env={"POOL": "{pool}"},
        metrics={"threads_count": {"pattern": r"threads=(\d+)"}},
    )  # fmt: skip
    found = measure(workload, {"heap_mb": 64, "chunk": 100, "pool": 3})
    assert isinstance(found, Measurement), found
    assert found.samples["threads_count"][0] == 3


def test_arguments_that_are_there_only_sometimes(measure):
    workload = script(
        "import sys; print(len(sys.argv))", {"if": "fast and n > 1", "args": ["--fast", "-n{n}"]},
        metrics={"arguments_count": {"pattern": r"(\d+)"}},
    )  # fmt: skip
    counts = [measure(workload, {"fast": fast, "n": 2}).samples["arguments_count"][0] for fast in (True, False)]
    assert counts == [3, 1]


def test_a_number_in_a_file_and_outputs_that_must_stay(folder):
    text = (
        "import numpy, sys, pathlib; f = pathlib.Path(sys.argv[1]); (f / 'r.json').write_text('{\"x\": {\"y\": 2}}');"
        "numpy.save(f / 'out.npy', numpy.arange(4.0) * float(sys.argv[2]))"
    )
    workload = script(text, "{folder}", "{n}", metrics={"y_s": {"json": "x.y", "file": "r.json"}}, outputs="out.npy")
    with workload.open({"n": 2}, "cpu") as opened:
        assert opened.step({"n": 2}).metrics["y_s"] == 2
        assert np.array_equal(opened.outputs({"n": 3}, None)["output"], [[0, 3, 6, 9]])


@pytest.mark.parametrize(
    ("workload", "kind", "says"),
    [
        (script("raise SystemExit(7)"), FailureKind.CRASHED, "left with exit code 7"),
        (script("import os; os.kill(os.getpid(), 11)"), FailureKind.CRASHED, "killed by SIGSEGV"),
        (script("raise MemoryError('no more')"), FailureKind.OUT_OF_MEMORY, "no more"),
        (script("import time; time.sleep(60)", timeout_s=0.5), FailureKind.CRASHED, "did not end within 0.5 s"),
        (script("print('hm')", metrics={"a_s": {"json": "a"}}), FailureKind.CRASHED, "a_s: no number is to be found"),
        (script("print('x')", metrics={"a_s": {"json": "a", "file": "f"}}), FailureKind.CRASHED, "f cannot be read"),
        (script("print('x')", ready="go"), FailureKind.CRASHED, "never said 'go'"),
        (script("0", build=((sys.executable, "-c", "0/0"),)), FailureKind.CRASHED, "building failed: python"),
        (Command(argv=("no-such-program",)), FailureKind.UNSUPPORTED, "there is no no-such-program"),
    ],
)
def test_what_fails_is_said(workload, kind, says, measure):
    found = measure(workload)
    assert isinstance(found, Failure)
    assert (found.kind, says in found.message) == (kind, True), found.message


def test_other_exit_codes_may_be_good_ones(measure):
    assert isinstance(measure(script("raise SystemExit(3)", exit_codes=(3,))), Measurement)


def test_a_background_process_does_not_stay(measure):
    text = "import subprocess, sys; print('pid=%d' % subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"
    found = measure(script(text, metrics={"pid_count": {"pattern": r"pid=(\d+)"}}))
    assert isinstance(found, Measurement)
    for pid in found.samples["pid_count"]:
        assert not Path(f"/proc/{int(pid)}").exists()


def test_a_background_process_does_not_disturb_the_next_run():
    text = "import subprocess; print('pid=%d' % subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"
    with script(text, metrics={"pid_count": {"pattern": r"pid=(\d+)"}}).open({}, "cpu") as opened:
        pid = opened.step({}).metrics["pid_count"]
        assert not Path(f"/proc/{int(pid)}").exists()


def test_a_flood_of_output_is_searched_at_its_end(measure):
    text = "for n in range(30_000): print('a' * 50)\nprint('took 3')"
    assert measure(script(text, metrics={"a_s": {"pattern": r"took (\d)"}})).samples["a_s"][0] == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metrics": {"speed": {"json": "a"}}}, "does not end in a unit"),
        ({"metrics": {"a_s": {}}}, "either json or pattern"),
        ({"metrics": {"a_s": {"pattern": "("}}}, "cannot be read"),
        ({"metrics": {"a_s": {"pattern": "a"}}}, "group around the number"),
        ({"metrics": {"latency_p95_s": {"json": "a"}}}, "call it own_latency_p95_s"),
        ({"metrics": {"setup_s": {"json": "a"}}}, "what autotune measures itself"),
        ({"work": {"apples": 3}}, "apples is no positive amount"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises((ValidationError, Exception), match=says):
        Command(argv=("true",), **options)


def test_of_several_matches_the_last_counts():
    assert Source(pattern=r"loss (\S+)").read("loss 3\nloss 1e-2\n") == 0.01
    assert Source(json="a.b").read('{"a": {"b": 1}}\nnoise\n{"a": {"b": 2}}') == 2.0
    assert Source(json="a").read("{}") is None
