"""Any program: started with a configuration filled in, run to its end, and asked what it did.

What it did is read from its output, from a file, or from the clock and the kernel's accounts.
"""

import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autotuner.errors import UsageError
from autotuner.metrics import METRICS, Metric, derived_metric, metric
from autotuner.plugins import OpenWorkload, Preload, Step, Trait, Workload
from autotuner.types import Binding, Config
from autotuner.workloads.finishing import Finished, finish
from autotuner.workloads.programs import ProgramError, check_program, code_of, environment, write_files
from autotuner.workloads.templates import Arguments, Values, fill, fill_arguments, misfit, names_in

_OURS = ("folder", "python")
_TAKEN = frozenset({  # samples that are taken of every workload
    "latency_s", "block_s", "block_step_s", "setup_s", "peak_memory_bytes", "throughput_steps_per_s",
    "throughput_runs_per_s", "run_cpu_s", "run_peak_rss_bytes", "score",
})  # fmt: skip
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


_NEVER_NEGATIVE = ("s", "bytes", "1/s", "J", "W")


class Source(BaseModel):
    """Where a number of a run is found; exactly one of `json`, `pattern`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    json_path: str | None = Field(None, alias="json", description="Keys of a JSON document, as in timing.total_s.")
    pattern: str | None = Field(None, description="A regular expression whose first group is the number.")
    file: str | None = Field(None, description="Of {folder}, or an absolute path; the program's output when left out.")
    scale: float = Field(1.0, gt=0, description="Factor to the unit that the metric's name ends in: 1e-3 for ms.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.json_path is None) == (self.pattern is None):
            raise ValueError("give either json or pattern")
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ValueError(f"the pattern cannot be read: {error}") from None
            if groups < 1:
                raise ValueError(f"the pattern needs a group around the number: ({_NUMBER})")
        return self

    def read(self, text: str) -> float | None:
        """The number; None when it is not there. Of several matches the last counts."""
        if self.pattern is not None:
            found = [*re.finditer(self.pattern, text, re.MULTILINE)]
            return None if not found else self._number(found[-1][1])
        for document in _documents(text):
            value: Any = document
            for key in (self.json_path or "").split("."):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                return self._number(value)
        return None

    def _number(self, value: Any) -> float | None:
        try:
            return float(value) * self.scale
        except (TypeError, ValueError):
            return None


def _documents(text: str) -> Iterator[Any]:
    """The whole text as JSON, else its lines that are, the last first."""
    for part in (text, *reversed(text.splitlines())):
        try:
            yield json.loads(part)
        except ValueError:
            continue


class Command(Workload):
    """Runs a program once for each step."""

    kind: Literal["command"] = "command"
    argv: Arguments = Field(
        min_length=1, description="The program and its arguments; {parameter}, {python} and {folder} are filled in."
    )
    build: tuple[Arguments, ...] = Field((), description="Programs to run once before, as a compiler.")
    env: Mapping[str, str] = Field(default_factory=dict, description="Set in its environment; filled in as well.")
    inherit: tuple[str, ...] = Field((), description="Names in our environment, or patterns, that it may see besides.")
    files: Mapping[str, str] = Field(default_factory=dict, description="Files to write into {folder}; filled in.")
    cwd: Path | None = Field(None, description="Where it runs; ours when left out.")
    metrics: Mapping[str, Source] = Field(
        default_factory=dict, description="What a run says of itself; each name ends in its unit: kernel_s, gain_ratio."
    )
    work: Mapping[str, float] = Field(
        default_factory=dict, description="Amounts of a run, as {samples: 1000}: throughput_samples_per_s."
    )
    ready: str | None = Field(None, description="A pattern: what comes before the first line with it is set-up.")
    outputs: str | None = Field(None, description="A file of numbers, .npy or text, that must stay what it was.")
    exit_codes: tuple[int, ...] = Field((0,), min_length=1, description="Of success.")
    timeout_s: float = Field(300.0, gt=0, description="Of a run.")
    build_timeout_s: float = Field(300.0, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    any_parameter: ClassVar[bool] = True
    countable: ClassVar[bool] = False
    traits: ClassVar[Mapping[str, Trait]] = {
        **dict.fromkeys(("threads", "omp_num_threads"), Trait(acts_on=(Binding.COMPUTE, Binding.MEMORY_BANDWIDTH))),
    }

    @field_validator("metrics")
    @classmethod
    def _have_units(cls, metrics: Mapping[str, Source]) -> Mapping[str, Source]:
        for name in metrics:
            if name in _TAKEN or (name in METRICS and METRICS[name].samples != name):
                raise UsageError(f"metrics: {name} is what autotune measures itself", f"call it own_{name}")
            if name not in METRICS:
                derived_metric(name)
        return metrics

    @field_validator("work")
    @classmethod
    def _are_known(cls, work: Mapping[str, float]) -> Mapping[str, float]:
        for name, amount in work.items():
            if f"throughput_{name}_per_s" not in METRICS or amount <= 0:
                raise ValueError(f"work: {name} is no positive amount of tokens, requests or samples")
        return work

    def preload(self) -> Preload:
        """Nothing: the worker only starts programs."""
        return ()

    def reports(self) -> Mapping[str, Metric]:
        """What runs say of themselves."""
        return {name: METRICS.get(name) or derived_metric(name) for name in self.metrics}

    def trait(self, name: str) -> Trait:
        """As usual names go; live where nothing is built or written with it."""
        return replace(super().trait(name), live=name not in self._building)

    def fixed(self, config: Config) -> frozenset[str]:
        """What is built anew."""
        return self._building & config.keys()

    @cached_property
    def _building(self) -> frozenset[str]:
        return frozenset(names_in([*self.build, self.files, *([self.env] if self.build else [])]))

    def identity(self) -> Mapping[str, str]:
        """The command line as the file has it."""
        return {"model": " ".join(str(part) for part in self.argv if isinstance(part, str))[:120]}

    def sources(self) -> Sequence[Path]:
        """The files that its command lines name, else where they run."""
        return code_of([*self.build, self.argv], self.cwd)

    def check(self) -> None:
        """Whether the folder is there."""
        if self.cwd is not None and not self.cwd.is_dir():
            raise UsageError(f"workload.cwd: there is no folder {self.cwd}")
        if not self.build:  # which may make it
            check_program(self.argv, self.cwd)

    def refuses(self, config: Config) -> str:
        """A name in a text that is no parameter, or a parameter that no text names."""
        return misfit(self._names, config, _OURS, "argv, build, env or files")

    @cached_property
    def _names(self) -> frozenset[str]:
        return self._building.union(names_in([*self.argv, self.env]))

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Write its files and build it."""
        with tempfile.TemporaryDirectory(prefix="autotune-command-") as name:
            folder = Path(name)
            values = {**config, "folder": name, "python": sys.executable}
            write_files(folder, {file: fill(text, values) for file, text in self.files.items()})
            for argv in self.build:
                done = finish(fill_arguments(argv, values), self._environment(values), self.cwd, self.build_timeout_s)
                if done.status != 0:
                    raise ProgramError(f"building failed: {done.error}")
            yield OpenCommand(self, folder, device)

    def _environment(self, values: Values) -> dict[str, str]:
        return environment(self.inherit, {name: fill(text, values) for name, text in self.env.items()})


class OpenCommand:
    """Runs the program."""

    def __init__(self, command: Command, folder: Path, device: str) -> None:
        self._command, self._folder, self._device = command, folder, device
        self._peak_bytes = math.nan

    def warm_up(self, config: Config) -> None:
        """One run: what is read from disk, or compiled and kept, is then there."""
        self.step(config)
        self._peak_bytes = math.nan

    def peak_memory_bytes(self) -> float:
        """The most of the runs since the warm-up; NaN on a GPU, whose memory a program does not tell."""
        return self._peak_bytes if self._device == "cpu" else math.nan

    def step(self, config: Config) -> Step:
        """One run, from its start, or from its first line that says that it is ready, to its end."""
        command = self._command
        values = {**config, "folder": str(self._folder), "python": sys.executable}
        argv, env = fill_arguments(command.argv, values), command._environment(values)
        before = {source.file: _state(self._folder / source.file) for source in command.metrics.values() if source.file}
        done = finish(argv, env, command.cwd, command.timeout_s, ready=command.ready)
        if done.status not in command.exit_codes:
            raise done.error
        for file, state in before.items():
            if state is not None and state == _state(self._folder / file):
                raise ProgramError(f"{file} is as it was before the run: it was not written", "where does it go?")
        metrics = {"run_cpu_s": done.cpu_s} | {
            name: self._read(name, source, done) for name, source in command.metrics.items()
        }
        if not math.isnan(done.peak_rss_bytes):
            metrics["run_peak_rss_bytes"] = done.peak_rss_bytes
            self._peak_bytes = max(done.peak_rss_bytes, 0.0 if math.isnan(self._peak_bytes) else self._peak_bytes)
        return Step({"runs": 1.0, **command.work}, metrics, {"latency_s": (done.duration_s,)}, done.duration_s)

    def _read(self, name: str, source: Source, done: Finished) -> float:
        where, text = "its output", done.stdout
        if source.file is None and source.read(text) is None:
            text = done.text  # some report on stderr
        if source.file is not None:
            path = self._folder / source.file
            where = source.file
            try:
                text = path.read_text(errors="replace")
            except OSError as error:
                raise ProgramError(f"{name}: {source.file} cannot be read: {error.strerror}") from None
        value = source.read(text)
        if value is None or math.isnan(value):
            hint = "look at the log, and at the pattern or the keys"
            raise ProgramError(f"{name}: no number is to be found in {where}", hint)
        unit = metric(name).unit
        if value < 0 and unit in _NEVER_NEGATIVE:
            raise ProgramError(f"{name} is {value:g}", f"what is measured in {unit} cannot be negative")
        return value

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The file of numbers that a run leaves."""
        if self._command.outputs is None:
            return {}
        import numpy as np

        path = self._folder / self._command.outputs
        path.unlink(missing_ok=True)
        self.step(config)
        try:
            array = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=2)
        except (OSError, ValueError) as error:
            raise ProgramError(f"outputs: {path.name} holds no numbers: {error}") from None
        return {"output": np.atleast_2d(array)}


def _state(path: Path) -> tuple[int, int, int] | None:
    """Changes with every write; None where there is no file."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
