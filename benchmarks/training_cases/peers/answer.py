"""What every peer answers."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from training_cases import load_case
from training_cases.case import Case


@dataclass(frozen=True, slots=True)
class Found:
    """A tuner's result.

    Attributes:
        changed: Settings that it chose, over the case's baseline.
        trials: Configurations that it ran.
        claimed_samples_per_s: What it says it reaches; None: it does not measure speed.
        raw: Its own record.
    """

    changed: Mapping[str, Any]
    trials: int
    claimed_samples_per_s: float | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


def answer(package: str, tune: Callable[[Case], Found]) -> None:
    """Tune the case named on the command line and print the JSON line."""
    case = load_case(sys.argv[1])
    began_s = time.perf_counter()
    found = tune(case)
    line = {"version": version(package), "seconds": time.perf_counter() - began_s, **asdict(found)}
    print("\n" + json.dumps(line, default=str))
