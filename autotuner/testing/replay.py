"""A workload whose behaviour is written in its file: known truth for tests, and faults on demand.

It computes nothing. Results that it gives are as real as the formula that somebody wrote down.
"""

import ctypes
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field

from autotuner.errors import InvalidConfigError, UnsupportedError
from autotuner.plugins import OpenWorkload, Step, Workload
from autotuner.spec.expressions import Expression
from autotuner.types import Config

Fault = Literal[
    "segfault", "exit", "hang", "stop", "error", "unsupported", "invalid", "memory_error", "eat_memory", "not_finite",
    "flood", "orphan", "kill",
]  # fmt: skip


class Replay(Workload):
    """Steps last as long as `step_s` says; `fault` names what goes wrong where its expression is true.

    Expressions may use `rank`, and a parameter `ranks` says how many processes there are.
    """

    kind: Literal["replay"] = "replay"
    step_s: str = Field("0.001", description="Seconds of a step, an expression over the parameters.")
    open_s: float = Field(0.0, ge=0, description="Seconds to open.")
    tokens: str = Field("1", description="Work of a step, an expression over the parameters.")
    noise_ratio: float = Field(0.0, ge=0, description="Standard deviation of a step's time, relative to it.")
    output_error: str = Field("0", description="Relative deviation of the outputs, an expression over the parameters.")
    fault: Mapping[Fault, str] = Field({}, description="What goes wrong, and an expression that says where.")
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    seed: int = 0

    any_parameter: ClassVar[bool] = True

    def ranks(self, config: Config) -> int:
        """As many processes as a parameter of this name says."""
        return int(config.get("ranks") or 1)

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Wait for `open_s`; a fault strikes at the first step."""
        time.sleep(self.open_s)
        yield OpenReplay(self)


class OpenReplay:
    """Sleeps instead of working."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._step_s, self._tokens = Expression(replay.step_s), Expression(replay.tokens)
        self._faults = {fault: Expression(where) for fault, where in replay.fault.items()}
        self._random = random.Random(replay.seed)

    def step(self, config: Config) -> Step:
        """Sleep as long as the file says."""
        names = {**config, "rank": int(os.environ.get("RANK", "0"))}
        for fault, where in self._faults.items():
            if where.evaluate(names):
                strike(fault)
        seconds = float(self._step_s.evaluate(names) or 0.0)
        time.sleep(max(0.0, seconds * (1 + self._replay.noise_ratio * self._random.gauss(0, 1))))
        return Step(work={"tokens": float(self._tokens.evaluate(config) or 0.0)})

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """One vector of ones, off by what the file says."""
        import numpy as np

        error = float(Expression(self._replay.output_error).evaluate(config) or 0.0)
        broken = any(fault == "not_finite" and where.evaluate(config) for fault, where in self._faults.items())
        return {"vector": np.full((1, 4), math.nan if broken else 1.0 + error)}


def strike(fault: Fault) -> None:
    """Make it go wrong, for real."""
    match fault:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(7)
        case "hang":
            time.sleep(3600)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "error":
            raise RuntimeError("the workload is broken")
        case "unsupported":
            raise UnsupportedError("this machine lacks the kernel")
        case "invalid":
            raise InvalidConfigError("these two do not go together")
        case "memory_error":
            raise MemoryError("no room")
        case "eat_memory":
            hoard = [bytearray(os.urandom(1 << 20)) for _ in range(8192)]
            time.sleep(len(hoard))
        case "flood":
            for _ in range(64):
                os.write(1, b"x" * (1 << 20))
        case "orphan":
            leave_orphan()
        case "not_finite":
            pass  # the outputs say it


def leave_orphan() -> None:
    """A grandchild in a session of its own whose parent is gone, as daemons do it."""
    subprocess.run(
        [sys.executable, "-c", "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)"], check=True
    )
