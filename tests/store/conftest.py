"""What the tests of the record share: a real study file, trials with known numbers, and other processes."""

import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest

from autotuner.plugins import Executor, Workload
from autotuner.spec.model import StudySpec
from autotuner.store import Record, Study, open_record
from autotuner.types import (
    Binding,
    Diagnosis,
    Estimate,
    Failure,
    FailureKind,
    Measurement,
    Origin,
    Trial,
    Verdict,
)

ENVIRONMENT = {"gpu": "none", "torch": "2.13", "cpu": "œ 2 ² \u0000"}


class Sleeper(Workload):
    kind: Literal["sleeper"] = "sleeper"
    model: str = "tiny"

    def open(self, config, device):
        raise NotImplementedError


class Nowhere(Executor):
    kind: Literal["nowhere"] = "nowhere"

    def open(self, preload=()):
        raise NotImplementedError


def make_trial(number: int) -> Trial:
    """A trial that depends on nothing but its number; every fifth failed, every seventh breaks a limit."""
    draw = random.Random(number)
    config = {"threads": 1 + number % 4, "dtype": "float32", "cache": None, "compile": number % 2 == 0, "x": 0.1}
    if number % 5 == 4:
        kind = FailureKind.OUT_OF_MEMORY if number % 2 else FailureKind.CRASHED
        return Trial(number, config, Origin.SAMPLER, Failure(kind, "no\nmemory", f"logs/{number}.log", 0.5), None)
    rates = tuple(draw.gauss(100.0, 1.0) for _ in range(40))
    measurement = Measurement(
        samples={"throughput_tokens_per_s": rates, "peak_memory_bytes": (2.0e9,), "nothing": ()},
        setup_s=1.5,
        warmup_s=0.5,
        duration_s=draw.random(),
        telemetry={"cpu_ratio": 0.97},
        environment=ENVIRONMENT,
        started_at=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC) + timedelta(seconds=number),
        contended=number % 3 == 0,
        reason="precision",
    )
    verdict = Verdict(
        objectives={"throughput_tokens_per_s": float(number % 11), "latency_p50_s": 0.25},
        violations={"latency_p99_s <= 1 s": 0.1 if number % 7 == 6 else -0.1},
        diagnosis=Diagnosis(
            Binding.COMPUTE,
            "Bound.",
            {"flops_per_s": 1e12},
            elasticities={"compute": Estimate(0.9, 0.8, 1.0)},
            try_next=("threads", "dtype"),
        ),
        precision_ratio=0.01,
    )
    return Trial(number, config, Origin.BASELINE if number == 0 else Origin.SAMPLER, measurement, verdict)


def run_elsewhere(work: Callable[[], None]) -> int:
    """Run `work` in a forked process that ends without pytest's clean-up; returns its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001  (a forked process ends here; its exit status tells)
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return pid


def wait_for(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def locked_elsewhere(path: Path, mode: str) -> Iterator[None]:
    """Another process holds a transaction ("IMMEDIATE" or "EXCLUSIVE") on the file meanwhile."""
    import sqlite3

    ready, release = os.pipe(), os.pipe()

    def hold() -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(f"BEGIN {mode}")
        os.write(ready[1], b".")
        os.read(release[0], 1)
        connection.execute("ROLLBACK")

    pid = run_elsewhere(hold)
    try:
        os.read(ready[0], 1)
        yield
    finally:
        os.write(release[1], b".")
        assert wait_for(pid) == 0
        for end in (*ready, *release):
            os.close(end)


@pytest.fixture
def tools():
    """The helpers above, for test modules, which cannot import each other."""

    class Tools:
        trial = staticmethod(make_trial)
        elsewhere = staticmethod(run_elsewhere)
        wait = staticmethod(wait_for)
        locked = staticmethod(locked_elsewhere)

    return Tools


@pytest.fixture
def spec() -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "tiny",
            "workload": Sleeper(),
            "executor": Nowhere(),
            "parameters": {
                "threads": {"int": [1, 4], "default": 1},
                "dtype": {"choices": ["float32", "bfloat16"], "default": "float32"},
                "cache": {"choices": [None, "static"], "default": None, "when": "threads > 1"},
            },
            "rules": [{"forbid": "threads > 2 and dtype == 'bfloat16'"}],
            "objectives": [{"maximize": "throughput_tokens_per_s"}],
            "limits": ["latency_p99_s <= 1 s"],
        }
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "studies" / "autotune.db"


@pytest.fixture
def record(path: Path) -> Iterator[Record]:
    with open_record(str(path)) as opened:
        yield opened


@pytest.fixture
def study(record: Record, spec: StudySpec) -> Study:
    return record.create(spec, "tiny")
