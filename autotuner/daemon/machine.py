"""The states of a service and what leads from one to the next: a pure function, and the only one that decides.

Whatever happens is an event; `advance` says what the service should look like afterwards. Nothing is done here: what is
wanted is written down first, then put in place and read back, and that it was is an event too. So a daemon that died
anywhere finds in its journal what it has to do.

Only a PASS leads to promotion, every step of the traffic needs its own, and from every state a way leads back to the
last good bundle. When that way fails, nothing is tried any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from autotuner.types import CanaryVerdict, Deployment, Phase, Ruling, ServiceState


@dataclass(frozen=True, slots=True)
class Triggered:
    """Something asks for tuning."""

    reason: str


@dataclass(frozen=True, slots=True)
class Named:
    """The study of the cycle is about to begin under this name: whatever else is called so is another study."""

    study: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """A study has ended; `candidate` is empty when nothing better was proven."""

    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Approved:
    """Somebody lets the canary begin."""

    by: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Somebody does not."""

    by: str


@dataclass(frozen=True, slots=True)
class Ruled:
    """The judge has looked, and would not change its mind."""

    verdict: CanaryVerdict


@dataclass(frozen=True, slots=True)
class Reached:
    """What is wanted was put in place, read back, and answers."""


@dataclass(frozen=True, slots=True)
class Missed:
    """It was not, within its deadline; the way back was tried for as long as that, again and again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Recalled:
    """Back to the last good bundle: a person says so, or the service broke its level on the way."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """A person has looked at the alarm: the way back is tried again, or `instead` where its bundle is lost."""

    by: str
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Froze:
    """No change for the better until it thaws; what was tried already may still be taken back."""

    by: str


@dataclass(frozen=True, slots=True)
class Thawed:
    """Changes are welcome again."""

    by: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Nothing comes of what a person said, and why."""

    word: str
    by: str
    why: str


Happening: TypeAlias = (
    Triggered | Named | Tuned | Approved | Refused | Ruled | Reached | Missed | Recalled | Cleared | Froze | Thawed
    | Dropped
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """How a candidate is brought in.

    Attributes:
        percents: Shares of the traffic in order, each to be passed; below 100, which is the promotion itself.
        approval: A person lets every canary begin.
    """

    percents: Sequence[int] = (10, 50)
    approval: bool = False


def begin(stable: str, at: datetime) -> ServiceState:
    """A service that is met for the first time: its own bundle is put in place first, so that there is a way back."""
    return ServiceState(Phase.WATCHING, Deployment(stable), False, stable, at, "the daemon met the service")


def advance(state: ServiceState, event: Happening, plan: Plan, at: datetime) -> ServiceState:
    """What comes of an event; the same state when it does not matter there.

    Args:
        state: Where the service is.
        event: What happened.
        plan: How candidates are brought in.
        at: Now, UTC.
    """
    match event:
        case Froze():
            return replace(state, frozen=True)
        case Thawed():
            return replace(state, frozen=False)
    if state.phase in (Phase.WATCHING, Phase.TUNING, Phase.APPROVAL):
        return _at_rest(state, event, plan, at)
    return _under_way(state, event, plan, at)


def rejected(before: ServiceState, event: Happening, after: ServiceState) -> str:
    """The bundle that is not to be tried again where it was tried; empty for none.

    It was proven worse, could not be put in place, broke a level, or a person does not want it. What was only not
    proven better, or had no numbers, may be tried again.
    """
    if after.phase is before.phase:
        return ""
    match event:
        case Ruled(verdict):
            return after.candidate if verdict.ruling is Ruling.FAIL else ""
        case Missed():
            return after.candidate if before.phase in (Phase.CANARY, Phase.PROMOTING, Phase.PROBATION) else ""
        case Recalled() | Refused():
            return after.candidate
        case _:
            return ""


def _at_rest(state: ServiceState, event: Happening, plan: Plan, at: datetime) -> ServiceState:
    """Nothing but the last good bundle serves."""
    match state.phase, event:
        case (Phase.WATCHING, Triggered()) | (Phase.APPROVAL, Approved()) if state.frozen:
            return state
        case Phase.WATCHING, Triggered(reason):
            return _enter(state, Phase.TUNING, at, reason, cycle=state.cycle + 1, study="", candidate="", step=0)
        case Phase.TUNING, Named(study):
            return replace(state, study=study)
        case Phase.TUNING, Tuned("", reason):
            return _enter(state, Phase.WATCHING, at, reason)
        case Phase.TUNING, Tuned(candidate, reason) if candidate == state.last_good:
            return _enter(state, Phase.WATCHING, at, f"{reason}; but {candidate} serves already")
        case Phase.TUNING, Tuned(candidate, reason):
            tried = replace(state, candidate=candidate, step=0)
            if plan.approval or state.frozen:
                return _enter(tried, Phase.APPROVAL, at, f"{reason}; somebody has to approve it")
            return _canary(tried, plan, at, reason)
        case Phase.APPROVAL, Approved(by):
            return _canary(state, plan, at, f"approved by {by}")
        case Phase.APPROVAL, Refused(by):
            return _enter(state, Phase.WATCHING, at, f"refused by {by}")
        case ((Phase.TUNING | Phase.APPROVAL), Recalled(reason)):
            return _enter(state, Phase.WATCHING, at, reason)
        case Phase.WATCHING, Recalled(reason) if state.previous:
            return _back(replace(state, candidate=state.last_good, last_good=state.previous, previous=""), at, reason)
        case _, Missed(reason):
            return _back(state, at, reason)
        case _, Reached():
            return replace(state, reached=True)
        case _:
            return state


def _under_way(state: ServiceState, event: Happening, plan: Plan, at: datetime) -> ServiceState:
    """Something else serves, or serves beside it, or is being taken back."""
    match state.phase, event:
        case ((Phase.CANARY | Phase.PROMOTING | Phase.PROBATION), (Missed(reason) | Recalled(reason))):
            return _back(state, at, reason)
        case Phase.CANARY, Ruled(verdict) if state.reached:
            return _judged(state, verdict, plan, at)
        case Phase.PROBATION, Ruled(verdict) if state.reached:
            return _confirmed(state, verdict, at)
        case Phase.PROMOTING, Reached():
            beside = Deployment(state.candidate, state.last_good, min(plan.percents))
            return _enter(state, Phase.PROBATION, at, "promoted; compared with what it replaced", wanted=beside)
        case Phase.ROLLING_BACK, Reached():
            back = replace(state, reached=True)
            return _enter(back, Phase.WATCHING, at, f"back at the last good one: {state.reason}")
        case Phase.ROLLING_BACK, Missed(reason):
            return _enter(state, Phase.ALARM, at, f"the way back failed: {reason}")
        case Phase.ALARM, Cleared(by, ""):
            return _back(state, at, f"{by} has looked at it")
        case Phase.ALARM, Cleared(by, instead):
            text = f"{by} has looked at it, and {state.last_good} is lost: {instead} instead"
            return _back(replace(state, last_good=instead, previous=""), at, text)
        case _, Reached():
            return replace(state, reached=True)
        case _:
            return state


def _canary(state: ServiceState, plan: Plan, at: datetime, reason: str) -> ServiceState:
    wanted = Deployment(state.last_good, state.candidate, plan.percents[state.step])
    return _enter(state, Phase.CANARY, at, reason, wanted=wanted)


def _judged(state: ServiceState, verdict: CanaryVerdict, plan: Plan, at: datetime) -> ServiceState:
    if verdict.ruling is not Ruling.PASS:
        return _back(state, at, f"{verdict.ruling}: {verdict.reason}")
    if state.frozen:
        return state
    if state.step + 1 < len(plan.percents):
        return _canary(replace(state, step=state.step + 1), plan, at, f"{verdict.ruling}: {verdict.reason}")
    return _enter(state, Phase.PROMOTING, at, f"{verdict.ruling}: {verdict.reason}", wanted=Deployment(state.candidate))


def _confirmed(state: ServiceState, verdict: CanaryVerdict, at: datetime) -> ServiceState:
    """The new one against the old one, with the old one's place and the new one's turned round."""
    if verdict.ruling in (Ruling.FAIL, Ruling.ERROR):
        return _back(state, at, f"in probation, {verdict.ruling}: {verdict.reason}")
    kept = replace(state, previous=state.last_good, last_good=state.candidate)
    text = f"it stays: {verdict.reason}"
    return _enter(kept, Phase.WATCHING, at, text, wanted=Deployment(state.candidate))


def _back(state: ServiceState, at: datetime, reason: str) -> ServiceState:
    return _enter(state, Phase.ROLLING_BACK, at, reason, wanted=Deployment(state.last_good))


def _enter(state: ServiceState, phase: Phase, at: datetime, reason: str, **changes: object) -> ServiceState:
    """Another phase; what is newly wanted is not reached yet."""
    entered = replace(state, phase=phase, since=at, reason=reason, **changes)  # type: ignore[arg-type]
    return entered if entered.wanted == state.wanted else replace(entered, reached=False)
