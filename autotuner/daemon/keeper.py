"""Keeps one service tuned, turn by turn. A turn that is cut off anywhere is taken up by the next: all that is known is
in the journal, and everything that a turn does to the world may be done again.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from autotuner.analyze.canary import judge_canary
from autotuner.daemon.hooks import HookError
from autotuner.daemon.machine import (
    Approved,
    Cleared,
    Froze,
    Happening,
    Missed,
    Plan,
    Reached,
    Recalled,
    Refused,
    Ruled,
    Thawed,
    Triggered,
    Tuned,
    advance,
    begin,
)
from autotuner.daemon.sources import Read
from autotuner.daemon.watching import Pauses, Watch
from autotuner.errors import MachineError
from autotuner.store.journal import Entry, Journal, LeaseLostError
from autotuner.types import CanaryRules, Deployment, Guard, Phase, Ruling, ServiceState, Window

LEASE_S = 30.0
_KEPT = 1000  # entries of each kind
SAID = ("approve", "refuse", "rollback", "clear", "freeze", "unfreeze", "tune")  # what a person can say


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside that a keeper asks or changes; a test gives a simulated one.

    Attributes:
        clock: UTC.
        first: The bundle of what serves today, for a service that is met for the first time.
        observe: What serves now. Raises HookError.
        place: Puts a deployment in place and reads it back, for the holder of a token. Raises HookError.
        read: Every signal of the service.
        environment: Of the machine that serves.
        tune: Runs the study of a cycle to its end, or takes it up; the candidate's bundle, empty for none, and why.
        window: Measures both arms once, side by side: what serves stably, and the one beside it.
        alert: Somebody has to know this.
    """

    clock: Callable[[], datetime]
    first: Callable[[], str]
    observe: Callable[[], Deployment]
    place: Callable[[Deployment, int], None]
    read: Callable[[], Mapping[str, Read]]
    environment: Callable[[], Mapping[str, str]]
    tune: Callable[[ServiceState], tuple[str, str]]
    window: Callable[[], Window]
    alert: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the user wants of a service.

    Attributes:
        plan: How a candidate is brought in.
        aim: What a candidate must be better at.
        guards: What it must not be worse at.
        rules: How strictly that is judged.
        probation: The same after the promotion.
        pauses: When nothing is begun.
        lease_s: So long after the last sign of life of one daemon another may take over.
        dry_run: Everything is looked at and decided, and nothing is ever put in place.
    """

    aim: Guard
    guards: Sequence[Guard] = ()
    plan: Plan = field(default_factory=Plan)
    rules: CanaryRules = field(default_factory=CanaryRules)
    probation: CanaryRules = field(default_factory=lambda: CanaryRules(most_windows=32))
    pauses: Pauses = field(default_factory=Pauses)
    lease_s: float = LEASE_S
    dry_run: bool = False


class Keeper:
    """Keeps a service; `turn` is called again and again.

    Args:
        journal: Of the service.
        world: What is outside.
        terms: What is wanted.
        watch: Looks at the signals.
        holder: Who leads: host and process.
    """

    def __init__(self, journal: Journal, world: World, terms: Terms, watch: Watch, holder: str) -> None:
        self._journal, self._world, self._terms, self._watch, self._holder = journal, world, terms, watch, holder
        self._token = 0
        self._left: ServiceState | None = None  # as this one left it

    def turn(self) -> ServiceState | None:
        """Do the next thing; the state afterwards, or None while another daemon leads."""
        token = self._lease()
        if token is None:
            return None
        self._token = token
        try:
            state = self._journal.state() or self._meet()
            if state != self._left:  # another daemon led meanwhile
                self._watch.forget()
            state = self._hear(state)
            # in an alarm nothing is tried until a person says so
            self._left = self._work(state) if state.reached or state.phase is Phase.ALARM else self._place(state)
            return self._left
        except LeaseLostError:
            return None

    def leave(self) -> None:
        """Let another daemon lead at once."""
        if self._token:
            self._journal.release(self._token)

    def _lease(self) -> int | None:
        return self._journal.acquire(self._holder, self._world.clock().timestamp(), self._terms.lease_s)

    def _meet(self) -> ServiceState:
        state = begin(self._world.first(), self._world.clock())
        self._journal.enter(self._token, state, {"event": "met"})
        return state

    def _happen(
        self, state: ServiceState, event: Happening, beside: Mapping[str, Any] | None = None, **because: object
    ) -> ServiceState:
        """Write down what comes of an event, and what belongs to it; nothing when nothing does."""
        after = advance(state, event, self._terms.plan, self._world.clock())
        if after != state or because:
            told = {"event": type(event).__name__.lower(), **asdict(event), **because}
            self._journal.enter(self._token, after, told, **(beside or {}))
        if after.phase is not state.phase:
            self._watch.forget()
            if after.phase is Phase.WATCHING:
                self._journal.forget(self._token, _KEPT)
            if after.phase in (Phase.ALARM, Phase.APPROVAL, Phase.ROLLING_BACK):
                self._world.alert(f"{self._journal.service}: {after.phase}: {after.reason}")
        return after

    def _hear(self, state: ServiceState) -> ServiceState:
        """What people said since the last turn, each once: the number of what was heard is part of the state."""
        for entry in self._journal.entries(after=state.heard, kind=SAID):
            state = self._happen(replace(state, heard=entry.number), _meaning(entry), heard=entry.number)
        return state

    def _place(self, state: ServiceState) -> ServiceState:
        try:
            if not self._terms.dry_run:
                with self._leading():  # a hook may take longer than the lease
                    self._world.place(state.wanted, self._token)
            elif self._world.observe() != state.wanted:
                return self._happen(state, Missed("a dry run puts nothing in place"))
        except HookError as error:
            return self._happen(state, Missed(str(error)))
        return self._happen(state, Reached())

    def _work(self, state: ServiceState) -> ServiceState:
        match state.phase:
            case Phase.WATCHING:
                return self._watched(state)
            case Phase.TUNING:
                with self._leading():
                    candidate, reason = self._world.tune(state)
                if candidate and candidate in self._quarantine():
                    candidate, reason = "", f"{candidate} was rejected before"
                return self._happen(state, Tuned(candidate, reason))
            case Phase.CANARY | Phase.PROBATION:
                return self._compared(state)
            case Phase.PROMOTING | Phase.ROLLING_BACK:
                return self._happen(state, Reached())
            case _:
                return state  # a person goes on

    def _watched(self, state: ServiceState) -> ServiceState:
        now = self._world.clock()
        begun = [entry.at for entry in self._journal.entries(kind="tuning", last=self._terms.pauses.per_day)]
        reason = self._watch.look(self._world.read(), self._world.environment(), now, begun)
        if not reason:
            return state
        pause = self._terms.pauses.reason(now, begun)
        if pause or state.frozen:
            return state
        return self._happen(state, Triggered(reason), {"tuning": {"reason": reason}})

    def _compared(self, state: ServiceState) -> ServiceState:
        """One more window, and what the judge says to all of them."""
        with self._leading():
            window = self._world.window()
        self._journal.append(self._token, "window", {"since": state.since, **asdict(window)})
        probation = state.phase is Phase.PROBATION
        rules = self._terms.probation if probation else self._terms.rules
        windows = [_turned(one) if probation else one for one in self._windows(state, rules.most_windows)]
        verdict = judge_canary(windows, self._terms.aim, self._terms.guards, rules)
        if not verdict.settled:
            return state
        rejected = {"quarantine": {"bundle": state.candidate, "reason": verdict.reason}}
        after = self._happen(state, Ruled(verdict), rejected if verdict.ruling is Ruling.FAIL else None)
        if after == state:  # frozen: it may stand here for weeks
            self._journal.forget(self._token, _KEPT)
        return after

    def _windows(self, state: ServiceState, most: int) -> Iterator[Window]:
        since = state.since.isoformat()
        for entry in self._journal.entries(kind="window", last=most):
            if entry.payload["since"] == since:
                yield Window(**{name: value for name, value in entry.payload.items() if name != "since"})

    def _quarantine(self) -> set[str]:
        return {entry.payload["bundle"] for entry in self._journal.entries(kind="quarantine")}

    @contextmanager
    def _leading(self) -> Iterator[None]:
        """Renew the lease while something takes long."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(self._terms.lease_s / 3):
                with suppress(MachineError):  # the record is locked just now
                    self._lease()

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _meaning(entry: Entry) -> Happening:
    by = str(entry.payload.get("by", "somebody"))
    match entry.kind:
        case "approve":
            return Approved(by)
        case "refuse":
            return Refused(by)
        case "rollback":
            return Recalled(f"{by} wants it back")
        case "clear":
            return Cleared(by)
        case "freeze":
            return Froze(by)
        case "unfreeze":
            return Thawed(by)
        case _:
            return Triggered(f"{by} asks for it")


def _turned(window: Window) -> Window:
    """In probation the new one serves stably, and the old one stands beside it."""
    return Window(
        window.candidate, window.baseline, window.candidate_requests, window.candidate_failures,
        window.baseline_requests, window.baseline_failures,
    )  # fmt: skip
