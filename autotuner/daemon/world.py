"""What a keeper is given: the world that it asks and changes, and the terms on which it may."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from autotuner.daemon.machine import Plan
from autotuner.daemon.sources import Read
from autotuner.daemon.watching import Pauses
from autotuner.spec.expressions import Limit
from autotuner.types import CanaryRules, Deployment, Guard, ServiceState, Window

LEASE_S = 30.0


class StudyError(Exception):
    """The study of a cycle could not be run; says why, in one sentence."""


def _no_evidence(state: ServiceState, stop: Callable[[], bool]) -> Mapping[str, Any]:
    return {}


def _keep_all(needed: Collection[str]) -> None:
    return


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside that a keeper asks or changes; a test gives a simulated one.

    Attributes:
        clock: UTC.
        first: The bundle of what serves today, for a service that is met for the first time.
        observe: What serves now. Raises HookError.
        place: Puts a deployment in place and reads it back, for the holder of a token. Raises HookError.
        read: Every signal of the service.
        environment: Of the machine that serves. Raises HookError.
        pause: Waits so many seconds.
        damage: Why a bundle cannot be put in place; empty when it can.
        name: A name that no study has yet, for the study of a cycle.
        tune: Runs the study of a cycle, `state.study`, to its end, or takes it up, for as many seconds at most; the
            candidate's bundle, empty for none, and why. None when it was told to stop: it is taken up another time.
            Raises StudyError.
        window: Measures both arms once, side by side: what serves stably, and the one beside it.
        alert: The journal may hold what somebody has to know and nobody was told: have it told. Returns at once.
        collect: What can be found out of why a cycle has begun, before anything is changed: names and values, or files.
        tidy: Only these bundles are needed any more.
        devices: How many a study uses at once.
    """

    clock: Callable[[], datetime]
    first: Callable[[], str]
    observe: Callable[[], Deployment]
    place: Callable[[Deployment, int], None]
    read: Callable[[], Mapping[str, Read]]
    environment: Callable[[], Mapping[str, str]]
    tune: Callable[[ServiceState, float, Callable[[], bool]], tuple[str, str] | None]
    window: Callable[[], Window]
    alert: Callable[[], None]
    collect: Callable[[ServiceState, Callable[[], bool]], Mapping[str, Any]] = _no_evidence
    tidy: Callable[[Collection[str]], None] = _keep_all
    devices: Callable[[], int] = lambda: 1
    name: Callable[[int], str] = str
    damage: Callable[[str], str] = lambda bundle: ""
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Terms:
    """What the user wants of a service.

    Attributes:
        aim: What a candidate must be better at.
        guards: What it must not be worse at.
        plan: How a candidate is brought in.
        rules: How strictly it is judged.
        probation: The same after the promotion.
        pauses: When nothing is begun.
        lease_s: So long after the last sign of life of one daemon another may take over.
        dry_run: Everything is looked at and decided, and nothing is ever put in place.
        levels: Of the service: a candidate that breaks one which the other keeps is taken back at once.
        breaches: So many windows in a row break a level.
        warm_up_windows: The first windows after each change, which count for nothing.
        back_s: So long the way back is tried before it has failed.
    """

    aim: Guard
    guards: Sequence[Guard] = ()
    plan: Plan = field(default_factory=Plan)
    rules: CanaryRules = field(default_factory=CanaryRules)
    probation: CanaryRules = field(default_factory=lambda: CanaryRules(most_windows=32))
    pauses: Pauses = field(default_factory=Pauses)
    lease_s: float = LEASE_S
    dry_run: bool = False
    levels: Sequence[Limit] = ()
    breaches: int = 3
    warm_up_windows: int = 0
    back_s: float = 60.0
