"""The profile of one configuration as a value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from autotuner.analyze.flame import Stack
from autotuner.analyze.nsight import Counters, NsysTables
from autotuner.analyze.trace import TraceSummary
from autotuner.types import Config, Metrics


@dataclass(frozen=True, slots=True)
class Thread:
    """What a thread of the workload's process used of the CPU while steps ran without a profiler.

    Attributes:
        name: As the kernel knows it.
        main: It ran the steps.
        cpu_ratio: CPU seconds a second.
    """

    name: str
    main: bool
    cpu_ratio: float


@dataclass(frozen=True, slots=True)
class CpuUse:
    """Who used the CPU while steps ran without a profiler.

    Attributes:
        threads: Of the workload's process, the main one first, then the busiest.
        workers_ratio: CPU seconds a second of all processes that it had started.
        intraop_threads: How many threads one operator may use, as torch was told.
    """

    threads: tuple[Thread, ...] = ()
    workers_ratio: float = 0.0
    intraop_threads: int = 1

    @property
    def main_ratio(self) -> float:
        """CPU seconds a second of the main thread."""
        return sum(thread.cpu_ratio for thread in self.threads if thread.main)

    @property
    def process_ratio(self) -> float:
        """CPU seconds a second of all threads of the workload's process: how many cores worked for it."""
        return sum(thread.cpu_ratio for thread in self.threads)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A known way to waste time, and what shows that it is at work here.

    Attributes:
        name: For programs.
        title: What it is, for a person.
        evidence: The numbers that show it.
        advice: What to try.
        source: Where the threshold comes from.
        share_ratio: Share of the profiled time that it concerns, at most; 0 when nothing is known.
    """

    name: str
    title: str
    evidence: str
    advice: str
    source: str
    share_ratio: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of one configuration goes.

    Attributes:
        name: Of the study.
        config: What was run.
        baseline: What is in use today.
        device: "cpu" or "cuda".
        machine: One line for a person.
        started_at: UTC.
        step_s: Median time of a step without any profiler.
        step_precision_ratio: Half-width of its 95 % interval, relative to it.
        throughputs: Work a second without any profiler, by sample name.
        contended: Who else used the machine meanwhile; empty when nobody did.
        profiled_step_s: Mean time of a step under torch.profiler.
        trace: What its trace says.
        cpu: Who used the CPU.
        stacks: What py-spy saw, host process and the processes that it had started.
        samples_per_s: How often it looked.
        nsys: Tables of Nsight Systems; None where it did not run.
        ncu: Counters of Nsight Compute.
        patterns: Known ways to waste time that are at work, most concerning first.
        notes: What could not be done and why, one line each.
        commands: What was or can be typed to run NVIDIA's profilers, by tool.
        folder: Where the files are.
        files: What was written there, by kind.
    """

    name: str
    config: Config
    baseline: Config
    device: str
    machine: str
    started_at: datetime
    step_s: float
    step_precision_ratio: float
    throughputs: Metrics
    contended: str
    profiled_step_s: float
    trace: TraceSummary
    cpu: CpuUse
    stacks: tuple[Stack, ...] = ()
    samples_per_s: float = 0.0
    nsys: NsysTables | None = None
    ncu: tuple[Counters, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    notes: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def slowdown_ratio(self) -> float:
        """How many times longer a step takes under torch.profiler."""
        return self.profiled_step_s / self.step_s
