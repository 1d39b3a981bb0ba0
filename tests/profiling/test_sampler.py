"""py-spy itself, on this process and on one that it has started."""

import multiprocessing
import time

import pytest

from autotuner.analyze.flame import parse_raw
from autotuner.profiling import sampler


def grind(stop):
    while not stop.is_set():
        sum(range(1000))


def rest():
    time.sleep(0.01)


@pytest.mark.skipif(sampler.find() is None, reason="py-spy is not installed")
def test_workers_are_seen_and_so_is_who_waits_for_them(tmp_path):
    context = multiprocessing.get_context("fork")
    stop, ignored = context.Event(), set()
    worker = context.Process(target=grind, args=(stop,))
    worker.start()
    try:
        why_not = sampler.sample(rest, 1.0, 100.0, tmp_path / "stacks.txt", ignored)
    finally:
        stop.set()
        worker.join()
    if "may not look" in why_not:
        pytest.skip(why_not)
    assert why_not == ""
    assert len(ignored) == 1
    stacks = parse_raw((tmp_path / "stacks.txt").read_text())
    seen = {(stack.process, frame.partition(" ")[0]) for stack in stacks for frame in stack.frames}
    assert ("main process", "rest") in seen, "waiting threads count too"
    assert ("worker 1", "grind") in seen
