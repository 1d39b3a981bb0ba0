"""What the windows of a canary, or of a probation, come to so far."""

from collections.abc import Iterable, Iterator

from autotuner.analyze.canary import judge_canary
from autotuner.daemon.machine import Recalled, Ruled
from autotuner.daemon.watching import broken_by_candidate
from autotuner.daemon.world import Terms
from autotuner.store.journal import Entry
from autotuner.types import Phase, ServiceState, Window


def most_windows(state: ServiceState, terms: Terms) -> int:
    """So many of the newest are looked at: all of the cycle's, those counted that count for nothing."""
    most = terms.rules.most_windows * (state.step + 1) + terms.warm_up_windows * (state.step + 2)
    return most + (terms.probation.most_windows if state.phase is Phase.PROBATION else 0)


def ruled(entries: Iterable[Entry], state: ServiceState, terms: Terms) -> Recalled | Ruled | None:
    """What comes of them; None while the judge wants more.

    Args:
        entries: Of windows, in order, at most `most_windows`.
        state: They are of this one's phase; others are left out.
        terms: What a candidate must be better at.
    """
    probation = state.phase is Phase.PROBATION
    entries = list(entries)
    seen = [_turned(one) if probation else one for one in _windows(entries, state)]
    warm_up, windows = seen[: terms.warm_up_windows], seen[terms.warm_up_windows :]
    if broken := broken_by_candidate(windows, terms.levels, terms.breaches):
        return Recalled(broken)
    rules = terms.probation if probation else terms.rules
    verdict = judge_canary(windows, terms.aim, terms.guards, rules, warm_up, _known(entries, state))
    return Ruled(verdict) if verdict.settled else None


def _windows(entries: Iterable[Entry], state: ServiceState) -> Iterator[Window]:
    since = state.since.isoformat()
    for entry in entries:
        if entry.payload["since"] == since:
            yield _window(entry)


def _known(entries: Iterable[Entry], state: ServiceState) -> tuple[int, int]:
    """Requests and failures of the one that served, in earlier steps of this cycle: later it is asked less and less."""
    since = state.since.isoformat()
    before = [
        _window(entry)
        for entry in entries
        if entry.payload.get("cycle") == state.cycle and entry.payload["since"] != since
    ]
    return sum(one.baseline_requests for one in before), sum(one.baseline_failures for one in before)


def _window(entry: Entry) -> Window:
    return Window(**{name: value for name, value in entry.payload.items() if name not in ("since", "cycle")})


def _turned(window: Window) -> Window:
    """In probation the new one serves stably, and the old one stands beside it."""
    return Window(
        window.candidate, window.baseline, window.candidate_requests, window.candidate_failures,
        window.baseline_requests, window.baseline_failures, window.gap,
    )  # fmt: skip
