"""One OpenMP thread unless a test asks for more: two of them wait for each other where another process has a core."""

import gc
import os
import time

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish():
    """What is imported by now is never garbage; to look through it at each collection made the tests twice as long."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def simulated_clock(monkeypatch):
    """Time passes while somebody sleeps, and a microsecond whenever somebody looks: no other process disturbs."""
    now_s = 0.0

    def pass_time(seconds):
        nonlocal now_s
        now_s += seconds
        return now_s

    monkeypatch.setattr(time, "sleep", pass_time)
    monkeypatch.setattr(time, "perf_counter", lambda: pass_time(1e-6))
