"""What every part of a labelled step has in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from autotuner.types import Config, Metrics, Value


class PartSpec(BaseModel):
    """A part as a workload's options name it.

    Attributes:
        what: Name of the part in `workload.PARTS`.
        amount: How many of its units a step does.
        options: Arguments of the part.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    amount: int = Field(1, ge=1)
    options: Mapping[str, Value] = {}


class Part(ABC):
    """One kind of work; its time grows with `amount`."""

    forks: ClassVar[bool] = False  # it starts processes, and must be opened before torch has started threads

    def __init__(self, device: str, amount: int) -> None:
        self.device, self.amount = device, amount

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Whatever the part holds while the workload is open."""
        yield

    @abstractmethod
    def run(self, config: Config) -> Metrics:
        """Do `amount` units; what only the part can know comes back as metrics."""

    def relieve(self, resource: str) -> AbstractContextManager[float] | None:
        """Run with less demand for a resource; yields the share of the demand that is left, as a workload does."""
        return None

    def demands(self) -> Mapping[str, float]:
        """What `amount` units ask of the machine, by construction: `flops`, `bytes`, `operations`; for the checks."""
        return {}


@contextmanager
def swapped(target: Any, left_ratio: float, **attributes: Any) -> Iterator[float]:
    """While the context lasts, `target` has other attributes; yields `left_ratio`."""
    before = {name: getattr(target, name) for name in attributes}
    for name, value in attributes.items():
        setattr(target, name, value)
    try:
        yield left_ratio
    finally:
        for name, value in before.items():
            setattr(target, name, value)
