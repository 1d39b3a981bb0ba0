"""What an opened workload does: it steps, and may have more to offer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from autotuner.types import Config, Metrics


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a workload did.

    Attributes:
        work: Amounts of work, `{"tokens": 32, "requests": 1}`; the recorder turns them into
            `throughput_tokens_per_s` and so on.
        metrics: Values that only the workload can know, kept as samples under their names.
        samples: The same, of which a step has many, as the latencies of all requests that it sent; inf is what never
            came. With `latency_s` among them the step's own time is none.
        duration_s: What the work took, where that is not all of the step's time; None: all of it.
    """

    work: Mapping[str, float]
    metrics: Metrics = field(default_factory=dict)
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    duration_s: float | None = None


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


class Paced(Protocol):
    """An opened workload that works by itself between steps, as one with a loader's worker processes does."""

    def cycle_steps(self, config: Config) -> int:
        """After how many steps their pattern repeats; a timed block holds whole cycles.

        With n loader workers that cannot keep up, one step waits for all of them and n - 1 find their batch ready.
        """
        ...

    def idle(self) -> None:
        """No step follows soon: stop what would go on by itself, and drop what was prepared ahead.

        Or the next window would begin with a full queue, and the other arm of a comparison would pay for filling it.
        """
        ...


class Uneven(Protocol):
    """An opened workload whose steps take turns between fast and slow in a pattern that nobody knows.

    A loop that accumulates gradients, logs now and then or begins a new epoch: of its blocks the median would be that
    of the more frequent kind. So all of their work counts over all of their time.
    """

    uneven: bool


class Warming(Protocol):
    """An opened workload that gets warm by itself, faster than by steps, as a server does by a few requests."""

    def warm_up(self, config: Config) -> None:
        """Make `config` ready to be measured; no step is taken for that."""
        ...


class Accounting(Protocol):
    """An opened workload that knows what it needed, since it runs processes that are gone when one could look."""

    def peak_memory_bytes(self) -> float:
        """Of the device that computes, since it was warm; NaN where it does not know."""
        ...


class Delegating(Protocol):
    """An opened workload whose work is done by other processes than this one: theirs is the memory that counts."""

    def processes(self) -> Sequence[int]:
        """Their ids, of those that live."""
        ...


class Sized(Protocol):
    """An opened workload whose steps differ in size, and with it in memory."""

    def worst_step(self, config: Config) -> Step:
        """A step on the largest input that the data and the options can give, untimed."""
        ...


class Characterised(Protocol):
    """An opened workload that knows more of itself than a step shows."""

    def characteristics(self, config: Config) -> Mapping[str, Sequence[float]]:
        """Raw values of what depends on the task and not on the configuration, as the noise of its gradients does.

        Asked of the baseline once, untimed; kept among the samples of its measurement.
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
