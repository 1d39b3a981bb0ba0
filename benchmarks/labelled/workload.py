"""The workload that the suite measures: parts, one after the other."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field

from autotuner.plugins import OpenWorkload, Preload, Step, Trait, Workload
from autotuner.types import Binding, Config
from labelled import holding, host, idle, inputs, links, operations
from labelled.part import Part, PartSpec

PARTS: Mapping[str, Callable[..., Part]] = {
    "matmul": operations.matmul,
    "conv2d": operations.conv2d,
    "attention": operations.attention,
    "dense": operations.dense,
    "encoder": operations.encoder,
    "stream": operations.stream,
    "rows": operations.rows,
    "gather": operations.gather,
    "calls": host.Calls,
    "loader": inputs.Loader,
    "collective": links.Collective,
    "parameter_sync": links.ParameterSync,
    "odd": idle.Odd,
    "batch": holding.Batch,
}

# What the parts' demands for a resource are counted in, to weigh the parts of a mixture against each other.
DEMANDS = {"compute": "flops", "memory_bandwidth": "bytes", "host_launch": "operations"}


class Labelled(Workload):
    """Runs its parts in order; nothing in its options says what binds it."""

    kind: Literal["labelled"] = "labelled"
    parts: tuple[PartSpec, ...]
    tells: bool = Field(
        False, description="Report each part's time and demands: for checks, never where one diagnoses."
    )

    reliefs: ClassVar[tuple[Binding, ...]] = (
        Binding.INPUT, Binding.HOST_LAUNCH, Binding.MEMORY_BANDWIDTH, Binding.COMPUTE, Binding.COMMUNICATION,
    )  # fmt: skip
    any_parameter: ClassVar[bool] = True
    traits: ClassVar[Mapping[str, Trait]] = {"batch_size": Trait(live=True, memory=True)}

    def preload(self) -> Preload:
        """Torch, what its loaders need, and what counting and tracing import when they begin."""
        return (
            "torch", "torch.utils.data", "torch.distributed", "torch.utils.flop_counter", "torch._dynamo",
            "torch.profiler",
        )  # fmt: skip

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Open the parts; those that fork come first, before torch starts threads."""
        parts: dict[int, Part] = {}
        order = sorted(range(len(self.parts)), key=lambda i: not getattr(PARTS[self.parts[i].what], "forks", False))
        with ExitStack() as stack:
            for number in order:
                spec = self.parts[number]
                part = parts[number] = PARTS[spec.what](device, spec.amount, **spec.options)
                stack.enter_context(part.opened())
            yield OpenLabelled([parts[number] for number in range(len(parts))], device, tells=self.tells)


class OpenLabelled:
    """The opened parts."""

    def __init__(self, parts: list[Part], device: str, *, tells: bool = False) -> None:
        self.parts, self._device = parts, device
        self._tells = tells

    def step(self, config: Config) -> Step:
        """One round of the parts."""
        metrics: dict[str, float] = {}
        for number, part in enumerate(self.parts):
            began_s = time.perf_counter()
            for name, value in part.run(config).items():
                metrics[name] = metrics.get(name, 0.0) + value
            if self._tells:
                self._wait()
                metrics[f"part_{number}_s"] = time.perf_counter() - began_s
                metrics |= {f"part_{number}_{name}": value for name, value in part.demands().items()}
        self._wait()
        return Step({"samples": float(config.get("batch_size", 1) or 1)}, metrics)

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Nothing to compare."""
        return {}

    def relieve(self, resource: str, config: Config) -> AbstractContextManager[float] | None:
        """Relieve every part that knows how."""
        reliefs = [(part, relief) for part in self.parts if (relief := part.relieve(resource)) is not None]
        if not reliefs:
            return None
        weights = [part.demands().get(DEMANDS.get(resource, ""), 1.0) for part, _ in reliefs]
        staying = sum(part.demands().get(DEMANDS.get(resource, ""), 0.0) for part in self.parts) - sum(weights)
        return _together([relief for _, relief in reliefs], weights, max(0.0, staying))

    def _wait(self) -> None:
        if self._device != "cpu":
            import torch

            torch.cuda.synchronize()


@contextmanager
def _together(reliefs: list[AbstractContextManager[float]], weights: list[float], staying: float) -> Iterator[float]:
    """Enter all; yields the share of the whole demand that is left, with `staying` the demand of the unrelieved."""
    with ExitStack() as stack:
        left = sum(weight * stack.enter_context(relief) for weight, relief in zip(weights, reliefs, strict=True))
        yield (left + staying) / (sum(weights) + staying)
