"""The four seams: what a third party writes to tune, observe, run or export something new.

A plugin is a frozen pydantic model with one method. Its fields are its options, so that validation, pickling, the
record and the plugin are one class. Built-ins register through the same entry-point groups as everybody else.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from autotuner.errors import UsageError
from autotuner.types import Binding, Config, MeasurementProtocol, Metrics, Outcome, Recommendation, Tier

Preload = tuple[str, ...]


class Plugin(BaseModel):
    """Common to the four: frozen, and a misspelt option is an error.

    Attributes:
        kind: The name of its entry point, and of the plugin in a file; every plugin narrows it to a `Literal`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a workload did.

    Attributes:
        work: Amounts of work, `{"tokens": 32, "requests": 1}`; the recorder turns them into
            `throughput_tokens_per_s` and so on.
        metrics: Values that only the workload can know, kept as samples under their names.
    """

    work: Mapping[str, float]
    metrics: Metrics = field(default_factory=dict)


class OpenWorkload(Protocol):
    """An opened workload: weights are loaded, code may still have to be compiled."""

    def step(self, config: Config) -> Step:
        """Do one unit of work and wait for it, as a client would."""
        ...

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The outputs for fixed inputs, computed the way `step` computes.

        Args:
            config: The configuration in force.
            reference: What the baseline's `outputs` returned, or None for the baseline itself. Generators force the
                reference's tokens, so that both see the same contexts.

        Returns:
            Numpy arrays by name; "logits" [positions, vocabulary] is compared as distributions, names that start
            with "_" are not compared, anything else [vectors, width] is compared as vectors. Empty: nothing to guard.
        """
        ...


class Relievable(Protocol):
    """An opened workload that can be run with less demand for a resource: how a diagnosis is put to the proof."""

    def relieve(self, resource: str, config: Config) -> AbstractContextManager[float] | None:
        """While the context lasts, `step(config)` does the same with less demand for `resource`.

        Only the time of such a step counts, never what it computes; on leaving, all is as before. For example one
        resident batch instead of a loader ("input"), no all-reduce ("communication"), weights that stay in the cache
        ("memory_bandwidth").

        Args:
            resource: A name of `types.Binding`.
            config: The configuration in force.

        Returns:
            A context that yields the share of the demand that is left, 1 when nothing could be taken away; None when
            this workload cannot relieve that resource.
        """
        ...


@dataclass(frozen=True, slots=True)
class Trait:
    """What a workload knows of one of its parameters.

    Attributes:
        live: `step` can take a new value without reopening the workload.
        tier: How far it may move the outputs.
        memory: A larger value needs at least as much memory.
        acts_on: Resources whose demand it changes: what it can help with. Empty: not known, it may help anywhere.
        text: One line for a person.
    """

    live: bool = False
    tier: Tier = Tier.ROUNDING
    memory: bool = False
    acts_on: tuple[Binding, ...] = ()
    text: str = ""


class Workload(Plugin, ABC):
    """A thing to tune.

    Deterministic inputs are part of the contract: the same seed gives the same prompts, samples and arrival times for
    every configuration.
    """

    traits: ClassVar[Mapping[str, Trait]] = {}  # what it knows of the parameters it understands
    any_parameter: ClassVar[bool] = False  # a parameter without a trait is fine, not a misspelling

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

    def identity(self) -> Mapping[str, str]:
        """What is tuned, for the environment fingerprint: model name, hash of its configuration and weights."""
        return {}

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
        relieves: Also probe what relief of this resource does to a step; a name of `types.Binding`, or empty.
        live: Parameters that an opened workload can take over without being reopened.
        trace_parent: W3C trace context of the trial's span; the worker's environment carries it on.
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
    relieves: str = ""
    live: frozenset[str] = frozenset()
    trace_parent: str = ""


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
    """Who uses the result."""

    target_version: ClassVar[str] = ""

    @abstractmethod
    def export(self, recommendation: Recommendation, directory: Path) -> Path:
        """Write the recommendation for a target, atomically, and return the file or folder.

        Raises:
            UsageError: Not verified BETTER and not forced.
            MachineError: The directory cannot be written.
        """


def modules_of(workload: Workload, probes: Sequence[Probe]) -> Preload:
    """What a worker imports to run this: the workload's libraries, and the plugins' own modules."""
    plugins: tuple[Plugin, ...] = (workload, *probes)
    return tuple(dict.fromkeys([*workload.preload(), *(type(plugin).__module__ for plugin in plugins)]))


PluginT = TypeVar("PluginT", bound=Plugin)


def names(group: str) -> Mapping[str, EntryPoint]:
    """Every installed plugin of a group ("workloads", "probes", "executors", "exporters") by name."""
    return {entry.name: entry for entry in entry_points(group=f"autotuner.{group}")}


def load_class(group: str, name: str, base: type[PluginT]) -> type[PluginT]:
    """The class of a plugin.

    Raises:
        UsageError: No plugin of this name; the hint names the nearest.
    """
    installed = names(group)
    if name not in installed:
        near = get_close_matches(name, installed, n=1)
        hint = f"did you mean {near[0]}?" if near else "installed: " + ", ".join(sorted(installed))
        raise UsageError(f"unknown {group.removesuffix('s')} {name!r}", hint)
    loaded = installed[name].load()
    assert isinstance(loaded, type), loaded
    assert issubclass(loaded, base), f"{loaded} is no {base}"
    return loaded
