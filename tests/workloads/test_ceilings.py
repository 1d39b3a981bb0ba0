"""What the machine is asked for, how it is counted, and what is said where it cannot be done."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from autotuner.errors import InvalidConfigError, UnsupportedError
from autotuner.monitor.recorder import Recorder
from autotuner.plugins import Job
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol
from autotuner.workloads import file_reads
from autotuner.workloads.ceilings import OPERATIONS, Ceiling
from autotuner.workloads.device_rates import LAUNCHES

pytestmark = pytest.mark.alone
SHORT = MeasurementProtocol(
    block_s=1e-3, warmup_min_steps=1, warmup_min_s=0, warmup_max_s=0.1, min_blocks=3, min_measure_s=0, max_measure_s=0.3
)
SMALL = Ceiling(cache_bytes=2**20, file_bytes=2**24)
GPU_ONLY = {"matmul-tf32", "matmul-float8_e4m3fn", "upload-pinned", "upload-pageable", "graph-launch"}
LIVE = frozenset({"operation", "message_bytes"})


def steps(config, count=3, workload=SMALL):
    """Work of a few steps, and the fastest one's seconds."""
    with workload.open(config, "cpu") as opened:
        works, times_s = [], []
        for _ in range(count):
            begun_s = time.perf_counter()
            works.append(dict(opened.step(config).work))
            times_s.append(time.perf_counter() - begun_s)
    assert all(work == works[0] for work in works)
    return works[0], min(times_s)


@pytest.mark.parametrize("form", ["float32", "bfloat16", "float16"])
def test_a_product_counts_two_operations_an_element_of_the_cube(form):
    work, _ = steps({"operation": f"matmul-{form}"})
    side = round((work["flops"] / 2) ** (1 / 3))
    assert work == {"flops": 2.0 * side**3}
    assert side in {256, 512, 1024, 2048, 4096, 8192}


def test_a_format_that_the_cpu_computes_slowly_gets_smaller_matrices():
    """A step stays short: a CPU without 16-bit arithmetic is 150 times slower with it."""
    (fast, fast_s), (slow, slow_s) = (steps({"operation": f"matmul-{form}"}) for form in ("float32", "bfloat16"))
    assert slow["flops"] <= fast["flops"]
    assert max(fast_s, slow_s) < 2.0  # seen: 12 and 25 ms


def test_copy_and_triad_count_what_is_read_and_written_and_fit_in_no_cache():
    (copied, _), (added, _) = steps({"operation": "copy"}), steps({"operation": "triad"})
    assert added["bytes"] == 1.5 * copied["bytes"]
    assert copied["bytes"] == 2 * 2**26, "small caches: 64 MiB an array"
    large, _ = steps({"operation": "copy"}, workload=Ceiling(cache_bytes=2**25))
    assert large["bytes"] == 2 * 4 * 2**25, "STREAM's rule: an array is four times the caches"


def test_a_launch_is_one_of_many_tiny_operations():
    work, step_s = steps({"operation": "launch"})
    assert work == {"operations": LAUNCHES}
    _, copy_s = steps({"operation": "copy"})
    assert step_s / LAUNCHES < copy_s / 20, "a tiny operation costs microseconds, a large copy milliseconds"


@pytest.mark.parametrize("name", sorted(GPU_ONLY))
def test_what_only_a_gpu_can_is_unsupported_and_not_a_crash(name):
    with Recorder() as recorder:
        outcome = recorder.measure(Job(SMALL, {"operation": name}, SHORT))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.UNSUPPORTED
    assert "CUDA" in outcome.message


def peers():
    """The processes on the other end; of another test there may be one that has ended and that nobody waited for."""
    children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in children if "autotuner.workloads.allreduce" in child.cmdline()]


def test_every_other_operation_is_measured_in_one_opening_of_one_process():
    """The file is gone, and the other process too, when the next operation begins."""
    me, seen = psutil.Process(), {}
    open_files = me.num_fds()
    with Recorder() as recorder:
        for name in sorted(set(OPERATIONS) - GPU_ONLY - {"disk-read"}):
            outcome = recorder.measure(Job(SMALL, {"operation": name}, SHORT, live=LIVE))
            assert isinstance(outcome, Measurement), outcome
            assert outcome.reused == bool(seen)
            seen[name] = outcome
            workers = peers()
            assert len(workers) == (name == "allreduce")
    assert len(seen) == 8
    assert not peers()
    assert me.num_fds() <= open_files + 2, "torch may keep something of its own; the files are closed"
    for name, outcome in seen.items():
        rates = [key for key in outcome.samples if key.startswith("throughput_") and "steps" not in key]
        assert rates, name
        assert all(min(outcome.samples[key]) > 0 for key in rates)


def test_large_messages_take_longer_than_small_ones_and_meet_the_same_process():
    times_s = {}
    with SMALL.open({}, "cpu") as opened:
        for size in (8, 2**24):
            config = {"operation": "allreduce", "message_bytes": size}
            opened.step(config)
            workers = {child.pid for child in psutil.Process().children()}
            for _ in range(3):
                begun_s = time.perf_counter()
                work = opened.step(config).work
                times_s.setdefault(size, []).append((time.perf_counter() - begun_s) / work["operations"])
            assert work["bytes"] == size * work["operations"]
            assert {child.pid for child in psutil.Process().children()} == workers
    assert min(times_s[2**24]) > 3 * min(times_s[8])  # seen: 20 ms and 0.4 ms


def test_an_all_reduce_whose_other_process_dies_is_a_failure_and_no_hang():
    with ExitStack() as resources:
        opened = resources.enter_context(SMALL.open({}, "cpu"))
        opened.step({"operation": "allreduce"})
        for peer in peers():
            peer.kill()
            peer.wait()
        with pytest.raises((RuntimeError, BrokenPipeError)):
            steps_of(opened, 50)
    from torch import distributed

    assert not distributed.is_initialized()


def steps_of(opened, count):
    for _ in range(count):
        opened.step({"operation": "allreduce"})


def test_cold_reads_come_from_a_disk(tmp_path):
    """Nothing of the file is in the page cache before a step, and the step's own piece is gone again after it."""
    workload = Ceiling(folder=str(tmp_path), file_bytes=2**25)
    with workload.open({}, "cpu") as opened:
        try:
            opened.step({"operation": "disk-read"})
        except UnsupportedError as error:
            pytest.skip(str(error))
        links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        (file,) = [path for path in links if str(tmp_path) in str(path.readlink())]
        for _ in range(5):
            assert opened.step({"operation": "disk-read"}).work == {"bytes": float(file_reads.CHUNK_BYTES)}
            assert file_reads.pages_in_memory(int(file.name), 2**25) == 0


def test_a_file_that_stays_in_memory_is_refused(monkeypatch, tmp_path):
    """A file system in memory forgets nothing when it is told to."""
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
    with pytest.raises(UnsupportedError, match="stays in memory"):
        steps({"operation": "disk-read"}, workload=Ceiling(folder=str(tmp_path), file_bytes=2**23))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory here")
def test_a_file_system_in_memory_is_no_disk():
    with pytest.raises(UnsupportedError, match="stays in memory"):
        steps({"operation": "disk-read"}, workload=Ceiling(folder="/dev/shm", file_bytes=2**23))
    work, _ = steps({"operation": "page-cache-read"}, workload=Ceiling(folder="/dev/shm", file_bytes=2**23))
    assert work["bytes"] > 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UnsupportedError, match=r"no file of 8 MiB in .*nowhere"):
        steps({"operation": "page-cache-read"}, workload=Ceiling(folder=str(tmp_path / "nowhere"), file_bytes=2**23))


def test_a_disk_that_is_full_is_no_crash(monkeypatch, tmp_path):
    """As a raw file says it: fewer bytes written than were given."""
    full = SimpleNamespace(write=lambda block: len(block) - 1)
    with pytest.raises(OSError, match="No space left"):
        file_reads._fill(full, 2**23)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [({"operation": "matmul-int3"}, "unknown operation"), ({"operatoin": "copy"}, "no parameter")],
)
def test_what_nobody_knows_is_an_invalid_configuration(config, sentence):
    with pytest.raises(InvalidConfigError, match=sentence):
        steps(config)
