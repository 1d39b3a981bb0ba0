"""One prediction beside what was measured, and how many of them become a line of the table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from autotuner.metrics import median
from autotuner.monitor.host import HostReader, available_cores, contention
from autotuner.types import Metrics

Result = TypeVar("Result")
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Point:
    """A prediction that had not seen the measurement.

    Attributes:
        model: Which one predicted, as the table names it.
        case: What was measured.
        predicted: In `unit`.
        measured: In `unit`, > 0.
        unit: SI.
        disturbed: Who else used the machine meanwhile, after four attempts; empty when nobody did.
    """

    model: str
    case: str
    predicted: float
    measured: float
    unit: str
    disturbed: str = ""

    @property
    def error_ratio(self) -> float:
        return self.predicted / self.measured - 1


def median_error(points: Sequence[Point]) -> float:
    return median([abs(point.error_ratio) for point in points])


def largest_error(points: Sequence[Point]) -> Point:
    return max(points, key=lambda point: abs(point.error_ratio))


def quietly(measure: Callable[[], Result]) -> tuple[Result, Metrics, str]:
    """Measure until nobody disturbs it: the quietest of four, the host's signals, and who disturbed it even so."""
    found: list[tuple[float, Result, Metrics]] = []
    for _ in range(ATTEMPTS):
        host = HostReader()
        result = measure()
        seen = host.read()
        found.append((taken_ratio(seen), result, seen))
        if not contention(seen):
            break
    _, result, seen = min(found, key=lambda attempt: attempt[0])
    return result, seen, contention(seen)


def taken_ratio(seen: Metrics) -> float:
    """What other processes and other virtual machines took of the cores."""
    return seen.get("cpu_foreign_ratio", 0.0) + seen.get("cpu_steal_ratio", 0.0)


def free_cores(seen: Metrics) -> float:
    """What others, and this process without its children, left of the cores that it may use."""
    return available_cores() * max(0.05, 1 - taken_ratio(seen) - seen.get("cpu_main_ratio", 0.0))
