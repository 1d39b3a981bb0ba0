"""What watching costs: the same work with all probes and without, interleaved in one process.

    python benchmarks/telemetry_cost.py [--windows 120] [--json OUT]

A window is half a second of fixed work, the shortest that a study takes: the probes are read at its begin and its end,
as the recorder does, and the GPU's thread samples at 5 Hz. It is cut into slices of 5 ms, and after (or before, drawn)
each slice with probes comes the same work without: what neighbours on the machine do changes more slowly than that,
and hits both. The thread is therefore woken by the work's own clock, and its sample falls into a slice with probes.
Probes are opened and closed outside the clocks: a study does that once. The interval is Student's over windows.

Two clocks: wall time, and the CPU time of the whole process, threads included. Where a process has its cores to itself
the two agree; where not, only the second is a measurement, and so the goal is about it where the work runs on a CPU (a
tight Python loop), and about wall time where it runs on a GPU (matrix products). `asleep` are windows in which the
program does nothing: the probes' own CPU time, of the wall time, with the real thread.

Cases: `cpu` is what a study on a CPU pays; `replay` adds the GPU probe over the replay library: its thread, its calls
and its Python, but not what a real driver takes for an answer; `cuda` only where there is a GPU. Goal: the upper end
of the 95 % interval of each cost is below 1 %.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from results import describe_machine, publish

from autotuner.metrics import median
from autotuner.monitor.gpu import SAMPLING_PERIOD_S, GpuProbe, GpuReader, gpm, gpus, nvml, visible_uuid
from autotuner.monitor.host import HostProbe
from autotuner.monitor.torch import TorchProbe
from autotuner.plugins import Probe, ProbeReader
from autotuner.statistics import mean_interval
from autotuner.testing.nvml_replay import compile_library

GOAL_RATIO = 0.01
SLICE_S, WINDOW_S = 0.005, 0.5
SLICES = round(WINDOW_S / SLICE_S)
SLICES_A_SAMPLE = round(SAMPLING_PERIOD_S / SLICE_S)
ASLEEP_WINDOWS = 20
Work = Callable[[], None]
CASES = ("cpu", "replay", "cuda")


class WorkClock(threading.Event):
    """Stands in for the event that stops the sampling thread: each `tick` is one period, and waits for its sample."""

    def __init__(self) -> None:
        super().__init__()
        self._due, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._began = False

    def wait(self, timeout: float | None = None) -> bool:
        if self._began:
            self._done.release()
        self._began = True
        self._due.acquire()
        return self.is_set()

    def tick(self) -> None:
        self._due.release()
        self._done.acquire()

    def end(self) -> None:
        self.set()
        self._due.release()


@contextmanager
def sampled_gpu() -> Iterator[tuple[ProbeReader, Work]]:
    """The GPU probe's reader, and what makes its thread take one sample."""
    with nvml.device(visible_uuid("cuda")) as device, ExitStack() as stack:
        assert device is not None
        reader, clock = GpuReader(device, stack.enter_context(gpm.opened(device))), WorkClock()
        thread = threading.Thread(target=reader.sample, args=(clock,))
        thread.start()
        try:
            yield reader, clock.tick
        finally:
            clock.end()
            thread.join()


@contextmanager
def watching(case: str) -> Iterator[tuple[Work, Work]]:
    """All probes: what reads them, and what takes a sample."""
    device = "cuda" if case == "cuda" else "cpu"
    with ExitStack() as stack:
        readers: list[ProbeReader] = [stack.enter_context(probe.open(device)) for probe in (HostProbe(), TorchProbe())]
        tick: Work = lambda: None  # noqa: E731 - nothing is sampled on a CPU
        if case != "cpu":
            reader, tick = stack.enter_context(sampled_gpu())
            readers.append(reader)
        yield lambda: read(readers), tick


def read(readers: Sequence[ProbeReader]) -> None:
    for reader in readers:
        reader.read()


def loop(count: int) -> None:
    total = 0
    for number in range(count):
        total += number & 7


def products(count: int) -> None:
    import torch

    matrix = torch.ones(2048, 2048, device="cuda", dtype=torch.bfloat16)
    for _ in range(count):
        matrix @ matrix
    torch.cuda.synchronize()


def slice_of(function: Callable[[int], None], clock: Callable[[], float]) -> Work:
    """A call of `function` that takes about as long as a slice."""
    count = 16
    while True:
        costs_s = []
        for _ in range(20):
            began_s = clock()
            function(count)
            costs_s.append(clock() - began_s)
        if min(costs_s) >= SLICE_S / 4:
            enough = round(count * SLICE_S / min(costs_s))
            return lambda: function(enough)
        count *= 2


def measure(case: str, windows: int) -> dict[str, list[float]]:
    """Wall and CPU seconds of every window, with probes and without, in order of time."""
    work = slice_of(products, time.perf_counter) if case == "cuda" else slice_of(loop, time.process_time)
    order = random.Random(0)
    seen: dict[str, list[float]] = {f"{clock}_{arm}_s": [] for arm in ("with", "without") for clock in ("wall", "cpu")}
    with watching(case) as (read_all, tick):
        for _ in range(windows):
            spent = dict.fromkeys(seen, 0.0)
            for place in range(SLICES):
                for arm in order.sample(("with", "without"), 2):
                    wall_s, cpu_s = time.perf_counter(), time.process_time()
                    if arm == "with" and place == 0:
                        read_all()
                    if arm == "with" and place % SLICES_A_SAMPLE == SLICES_A_SAMPLE - 1:
                        tick()
                    work()
                    if arm == "with" and place == SLICES - 1:
                        read_all()
                    spent[f"wall_{arm}_s"] += time.perf_counter() - wall_s
                    spent[f"cpu_{arm}_s"] += time.process_time() - cpu_s
            for name, value in spent.items():
                seen[name].append(value)
    return seen | {"asleep_ratio": measure_asleep(case)}


def measure_asleep(case: str) -> list[float]:
    """CPU time of the probes alone, of the wall time, one value a window."""
    probes: list[tuple[Probe, str]] = [(HostProbe(), "cpu"), (GpuProbe(), "cpu" if case == "cpu" else "cuda")]
    shares = []
    for _ in range(ASLEEP_WINDOWS):
        with ExitStack() as stack:
            readers = [stack.enter_context(probe.open(device)) for probe, device in probes]
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            read(readers)
            time.sleep(WINDOW_S)
            read(readers)
            shares.append((time.process_time() - cpu_s) / (time.perf_counter() - wall_s))
    return shares


def measure_on_replay(windows: int) -> dict[str, list[float]]:
    """The same in a process that finds the replay library."""
    with TemporaryDirectory() as folder:
        compile_library(Path(folder))
        argv = [sys.executable, __file__, "--raw", "replay", "--windows", str(windows)]
        environment = os.environ | {"LD_LIBRARY_PATH": folder}
        done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


def report(case: str, seen: dict[str, list[float]]) -> Iterator[tuple[str, bool]]:
    """Print the cost by both clocks, and asleep; yield the goals."""
    for clock in ("wall", "cpu"):
        with_s, without_s = seen[f"{clock}_with_s"], seen[f"{clock}_without_s"]
        ratios = [math.log(a / b) for a, b in zip(with_s, without_s, strict=True)]
        cost, low, high = (math.expm1(value) for value in mean_interval(ratios))
        print(
            f"{case:7} {clock:6} {cost:+8.3%}  95 %: {low:+.3%} to {high:+.3%}  "
            f"{len(ratios)} windows of {median(without_s):.3f} s"
        )
        if (clock == "wall") == (case == "cuda"):
            yield f"{case}, {clock} time: {high:.2%} at most, below {GOAL_RATIO:.0%}", high < GOAL_RATIO
    share, low, high = mean_interval(seen["asleep_ratio"])
    print(f"{case:7} asleep {share:8.3%}  95 %: {low:.3%} to {high:.3%}  {ASLEEP_WINDOWS} windows")
    yield f"{case}, asleep: {high:.2%} at most, below {GOAL_RATIO:.0%}", high < GOAL_RATIO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=120)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--raw", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.raw:
        print(json.dumps(measure(options.raw, options.windows)))
        return
    print(describe_machine())
    samples = {"cpu": measure("cpu", options.windows), "replay": measure_on_replay(options.windows)}
    if any(not gpu.is_replay for gpu in gpus()):
        samples["cuda"] = measure("cuda", options.windows)
    goals = dict(goal for case, seen in samples.items() for goal in report(case, seen))
    publish(options.json, samples, goals)


if __name__ == "__main__":
    main()
