"""A cycle as a trace: a span for the whole of it, and one below for each phase."""

from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise

from autotuner import telemetry
from autotuner.store.journal import Entry


def tell_cycle(service: str, cycle: int, entries: Iterable[Entry]) -> None:
    """Record the spans of a cycle that has ended, from what the journal says of it.

    Told at its end and not as it goes on, so that a daemon that took over in the middle tells it whole.

    Args:
        service: Its name.
        cycle: Which.
        entries: Of states, in order.
    """
    if not telemetry.enabled():
        return
    states = [entry.payload["state"] for entry in entries if entry.payload["state"]["cycle"] == cycle]
    phases = {state["since"]: state for state in states}  # of the same phase the newest
    moments = sorted(phases, key=datetime.fromisoformat)
    if len(moments) < 2:
        return
    first, last = phases[moments[0]], phases[moments[-1]]
    about: dict[str, telemetry.AttributeValue | None] = {"autotune.service": service, "autotune.cycle": cycle}
    ending = {"autotune.end": last["phase"], "autotune.reason": last["reason"], "autotune.bundle": last["candidate"]}
    above = telemetry.record_span("daemon cycle", _seconds(first), _seconds(last), {**about, **ending})
    for begin, end in pairwise(moments):
        state, reason = phases[begin], phases[end]["reason"]
        served = {"autotune.percent": state["wanted"]["percent"], "autotune.reason": reason}
        telemetry.record_span(
            f"daemon {state['phase']}", _seconds(state), _seconds(phases[end]), {**about, **served}, above
        )


def _seconds(state: dict[str, str]) -> float:
    return datetime.fromisoformat(state["since"]).timestamp()
