"""Keeps one service tuned, turn by turn. A turn that is cut off anywhere is taken up by the next: all that is known is
in the journal, and everything that a turn does to the world may be done again.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime
from itertools import islice
from typing import Any

from autotuner.daemon.alerts import ALERT, told_of
from autotuner.daemon.comparing import most_windows, ruled
from autotuner.daemon.hooks import HookError, told
from autotuner.daemon.leading import Leadership
from autotuner.daemon.machine import (
    Cleared,
    Dropped,
    Happening,
    Missed,
    Named,
    Reached,
    Triggered,
    Tuned,
    advance,
    begin,
    rejected,
)
from autotuner.daemon.placing import put_back_or_forward
from autotuner.daemon.sources import Read, Reading
from autotuner.daemon.spans import tell_cycle
from autotuner.daemon.spending import TUNING, Spending
from autotuner.daemon.surroundings import ENVIRONMENT, QUARANTINE, Surroundings
from autotuner.daemon.watching import Watch, moved
from autotuner.daemon.words import NEXT, SAID, in_vain, meaning
from autotuner.daemon.world import LEASE_S, StudyError, Terms, World
from autotuner.errors import MachineError
from autotuner.store.journal import STATE, Entry, Journal, LeaseLostError
from autotuner.types import Phase, ServiceState

__all__ = ["LEASE_S", "SAID", "Keeper", "Terms", "World"]

logger = logging.getLogger(__name__)
STUDY = "study"  # kind of an entry: the study of a cycle, which the daemon is about to begin
_KEPT = 1000  # entries of each kind
_TOLD = (Phase.ALARM, Phase.APPROVAL, Phase.ROLLING_BACK)  # somebody has to know


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
        self._journal, self._world, self._terms, self._watch = journal, world, terms, watch
        self._lease = Leadership(journal, holder, world.clock, terms.lease_s)
        self._left: tuple[int, ServiceState] | None = None  # its token, and the state as this one left it
        self._differs = ""  # what a dry run found in place
        self._around = Surroundings(journal, self._lease, world)
        self._spending = Spending(journal, self._lease, world, terms.pauses, _KEPT)
        self._heard = 0  # number of the newest word that has had its effect

    def turn(self) -> ServiceState | None:
        """Do the next thing; the state afterwards, or None while another daemon leads."""
        if not self._lease.take():
            return None
        try:
            state = self._journal.state() or self._meet()
            if (self._lease.token, state) != self._left:  # another led meanwhile, or a turn was cut off
                self._watch.forget()
                self._world.alert()  # it may have died before it had told
            if self._terms.dry_run and state.phase not in (Phase.WATCHING, Phase.TUNING):
                self._lease.leave()  # to one that may act
                raise MachineError(f"{self._journal.service} is at {state.phase}, which a dry run leaves as it is")
            state = self._go_on(self._hear(state))
            self._left = self._lease.token, state
            return state
        except LeaseLostError:
            return None

    def is_called(self) -> bool:
        """Whether a person has said something that has had no effect yet."""
        return any(self._journal.entries(after=self._heard, kinds=SAID))

    def attend(self) -> bool:
        """Between two turns: stay the leader; whether a person has said something."""
        self._lease.keep()
        return bool(self._lease.token) and self.is_called()

    def leave(self) -> None:
        """Let another daemon lead at once."""
        self._lease.leave()

    def _meet(self) -> ServiceState:
        state = begin(self._world.first(), self._world.clock())
        self._journal.enter(self._lease.token, state, {"event": "met"}, self._world.clock())
        return state

    def _happen(
        self, state: ServiceState, event: Happening, beside: Mapping[str, Any] | None = None, **because: object
    ) -> ServiceState:
        """Write down what comes of an event, and what belongs to it; nothing when nothing does."""
        now = self._world.clock()
        after = advance(state, event, self._terms.plan, now)
        if after != state or because:
            because = {"event": type(event).__name__.lower(), **asdict(event), **because}
            entries = self._beside(state, event, after, beside or {})
            self._journal.enter(self._lease.token, after, because, now, **entries)
            if ALERT in entries:
                self._world.alert()
        if after.phase is not state.phase:
            self._watch.forget()
            if after.phase in (Phase.WATCHING, Phase.ALARM):
                tell_cycle(self._journal.service, after.cycle, self._last(STATE))
            if after.phase is Phase.WATCHING:
                self._journal.forget(self._lease.token, _KEPT)  # only the leader goes on from here
                self._world.tidy({after.wanted.stable, after.last_good, after.previous})
        return after

    def _hear(self, state: ServiceState) -> ServiceState:
        """What people said since the last turn, each once: the number of what was heard is part of the state."""
        for entry in list(self._journal.entries(after=state.heard, kinds=SAID)):
            state = self._happen(replace(state, heard=entry.number), self._meant(state, entry), heard=entry.number)
        self._heard = state.heard
        return state

    def _meant(self, state: ServiceState, entry: Entry) -> Happening:
        """What a word comes to: there is no way back to what is damaged, and none out of an alarm but another one."""
        by = str(entry.payload.get("by", "somebody"))
        why = in_vain(state, entry.kind)
        if not why and entry.kind == "rollback" and state.phase is Phase.WATCHING:
            why = "a dry run changes nothing" if self._terms.dry_run else self._world.damage(state.previous)
        if why:
            return Dropped(entry.kind, by, why)
        if entry.kind == "clear" and self._world.damage(state.last_good):
            return Cleared(by, self._instead(state))
        return meaning(entry.kind, by)

    def _instead(self, state: ServiceState) -> str:
        """Another good bundle, where the last good one is lost: the one before it, else the first; empty for itself."""
        if state.previous and not self._world.damage(state.previous):
            return state.previous
        first = self._world.first()  # is made anew
        return "" if first == state.last_good else first

    def _beside(
        self, before: ServiceState, event: Happening, after: ServiceState, beside: Mapping[str, Any]
    ) -> Mapping[str, Mapping[str, Any]]:
        """What is written down with a state: that a cycle was begun and where, what was rejected, what people are told.

        Args:
            before: The state before the event.
            event: What happened.
            after: The state after it.
            beside: What is known of it already.
        """
        found: dict[str, Mapping[str, Any] | None] = {}
        if after.cycle != before.cycle:
            around = beside[ENVIRONMENT] if ENVIRONMENT in beside else self._around.look(before.phase)
            found |= {TUNING: {"reason": after.reason, "asked": True}, ENVIRONMENT: around}
        if bundle := rejected(before, event, after):
            found[QUARANTINE] = {"bundle": bundle, "where": self._around.where(), "reason": after.reason}
        if after.phase is not before.phase and after.phase in _TOLD:
            text = "; ".join([after.reason, *filter(None, [NEXT.get(after.phase)])])
            found[ALERT] = self._alert(after.phase, f"{after.phase}: {text}")
        return {kind: payload for kind, payload in {**found, **beside}.items() if payload is not None}

    def _alert(self, phase: Phase, text: str) -> Mapping[str, Any]:
        return told_of(self._journal.service, phase, text)

    def _write(self, kind: str, payload: Mapping[str, object]) -> None:
        self._journal.append(self._lease.token, kind, payload, self._world.clock())

    def _last(self, kind: str, most: int = _KEPT) -> Iterator[Entry]:
        return self._journal.entries(kinds=(kind,), last=most)

    def _place(self, state: ServiceState) -> ServiceState:
        try:
            with self._lease.during(self.is_called) as stop:  # a hook may take longer than the lease
                there = put_back_or_forward(self._world, self._lease, state, stop, self._terms.back_s)
        except HookError as error:
            return self._happen(state, Missed(str(error)))
        return self._happen(state, Reached()) if there else state

    def _rehearse(self, state: ServiceState) -> ServiceState:
        """A dry run: what is not in place stays out of it, which is said once, and all else goes on."""
        try:
            with self._lease.during(self.is_called):
                seen = self._world.observe()
        except HookError as error:
            differs = str(error)
        else:
            if seen == state.wanted:
                return self._happen(state, Reached())
            differs = f"{told(seen)} serves, and {told(state.wanted)} would be put in place"
        if differs != self._differs:
            self._write("dry run", {"differs": differs})
            logger.warning("a dry run: %s", differs)
        self._differs = differs
        return self._work(state)

    def _go_on(self, state: ServiceState) -> ServiceState:
        if state.reached or state.phase is Phase.ALARM:  # there nothing is tried until a person says so
            return self._work(state)
        return self._rehearse(state) if self._terms.dry_run else self._place(state)

    def _work(self, state: ServiceState) -> ServiceState:
        match state.phase:
            case Phase.WATCHING:
                return self._watched(state)
            case Phase.TUNING:
                return self._tuned(state)
            case Phase.CANARY | Phase.PROBATION:
                return self._compared(state)
            case Phase.PROMOTING | Phase.ROLLING_BACK:
                return self._happen(state, Reached())
            case _:
                return state  # a person goes on

    def _watched(self, state: ServiceState) -> ServiceState:
        with self._lease.during(self.is_called):  # to ask a service under load takes its time
            readings = self._world.read()
        if silent := self._watch.silent(readings):
            self._write(ALERT, self._alert(state.phase, silent))
            self._world.alert()
        known, around = self._around.known(), self._around.look(state.phase)
        if known is None and around is not None:
            self._write(ENVIRONMENT, around)
        change = moved(known, around) if known is not None and around is not None else ""
        now = self._world.clock()
        begun = [entry.at for entry in self._last(TUNING, max(1, self._terms.pauses.per_day))]
        reason = self._watch.look(readings, change, now, begun or self._met())
        if not reason:
            return state
        spent_s = self._spending.spent_device_s(now)
        pause = self._terms.pauses.reason(now, begun, spent_s, self._world.devices())
        if pause or state.frozen:
            return state
        beside = {
            TUNING: {"reason": reason, "asked": False, "readings": _plain(readings)},
            ENVIRONMENT: known if around is None else around,
        }
        return self._happen(state, Triggered(reason), beside)

    def _met(self) -> list[datetime]:
        """When the daemon met the service, by the oldest entry."""
        return [entry.at for entry in islice(self._journal.entries(kinds=(STATE,)), 1)]

    def _tuned(self, state: ServiceState) -> ServiceState:
        """First what can be found out of the service as it is, then the study; both take devices."""
        if not state.study:
            with self._spending.stretch(state.cycle), self._lease.during(self.is_called) as stop:
                found = self._world.collect(state, stop)
            incident = {"cycle": state.cycle, "reason": state.reason, **found}
            name = self._world.name(state.cycle)
            state = self._happen(state, Named(name), {"incident": incident, STUDY: {"name": name}})
        beside = {}
        try:
            with self._spending.stretch(state.cycle) as left_s, self._lease.during(self.is_called) as stop:
                ended = self._world.tune(state, left_s, stop)
        except StudyError as error:
            ended, beside = ("", str(error)), {ALERT: self._alert(state.phase, str(error))}
        if ended is None:
            return state
        candidate, reason = ended
        if self._around.is_rejected(candidate):
            candidate, reason = "", f"{candidate} was rejected before, on this machine with these versions"
        if candidate and self._terms.dry_run:
            candidate, reason = "", f"{reason}; a dry run does not try {candidate}"
        return self._happen(state, Tuned(candidate, reason), beside)

    def _compared(self, state: ServiceState) -> ServiceState:
        """One more window, and what the judge says to all of them."""
        with self._lease.during(self.is_called):
            window = self._world.window()
        self._write("window", {"cycle": state.cycle, "since": state.since, **asdict(window)})
        event = ruled(self._last("window", most_windows(state, self._terms)), state, self._terms)
        if event is None:
            return state
        after = self._happen(state, event)
        if after == state:  # frozen: it may stand here for weeks
            self._journal.forget(self._lease.token, _KEPT)
        return after


def _plain(readings: Mapping[str, Read]) -> Mapping[str, float | str]:
    return {name: read.value if isinstance(read, Reading) else read.reason for name, read in readings.items()}
