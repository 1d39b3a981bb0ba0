"""What the journal says of a service, for people and their programs."""

from collections.abc import Iterable
from typing import Any

from autotuner.errors import UsageError
from autotuner.store import Record
from autotuner.store.journal import STATE, Entry, Journal

WINDOW = "window"  # the kind of an entry for one window of a canary


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
    state = known(record, service).state()
    if state is None:
        raise UsageError(f"the daemon has not met {service!r} yet", "autotune daemon run FILE")
    beside = f", and {state.wanted.percent} % to {state.wanted.candidate}" if state.wanted.candidate else ""
    return {
        "service": service,
        "phase": state.phase.value,
        "frozen": state.frozen,
        "serves": f"{state.wanted.stable}{beside}",
        "in place": state.reached,
        "last good": state.last_good,
        "before it": state.previous,
        "candidate": state.candidate,
        "cycle": state.cycle,
        "since": f"{state.since:%Y-%m-%d %H:%M:%S} UTC",
        "because": state.reason,
    }


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
        state, event = payload["state"], payload["because"].get("event", "")
        return f"{state['phase']} after {event}: {state['reason']}"
    return ", ".join(f"{name} {value}" for name, value in payload.items())
