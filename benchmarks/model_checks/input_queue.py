"""The input queue against a real `DataLoader`: data sets that sleep or decode, none to four workers, steady or not.

Everything that a prediction needs was calibrated apart: mean and variance of a batch's time without a loader, what a
worker adds to it, and the handover by a loader that has nothing to prepare. Only the cores that other processes left
are taken from the same window. The step sleeps, as the host of a busy GPU does, so that the cores are the workers'.
What is compared is the whole cycle, wait and step: a wait of nearly nothing has no relative error.
"""

import random
import time
import warnings
import zlib
from functools import partial
from itertools import product

import torch
from torch.utils.data import DataLoader, Dataset

from autotuner.analyze.queueing import InputQueue, expected_wait_s, fluid_wait_s
from model_checks.points import Point, free_cores, quietly

BATCHES = 160
PREPARE_S = 0.012
TEXT = zlib.compress(random.Random(0).randbytes(2_000_000))
STEPS_S = (0.003, 0.009)
LOADERS = ((0, 2), (1, 2), (2, 2), (2, 4), (4, 2))  # workers, prefetch factor


class Sleeping(Dataset[torch.Tensor]):
    """Batches that take a gamma-distributed time to arrive, as from a store: no CPU."""

    cpu_ratio = 0.0

    def __init__(self, cv2: float) -> None:
        draw = random.Random(1)
        self.times_s = [draw.gammavariate(1 / cv2, cv2) * PREPARE_S if cv2 else PREPARE_S for _ in range(BATCHES)]

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(self.times_s[index])
        return torch.zeros(16)


class Decoding(Sleeping):
    """Batches that are computed: repeated decompression of the same bytes, about `PREPARE_S` each."""

    cpu_ratio = 1.0

    def __init__(self) -> None:
        super().__init__(0.0)
        began_s = time.perf_counter()
        for _ in range(20):
            zlib.decompress(TEXT)
        self.rounds = max(1, round(PREPARE_S / ((time.perf_counter() - began_s) / 20)))

    def __getitem__(self, index: int) -> torch.Tensor:
        for _ in range(self.rounds):
            zlib.decompress(TEXT)
        return torch.zeros(16)


class Ready(Sleeping):
    """Nothing to prepare."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(16)


def cycle_times_s(data: Dataset[torch.Tensor], workers: int, prefetch: int, step_s: float) -> tuple[float, float]:
    """Mean seconds of (wait + step) and of the step alone, after the buffer's first fill."""
    loader = DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=prefetch if workers else None)
    drop = workers * prefetch + 4
    steps: list[float] = []
    for place, _ in enumerate(loader):
        if place == drop:
            began_s, steps = time.perf_counter(), []
        started_s = time.perf_counter()
        if step_s:
            time.sleep(step_s)
        steps.append(time.perf_counter() - started_s)
    return (time.perf_counter() - began_s) / len(steps), sum(steps) / len(steps)


def calibrate(data: Sleeping) -> tuple[float, float]:
    """Mean and cv² of the time of a batch without a loader; CPU time where it computes: others do not stretch that."""
    clock = time.thread_time if data.cpu_ratio else time.perf_counter
    times_s = []
    for index in range(BATCHES):
        began_s = clock()
        data[index]
        times_s.append(clock() - began_s)
    mean = sum(times_s) / BATCHES
    return mean, sum((value - mean) ** 2 for value in times_s) / BATCHES / mean**2


def check() -> list[Point]:
    """Every data set, number of workers and step; the fluid bound beside the recursion, to show what it adds."""
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # four workers on two cores are meant
    steady = Sleeping(0.0)
    (taken_s, step_s), _, _ = quietly(lambda: cycle_times_s(Ready(), 1, 2, STEPS_S[-1]))  # it is always ready then
    (in_worker_s, _), _, _ = quietly(lambda: cycle_times_s(steady, 1, 2, 0.0))
    (alone_s, _), _, _ = quietly(lambda: calibrate(steady))
    cases: dict[str, Sleeping] = {
        "sleeping": steady, "sleeping cv² 0.5": Sleeping(0.5), "sleeping cv² 2": Sleeping(2.0), "decoding": Decoding(),
    }  # fmt: skip
    return [point for item in cases.items() for point in check_one(*item, in_worker_s - alone_s, taken_s - step_s)]


def check_one(name: str, data: Sleeping, sending_s: float, handover_s: float) -> list[Point]:
    (prepare_s, cv2), _, _ = quietly(lambda: calibrate(data))
    points = []
    for (workers, prefetch), step_s in product(LOADERS, STEPS_S):
        (cycle_s, real_step_s), seen, disturbed = quietly(partial(cycle_times_s, data, workers, prefetch, step_s))
        queue = InputQueue(
            workers, prepare_s + (sending_s if workers else 0.0), real_step_s, prefetch, prepare_cv2=cv2,
            cpu_ratio=data.cpu_ratio, cores=free_cores(seen), handover_s=handover_s,
        )  # fmt: skip
        case = f"{name}, {workers} workers x {prefetch}, step {step_s * 1e3:g} ms"
        kind = "decoding" if data.cpu_ratio else "input"
        for model, wait_s in ((f"{kind} queue", expected_wait_s), (f"{kind} bound", fluid_wait_s)):
            points.append(Point(model, case, wait_s(queue) + queue.step_s, cycle_s, "s", disturbed))
    return points
