"""What the windows of a canary, or of a probation, come to so far."""

from collections.abc import Iterable, Iterator

from autotuner.analyze.canary import judge_canary
from autotuner.daemon.machine import Recalled, Ruled
from autotuner.daemon.watching import broken_by_candidate
from autotuner.daemon.world import Terms
from autotuner.store.journal import Entry
from autotuner.types import Phase, ServiceState, Window


def most_windows(state: ServiceState, terms: Terms) -> int:
    """So many of the newest are looked at, those counted that count for nothing."""
    rules = terms.probation if state.phase is Phase.PROBATION else terms.rules
    return rules.most_windows + terms.warm_up_windows


def ruled(entries: Iterable[Entry], state: ServiceState, terms: Terms) -> Recalled | Ruled | None:
    """What comes of them; None while the judge wants more.

    Args:
        entries: Of windows, in order, at most `most_windows`.
        state: They are of this one's phase; others are left out.
        terms: What a candidate must be better at.
    """
    probation = state.phase is Phase.PROBATION
    seen = [_turned(one) if probation else one for one in _windows(entries, state)]
    warm_up, windows = seen[: terms.warm_up_windows], seen[terms.warm_up_windows :]
    if broken := broken_by_candidate(windows, terms.levels, terms.breaches):
        return Recalled(broken)
    rules = terms.probation if probation else terms.rules
    verdict = judge_canary(windows, terms.aim, terms.guards, rules, warm_up)
    return Ruled(verdict) if verdict.settled else None


def _windows(entries: Iterable[Entry], state: ServiceState) -> Iterator[Window]:
    since = state.since.isoformat()
    for entry in entries:
        if entry.payload["since"] == since:
            yield Window(**{name: value for name, value in entry.payload.items() if name != "since"})


def _turned(window: Window) -> Window:
    """In probation the new one serves stably, and the old one stands beside it."""
    return Window(
        window.candidate, window.baseline, window.candidate_requests, window.candidate_failures,
        window.baseline_requests, window.baseline_failures, window.gap,
    )  # fmt: skip
