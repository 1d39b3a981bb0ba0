"""All-reduce time against real gloo, fitted on every other size, predicted between; overlap against sleeps."""

import os
import random
import socket
import time
from functools import partial
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from autotuner.analyze.collectives import bucket_ready_s, collective_s, fit_link, overlap
from autotuner.metrics import quantile
from model_checks.points import Point, quietly

SIZES_BYTES = [2**power for power in range(10, 25)]
ROUNDS = 25
BUCKETS_BYTES = (2**21, 2**21, 2**20)
COMPUTE_S = (0.0, 0.002, 0.02)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def reduce_s(message: torch.Tensor) -> float:
    dist.barrier()
    began_s = time.perf_counter()
    dist.all_reduce(message)
    return time.perf_counter() - began_s


def overlapped_s(compute_s: float) -> float:
    """A backward pass that sleeps and sends each bucket as soon as it is full."""
    buckets = [torch.zeros(size // 4) for size in BUCKETS_BYTES]
    ready_s = [0.0, *bucket_ready_s(compute_s, BUCKETS_BYTES)]
    dist.barrier()
    began_s = time.perf_counter()
    works = []
    for bucket, (before_s, now_s) in zip(buckets, pairwise(ready_s), strict=True):
        time.sleep(now_s - before_s)
        works.append(dist.all_reduce(bucket, async_op=True))
    for work in works:
        work.wait()
    return time.perf_counter() - began_s


def run_rank(rank: int, processes: int, port: int, results: "mp.SimpleQueue[object]") -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    messages = {size: torch.zeros(size // 4) for size in SIZES_BYTES}
    samples: dict[int, list[float]] = {size: [] for size in SIZES_BYTES}
    shuffle = random.Random(0)  # the same order in every process
    for place in range(ROUNDS + 2):
        for size in shuffle.sample(SIZES_BYTES, len(SIZES_BYTES)):
            time_s = reduce_s(messages[size])
            if place >= 2:
                samples[size].append(time_s)
    steps = {compute_s: [overlapped_s(compute_s) for _ in range(ROUNDS)] for compute_s in COMPUTE_S}
    if rank == 0:
        results.put((samples, steps))
    dist.barrier()
    dist.destroy_process_group()


def run(processes: int) -> tuple[dict[int, list[float]], dict[float, list[float]]]:
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(run_rank, (processes, free_port(), results), nprocs=processes)
    samples, steps = results.get()
    return samples, steps


def check() -> list[Point]:
    """Two and four processes; lower quartiles, which other processes on this host disturb least."""
    points = []
    for processes in (2, 4):
        (samples, steps), _, disturbed = quietly(partial(run, processes))
        times_s = {size: quantile(values, 0.25) for size, values in samples.items()}
        link = fit_link([(size, times_s[size]) for size in SIZES_BYTES[::2]], processes)
        assert link is not None, times_s
        print(f"gloo, {processes} processes: alpha {link.alpha_s}, beta {link.beta_s_per_byte}")
        for size in SIZES_BYTES[1::2]:
            predicted_s = collective_s(size, processes, link)
            case = f"{processes} processes, {size} bytes"
            points.append(Point("all-reduce", case, predicted_s, times_s[size], "s", disturbed))
        bucket_s = [collective_s(size, processes, link) for size in BUCKETS_BYTES]
        for compute_s, values in steps.items():
            found = overlap(compute_s, bucket_ready_s(compute_s, BUCKETS_BYTES), bucket_s)
            case = f"{processes} processes, {compute_s * 1e3:g} ms of computation"
            predicted_s = compute_s + found.exposed_s
            points.append(Point("overlap", case, predicted_s, quantile(values, 0.25), "s", disturbed))
    return points
