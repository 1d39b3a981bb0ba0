"""The four base classes, and the job that passes between them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from pydantic import BaseModel, ConfigDict

from autotuner.metrics import Metric
from autotuner.plugins.opened import OpenWorkload
from autotuner.types import Binding, Check, Config, Draft, MeasurementProtocol, Metrics, Outcome, Recommendation, Tier

Preload = tuple[str, ...]


class Plugin(BaseModel):
    """Common to the four: frozen, and a misspelt option is an error.

    Attributes:
        kind: The name of its entry point, and of the plugin in a file; every plugin narrows it to a `Literal`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str


@dataclass(frozen=True, slots=True)
class Trait:
    """What a workload knows of one of its parameters.

    Attributes:
        live: `step` can take a new value without reopening the workload.
        tier: How far it may move the outputs.
        memory: A larger value needs at least as much memory.
        acts_on: Resources whose demand it changes: what it can help with. Empty: not known, it may help anywhere.
        needs_gpu: It does nothing on a CPU, where it keeps its default.
        text: One line for a person.
    """

    live: bool = False
    tier: Tier = Tier.ROUNDING
    memory: bool = False
    acts_on: tuple[Binding, ...] = ()
    needs_gpu: bool = False
    text: str = ""


class Workload(Plugin, ABC):
    """A thing to tune.

    Deterministic inputs are part of the contract: the same seed gives the same prompts, samples and arrival times for
    every configuration.
    """

    traits: ClassVar[Mapping[str, Trait]] = {}  # what it knows of the parameters it understands
    any_parameter: ClassVar[bool] = False  # a parameter without a trait is fine, not a misspelling
    countable: ClassVar[bool] = True  # its steps compute in this process, where operations and bytes can be counted

    def trait(self, name: str) -> Trait:
        """What it knows of a parameter."""
        return self.traits.get(name, Trait())

    @property
    def sized(self) -> bool:
        """Whether its steps differ in memory, and what it opens has, or may have, a `worst_step`: see `Sized`."""
        return False

    @abstractmethod
    def open(self, config: Config, device: str) -> AbstractContextManager[OpenWorkload]:
        """Load what `config` needs on `device` ("cpu" or "cuda") and yield something that can step.

        Raises:
            UnsupportedError: This machine or these versions cannot run `config`.
            InvalidConfigError: No machine could.
        """

    def preload(self) -> Preload:
        """Modules that the fork server imports once, so that a fresh worker need not. Must touch no GPU."""
        return ()

    def fixed(self, config: Config) -> frozenset[str]:
        """Live parameters that this configuration makes fixed, as code compiled for one batch size does."""
        return frozenset()

    def ranks(self, config: Config) -> int:
        """Processes that run `config` together, each with a device of its own.

        Each opens the workload with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT in its environment, as
        torchrun sets them, and takes every step with the others. What rank 0 returns counts, for all of them.
        """
        return 1

    def refuses(self, config: Config) -> str:
        """Why no machine could run `config`, in words; empty when one could. What is refused is never proposed."""
        return ""

    def lacks(self, metric: str) -> str:
        """What must be said so that it reports a metric of the table: "slo: {latency_s: 200 ms}"; empty if nothing."""
        return ""

    def reports(self) -> Mapping[str, Metric]:
        """Metrics of its own, besides those of the table."""
        return {}

    def identity(self) -> Mapping[str, str]:
        """What is tuned, for the environment fingerprint: model name, hash of its configuration and weights."""
        return {}

    def sources(self) -> Sequence[Path]:
        """Files or folders of the user's own code that it runs, as far as its options tell; empty for none."""
        return ()

    def check(self) -> None:
        """Look, without loading anything heavy, whether this can work at all.

        Raises:
            UsageError: A path that does not exist, an option that contradicts another.
        """


class ProbeReader(Protocol):
    """An opened probe."""

    def read(self) -> Metrics:
        """What was seen since the last read, by signal name; empty when there is nothing to see here."""
        ...


class Probe(Plugin, ABC):
    """An observer. Costs under 1 %: reads outside the timed region, or on its own thread at <= 10 Hz."""

    @abstractmethod
    def open(self, device: str) -> AbstractContextManager[ProbeReader]:
        """Start observing `device`. A missing device means no metrics, not an error."""


@dataclass(frozen=True, slots=True)
class Rank:
    """The place of a process in the group that runs a trial.

    Attributes:
        number: From 0, which measures; the others step along.
        count: Processes of the group.
        port: On this host's loopback, where they meet.
    """

    number: int = 0
    count: int = 1
    port: int = 0


@dataclass(frozen=True, slots=True)
class Rival:
    """What the best so far reached: what is surely behind it need not be measured to the end.

    Attributes:
        metric: A rate of work, of which every block is a sample, as `throughput_tokens_per_s`.
        value: Its value > 0.
    """

    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is asked to do. Frozen and picklable, without a live object.

    Attributes:
        workload: What to run.
        config: With which parameters.
        protocol: How to measure.
        probes: What to observe meanwhile.
        device: "cpu", or "cuda" (the executor has chosen and hidden the others by then).
        launch: Jobs of one launch may share a process, and share the opened workload while only live parameters
            differ. A new name is a fresh process.
        exclusive: Close every other launch first: what shares the device's memory must not stand beside it.
        log_path: Where the worker's output goes.
        reference_path: The baseline's outputs; written when `writes_reference`, else compared with if it exists.
        writes_reference: This job is the baseline.
        counts: Also count operations, FLOPs and bytes of one untimed step.
        proves_memory: Only take the largest steps that there are, as many as `protocol.min_blocks`.
        relieves: Also probe what relief of this resource does to a step; a name of `types.Binding`, or empty.
        rival: The best so far: once this is surely far behind, measuring ends early.
        live: Parameters that an opened workload can take over without being reopened.
        trace_parent: W3C trace context of the trial's span; the worker's environment carries it on.
        rank: Of the process that gets this job; filled in by the executor.
    """

    workload: Workload
    config: Config
    protocol: MeasurementProtocol
    probes: tuple[Probe, ...] = ()
    device: str = "cpu"
    launch: str = "search"
    exclusive: bool = False
    log_path: Path | None = None
    reference_path: Path | None = None
    writes_reference: bool = False
    counts: bool = False
    proves_memory: bool = False
    relieves: str = ""
    rival: Rival | None = None
    live: frozenset[str] = frozenset()
    trace_parent: str = ""
    rank: Rank = Rank()


class WorkerPool(Protocol):
    """An opened executor."""

    slots: int

    def submit(self, job: Job) -> "Future[Outcome]":
        """Start a job when a slot is free. The future never carries an exception of the workload's."""
        ...

    def close(self, launch: str) -> None:
        """End the processes of a launch; unknown names are fine."""
        ...


class Executor(Plugin, ABC):
    """Where jobs run."""

    @abstractmethod
    def open(self, preload: Sequence[str] = ()) -> AbstractContextManager[WorkerPool]:
        """Get ready to run jobs; on leaving, every process that a job started is gone."""


class Exporter(Plugin, ABC):
    """Who uses the result: makes of a configuration what a target reads.

    It only draws: what may be exported is decided, and what is drawn is written, in one place for all targets. The
    same configuration gives the same bytes, and nothing comes from our environment.

    Attributes:
        target_version: What it writes for.
        needs: Which studies it can be used for, in a few words.
        deploys: Somebody runs what it says. What only shows trials takes any study, verified or not.
    """

    target_version: ClassVar[str] = ""
    needs: ClassVar[str] = "any study"
    deploys: ClassVar[bool] = True

    @abstractmethod
    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        """The files that make the target run `config`: the recommended configuration, or the one to go back to.

        Raises:
            UsageError: The target cannot be told anything of this study.
        """

    def checks(self) -> Sequence[Check]:
        """Programs of the target's own that read the files; run only when somebody asks."""
        return ()
