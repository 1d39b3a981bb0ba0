"""What the journal says of a service, for people and their programs."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from autotuner.errors import UsageError
from autotuner.report.service_data import Compared, Decided, ServiceRow, ServiceStory
from autotuner.store import Record
from autotuner.store.journal import STATE, Entry, Journal
from autotuner.types import Estimate, Phase, ServiceState

WINDOW = "window"  # the kind of an entry for one window of a canary
_SHOWN = 100  # decisions on a page
_LOOKED_AT = 1000  # states and windows in which a page looks for the newest candidate's


def named(record: Record, service: str | None) -> str:
    """The service that is meant: without a name, the only one that the record knows.

    Raises:
        UsageError: There is none, or there are several.
    """
    if service is not None:
        return service
    names = record.services()
    if len(names) != 1:
        message = f"say which service: there are {', '.join(names)}" if names else "there is no service in this record"
        raise UsageError(message, "" if names else "autotune daemon run FILE")
    return names[0]


def known(record: Record, service: str) -> Journal:
    """The journal of a service that the daemon has met.

    Raises:
        UsageError: It has not.
    """
    names = record.services()
    if service not in names:
        hint = f"there are: {', '.join(names)}" if names else "autotune daemon run FILE"
        raise UsageError(f"there is no service {service!r} in this record", hint)
    return record.journal(service)


def facts_of(record: Record, service: str) -> dict[str, Any]:
    """The newest state, as names and values.

    Raises:
        UsageError: There is no such service.
    """
    return _facts(service, _state_of(record, service))


def _state_of(record: Record, service: str) -> ServiceState:
    state = known(record, service).state()
    if state is None:
        raise UsageError(f"the daemon has not met {service!r} yet", "autotune daemon run FILE")
    return state


def _facts(service: str, state: ServiceState) -> dict[str, Any]:
    return {
        "service": service,
        "phase": state.phase.value,
        "frozen": state.frozen,
        "serves": _serves(state),
        "in place": state.reached,
        "last good": state.last_good,
        "before it": state.previous,
        "candidate": state.candidate,
        "cycle": state.cycle,
        "since": f"{state.since:%Y-%m-%d %H:%M:%S} UTC",
        "because": state.reason,
    }


def _serves(state: ServiceState) -> str:
    beside = f", and {state.wanted.percent} % to {state.wanted.candidate}" if state.wanted.candidate else ""
    return f"{state.wanted.stable}{beside}"


def entries_of(record: Record, service: str, last: int, *, everything: bool = False) -> list[Entry]:
    """The newest entries, in order; without single windows.

    Raises:
        UsageError: There is no such service.
    """
    return list(known(record, service).entries(last=last, without=None if everything else WINDOW))


def rows_of(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Entries for programs, each with all that it says."""
    return [
        {"number": one.number, "at": one.at, "kind": one.kind, "token": one.token, **one.payload} for one in entries
    ]


def sentence_of(entry: Entry) -> str:
    """An entry in one line."""
    payload = entry.payload
    if entry.kind == STATE:
        state, because = payload["state"], payload["because"]
        event = because.get("event", "")
        if event == "dropped":
            return f"{state['phase']}: nothing comes of {because['word']} by {because['by']}: {because['why']}"
        return f"{state['phase']} after {event}: {state['reason']}"
    return ", ".join(f"{name} {value}" for name, value in payload.items())


def service_rows(record: Record) -> list[ServiceRow]:
    """Every service that the daemon has met."""
    states = ((name, record.journal(name).state()) for name in record.services())
    return [_row(name, state) for name, state in states if state is not None]


def _row(service: str, state: ServiceState) -> ServiceRow:
    return ServiceRow(service, state.phase.value, _serves(state), state.since, state.reason)


def tell_service(record: Record, service: str) -> ServiceStory:
    """What a page shows of a service.

    Raises:
        UsageError: There is no such service.
    """
    state = _state_of(record, service)
    entries = entries_of(record, service, _SHOWN)
    decided = [Decided(one.at, one.kind, sentence_of(one), _gains(one)) for one in reversed(entries)]
    return ServiceStory(_row(service, state), _facts(service, state), decided, _compared(record.journal(service)))


def _gains(entry: Entry) -> dict[str, Estimate]:
    because = entry.payload["because"] if entry.kind == STATE else {}
    return {name: Estimate(**gain) for name, gain in because.get("verdict", {}).get("gains", {}).items()}


def _compared(journal: Journal) -> list[Compared]:
    """The canaries and the probation of the newest candidate that came to any, the newest first."""
    windows: dict[str, list[Any]] = {}
    for entry in journal.entries(kinds=(WINDOW,), last=_LOOKED_AT):
        arms = (entry.payload["baseline"], entry.payload["candidate"])
        windows.setdefault(entry.payload["since"], []).append(arms)
    states = [entry.payload["state"] for entry in journal.entries(kinds=(STATE,), last=_LOOKED_AT)]
    known_states = {state["since"]: state for state in states}
    seen = [known_states[since] for since in windows if since in known_states]
    newest = [state for state in seen if state["cycle"] == seen[-1]["cycle"]]
    return [_comparison(state, windows[state["since"]]) for state in reversed(newest)]


def _comparison(state: Any, windows: list[Any]) -> Compared:
    wanted, probation = state["wanted"], state["phase"] == Phase.PROBATION
    steady, beside = ("the new one", "what it replaced") if probation else ("what serves", "the candidate")
    return Compared(
        f"{'probation' if probation else 'canary'}, {wanted['percent']} % of the traffic",
        datetime.fromisoformat(state["since"]), f"{steady} ({wanted['stable']})", f"{beside} ({wanted['candidate']})",
        windows,
    )  # fmt: skip
