"""A service that is kept tuned: what should serve, and where the way to something better stands."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Phase(StrEnum):
    """What the daemon is doing with a service."""

    WATCHING = "watching"
    TUNING = "tuning"
    APPROVAL = "approval"  # waits for a person
    CANARY = "canary"
    PROMOTING = "promoting"
    PROBATION = "probation"  # promoted, and compared with what it replaced
    ROLLING_BACK = "rolling_back"
    ALARM = "alarm"  # the way back failed: only a person goes on


@dataclass(frozen=True, slots=True)
class Deployment:
    """What should serve. Bundles are named by the hash of their files.

    Attributes:
        stable: The bundle that serves.
        candidate: The one beside it; empty for none.
        percent: Share of the traffic that the candidate gets, 0 to 100.
    """

    stable: str
    candidate: str = ""
    percent: int = 0


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Everything that the daemon knows of a service, as the newest entry of its journal says.

    Attributes:
        phase: What it is doing.
        wanted: What should serve. It is written down before anybody is told to change anything.
        reached: It was put in place, and read back.
        last_good: The bundle to go back to.
        previous: The one before it, to which a person may go back; empty for none.
        candidate: What is being tried, or was; empty for nothing.
        step: Of the canary, from 0.
        cycle: How many times something was tried.
        study: Of this cycle, by its name in the record; empty until it is decided, before the study begins.
        frozen: Somebody wants no change for the better; the way back stays open.
        since: When the phase began (UTC).
        reason: Why, in one sentence.
        heard: Number of the newest entry of what people said that was taken notice of.
    """

    phase: Phase
    wanted: Deployment
    reached: bool
    last_good: str
    since: datetime
    reason: str
    previous: str = ""
    candidate: str = ""
    step: int = 0
    cycle: int = 0
    study: str = ""
    frozen: bool = False
    heard: int = 0
