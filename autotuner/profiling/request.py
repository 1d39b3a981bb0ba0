"""What the profiled process is asked to do, and what it answers: JSON files in the profile's folder.

Files and not a pipe, because nsys, ncu and a person at a terminal start the same process.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from autotuner.types import Config

TRACE, STACKS = "trace.json.gz", "stacks.txt"


@dataclass(frozen=True, slots=True)
class Request:
    """What to run.

    Attributes:
        study: The `StudySpec` as `dump` gives it.
        config: The configuration.
        mode: "measure": time without a profiler, record under torch.profiler, sample with py-spy. "range": warm up,
            then run the steps in the range that nsys or ncu captures.
        steps: How many to profile.
        sample_s: How long to run for the sampler.
        samples_per_s: How often it looks.
        folder: Where the files go.
    """

    study: Mapping[str, Any]
    config: Config
    mode: Literal["measure", "range"]
    steps: int
    sample_s: float
    samples_per_s: float
    folder: str

    @property
    def answer_path(self) -> Path:
        """Where the answer goes."""
        return Path(self.folder) / f"answer-{self.mode}.json"

    def save(self) -> Path:
        """Write it to its folder and return the file."""
        path = Path(self.folder) / f"request-{self.mode}.json"
        path.write_text(json.dumps(asdict(self), indent=1))
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the process found.

    Attributes:
        failure: Kind and message of the failure, both empty when it went well.
        block_step_s: Time of a step without a profiler, one value a block.
        throughputs: Median work a second, by sample name.
        contended: Who else used the machine; empty for nobody.
        profiled_s: All profiled steps.
        threads: (name, main, CPU seconds a second) of each thread.
        workers_ratio: CPU seconds a second of the processes below.
        intraop_threads: As torch was told.
        note: Why there are no sampled stacks; empty when there are.
    """

    failure: tuple[str, str] = ("", "")
    block_step_s: tuple[float, ...] = ()
    throughputs: Mapping[str, float] | None = None
    contended: str = ""
    profiled_s: float = 0.0
    threads: tuple[tuple[str, bool, float], ...] = ()
    workers_ratio: float = 0.0
    intraop_threads: int = 1
    note: str = ""

    def save(self, path: Path) -> None:
        """Write it."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))
