"""What a page of a service shows, as plain values: it knows neither the journal nor the daemon."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from autotuner.types import Estimate, Metrics, Value


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One line of the list of services.

    Attributes:
        name: Of the service.
        phase: What the daemon is doing with it.
        serves: By which bundles.
        since: When the phase began (UTC).
        reason: Why, in one sentence.
    """

    name: str
    phase: str
    serves: str
    since: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Decided:
    """One thing that was decided, said or told.

    Attributes:
        at: UTC.
        kind: "state" for a new state, else what happened.
        text: In one sentence.
        gains: Where the judge of a canary spoke: factor in the direction of improvement, with the proof's interval.
    """

    at: datetime
    kind: str
    text: str
    gains: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison of two arms, window by window.

    Attributes:
        title: Which: "canary, 10 % of the traffic".
        since: When it began (UTC).
        steady: Who serves stably; `windows` have it first.
        beside: Who stands beside it.
        windows: Numbers of both arms in order of time; what is missing there was not measured.
    """

    title: str
    since: datetime
    steady: str
    beside: str
    windows: Sequence[tuple[Metrics, Metrics]]


@dataclass(frozen=True, slots=True)
class ServiceStory:
    """A service from its journal.

    Attributes:
        row: What it is at.
        facts: The newest state, as names and values.
        decided: The newest first.
        compared: Of the newest candidate, the newest first.
    """

    row: ServiceRow
    facts: Mapping[str, Value]
    decided: Sequence[Decided]
    compared: Sequence[Compared]
