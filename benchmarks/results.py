"""How every benchmark ends: the goals it kept or missed, and its raw numbers with machine, versions and date."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotuner.monitor.environment import fingerprint, machine_line


def describe_machine() -> str:
    """One line for the top of the output."""
    with Path("/proc/loadavg").open() as file:
        load = file.read().split()[0]
    return f"{machine_line(fingerprint('cpu', {}))}; load {load} at the start; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def publish(path: Path | None, samples: Any, goals: Mapping[str, bool]) -> None:
    """Print the goals, write the raw numbers, and leave with 1 when a goal was missed."""
    if path is not None:
        write(path, samples, goals)
    conclude(goals)


def write(path: Path, samples: Any, goals: Mapping[str, bool]) -> None:
    """Raw numbers and goals, with machine, versions and date."""
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": fingerprint("cpu", {}),
        "goals": dict(goals),
        "samples": samples,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def conclude(goals: Mapping[str, bool]) -> None:
    """Print the goals and leave with 1 when one was missed."""
    for goal, kept in goals.items():
        print(f"{'kept  ' if kept else 'MISSED'} {goal}")
    sys.exit(0 if all(goals.values()) else 1)
