"""When a service asks for tuning: pure functions of what was read, and of when it was tuned last.

A level is broken when it is for several looks in a row; a look without a number breaks the row, and is no breach. A
drift is a change of level that is proven against the noise. Whatever asks, there are hours and days in which nothing is
begun: too soon after the last time, too often a day, at night.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta

from autotuner.analyze.drift import find_drift
from autotuner.daemon.sources import Gap, Read, Reading
from autotuner.metrics import format_value
from autotuner.spec.expressions import Limit

_KEPT = 400  # looks at a signal that are remembered


@dataclass(frozen=True, slots=True)
class Pauses:
    """When nothing is begun.

    Attributes:
        cooldown_s: After the last time.
        per_day: Most times within 24 hours.
        quiet: (from, to) of every day, UTC; a pause over midnight has a later beginning than end.
    """

    cooldown_s: float = 3600.0
    per_day: int = 3
    quiet: Sequence[tuple[time, time]] = ()

    def reason(self, now: datetime, begun: Sequence[datetime]) -> str:
        """Why nothing may be begun now; empty when it may.

        Args:
            now: UTC.
            begun: When it was, in any order.
        """
        last = _last(now, begun)
        if last is not None and (now - last).total_seconds() < self.cooldown_s:
            return f"the last time was less than {self.cooldown_s:g} s ago"
        if sum(timedelta(0) <= now - at < timedelta(days=1) for at in begun) >= self.per_day:
            return f"{self.per_day} times within a day are enough"
        if any(_within(now.time(), begin, end) for begin, end in self.quiet):
            return "these are quiet hours"
        return ""


def _within(at: time, begin: time, end: time) -> bool:
    return begin <= at < end if begin <= end else at >= begin or at < end


@dataclass(slots=True)
class Watch:
    """What was seen of a service so far.

    Attributes:
        levels: What must hold.
        drifting: Signals whose level should not change.
        breaches: Looks in a row that make a level broken.
        every_s: Tune so often whatever is seen; None: never for that.
    """

    levels: Sequence[Limit] = ()
    drifting: Sequence[str] = ()
    breaches: int = 3
    every_s: float | None = None
    _rows: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, list[float]] = field(default_factory=dict)
    _environment: Mapping[str, str] | None = None

    def look(
        self, readings: Mapping[str, Read], environment: Mapping[str, str], now: datetime, begun: Sequence[datetime]
    ) -> str:
        """What asks for tuning, in one sentence; empty for nothing.

        Args:
            readings: Of every signal.
            environment: Of the machine that serves: another one than at the last look asks for tuning.
            now: UTC.
            begun: When the service was tuned.
        """
        reasons = [self._broken(limit, readings.get(limit.metric, Gap("nobody reads it"))) for limit in self.levels]
        reasons += [self._drifted(name, readings.get(name, Gap("nobody reads it"))) for name in self.drifting]
        reasons += [self._moved(environment), self._is_due(now, begun)]
        return "; ".join(reason for reason in reasons if reason)

    def forget(self) -> None:
        """After a change of the service, what was seen before says nothing of it."""
        self._rows.clear()
        self._seen.clear()

    def _broken(self, limit: Limit, read: Read) -> str:
        broken = isinstance(read, Reading) and limit.excess(read.value, math.nan) > 0
        row = self._rows.get(limit.text, 0) + 1 if broken else 0
        self._rows[limit.text] = row
        if row < self.breaches or not isinstance(read, Reading):
            return ""
        return f"{limit.metric} is {format_value(limit.metric, read.value)}, {row} looks in a row over {limit.text}"

    def _drifted(self, name: str, read: Read) -> str:
        if not isinstance(read, Reading) or read.value <= 0:
            return ""
        seen = self._seen.setdefault(name, [])
        seen.append(math.log(read.value))
        del seen[:-_KEPT]
        change = find_drift(seen).last
        if change is None or change.proven_at < len(seen) - 1:
            return ""  # or it was said already
        low, high = math.exp(change.low), math.exp(change.high)
        return f"{name} is {math.exp(change.shift):.2f}x [{low:.2f}, {high:.2f}] of what it was"

    def _moved(self, environment: Mapping[str, str]) -> str:
        before, self._environment = self._environment, dict(environment)
        if before is None or before == self._environment:
            return ""
        names = sorted(name for name in {*before, *environment} if before.get(name) != environment.get(name))
        return "the environment is another: " + ", ".join(names)

    def _is_due(self, now: datetime, begun: Sequence[datetime]) -> str:
        last = _last(now, begun)
        if self.every_s is None or last is None or (now - last).total_seconds() < self.every_s:
            return ""
        return f"{self.every_s / 86400:g} days have passed"


def _last(now: datetime, begun: Sequence[datetime]) -> datetime | None:
    """The newest that was not begun in the future: a clock that was wrong and is right again keeps nobody waiting."""
    return max((at for at in begun if at <= now), default=None)
