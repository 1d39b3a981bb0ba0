"""When a service asks for tuning: pure functions of what was read, and of when it was tuned last.

A level is broken when it is for several looks in a row; a look without a number breaks the row, and is no breach. A
drift is a change for the worse that is proven against the noise; one for the better is no reason. Traffic that became
another, more or less of it, is one for as long as it stays so. Whatever asks, there are hours and days in which nothing
is begun: too soon after the last time, too often a day, at night.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta

from autotuner.analyze.drift import find_drift
from autotuner.daemon.sources import Gap, Read, Reading
from autotuner.metrics import format_value
from autotuner.spec.expressions import Limit
from autotuner.types import Window

LEAST_S = 60.0  # a study that is shorter finds nothing
_KEPT = 400  # looks at a signal that are remembered
_SILENT = 10  # times `breaches` looks without a number, until somebody has to know
_MOST_LOG = 20.0  # of a ratio that is told: whatever is beyond is absurd, and must not be a number without end
_FIRST = 100  # of them are the first ones since the service was changed, for a change that comes slowly


@dataclass(frozen=True, slots=True)
class Pauses:
    """When nothing is begun.

    Attributes:
        cooldown_s: After the last time.
        per_day: Most times within 24 hours.
        device_s_per_day: Most seconds of devices within 24 hours.
        quiet: (from, to) of every day, UTC; a pause over midnight has a later beginning than end.
    """

    cooldown_s: float = 3600.0
    per_day: int = 3
    device_s_per_day: float = math.inf
    quiet: Sequence[tuple[time, time]] = ()

    def reason(self, now: datetime, begun: Sequence[datetime], spent_device_s: float = 0.0, devices: int = 1) -> str:
        """Why nothing may be begun now; empty when it may.

        Args:
            now: UTC.
            begun: When it was, in any order.
            spent_device_s: Within the last 24 hours.
            devices: That a study uses at once.
        """
        last = _last(now, begun)
        if last is not None and (now - last).total_seconds() < self.cooldown_s:
            return f"the last time was less than {self.cooldown_s:g} s ago"
        if sum(timedelta(0) <= now - at < timedelta(days=1) for at in begun) >= self.per_day:
            return f"{self.per_day} times within a day are enough"
        if any(_within(now.time(), begin, end) for begin, end in self.quiet):
            return "these are quiet hours"
        if self.left_s(spent_device_s, devices) < LEAST_S:
            return f"of the day's {self.device_s_per_day / 60:g} minutes of devices {spent_device_s / 60:.1f} are spent"
        return ""

    def left_s(self, spent_device_s: float, devices: int) -> float:
        """Seconds that a study on so many devices may take of the day's; below 0 when they are overspent."""
        return (self.device_s_per_day - spent_device_s) / devices


def _within(at: time, begin: time, end: time) -> bool:
    return begin <= at < end if begin <= end else at >= begin or at < end


@dataclass(slots=True)
class Watch:
    """What was seen of a service so far.

    Attributes:
        levels: What must hold.
        drifting: Signals whose level should not get worse.
        breaches: Looks in a row that make a level broken.
        every_s: Tune so often whatever is seen; None: never for that.
        rising: Of the drifting, those of which more is better.
        traffic: Signals of what is asked, and the factor > 1 by which a level must have changed, up or down.
    """

    levels: Sequence[Limit] = ()
    drifting: Sequence[str] = ()
    breaches: int = 3
    every_s: float | None = None
    rising: Collection[str] = ()
    traffic: Mapping[str, float] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, list[float]] = field(default_factory=dict)
    _asked: dict[str, list[float]] = field(default_factory=dict)
    _worse: dict[str, str] = field(default_factory=dict)
    _silent: dict[str, int] = field(default_factory=dict)

    def look(self, readings: Mapping[str, Read], moved: str, now: datetime, begun: Sequence[datetime]) -> str:
        """What asks for tuning, in one sentence; empty for nothing. It goes on asking until the service is changed.

        Args:
            readings: Of every signal.
            moved: What is another in the environment of the service, as `moved` says it.
            now: UTC.
            begun: When the service was tuned; when it was met, if it never was.
        """
        reasons = [self._broken(limit, readings.get(limit.metric, Gap("nobody reads it"))) for limit in self.levels]
        reasons += [self._drifted(name, readings.get(name, Gap("nobody reads it"))) for name in self.drifting]
        reasons += [self._other(name, factor, readings) for name, factor in self.traffic.items()]
        reasons += [moved, self._is_due(now, begun)]
        return "; ".join(reason for reason in reasons if reason)

    def silent(self, readings: Mapping[str, Read]) -> str:
        """Signals that have just been without a number for too many looks, each told once until it has one again.

        A change of the service is no number: they are not forgotten with it.

        Args:
            readings: Of every signal.

        Returns:
            A sentence; empty for none.
        """
        most, told = _SILENT * self.breaches, []
        for name in dict.fromkeys((*(limit.metric for limit in self.levels), *self.drifting, *self.traffic)):
            read = readings.get(name, Gap("nobody reads it"))
            self._silent[name] = self._silent.get(name, 0) + 1 if isinstance(read, Gap) else 0
            if isinstance(read, Gap) and self._silent[name] == most:
                told.append(f"{name}: {read.reason}")
        return f"no number for {most} looks in a row: {'; '.join(told)}" if told else ""

    def forget(self) -> None:
        """After a change of the service, what was seen before says nothing of it."""
        self._rows.clear()
        self._seen.clear()
        self._asked.clear()
        self._worse.clear()

    def _broken(self, limit: Limit, read: Read) -> str:
        broken = isinstance(read, Reading) and limit.excess(read.value, math.nan) > 0
        row = self._rows.get(limit.text, 0) + 1 if broken else 0
        self._rows[limit.text] = row
        if row < self.breaches or not isinstance(read, Reading):
            return ""
        return f"{limit.metric} is {format_value(limit.metric, read.value)}, {row} looks in a row over {limit.text}"

    def _drifted(self, name: str, read: Read) -> str:
        if isinstance(read, Reading) and read.value > 0:
            seen = self._seen.setdefault(name, [])
            seen.append(math.log(read.value))
            del seen[:-_KEPT]
            change = find_drift(seen).last
            if change is not None and change.proven_at == len(seen) - 1:
                better = change.direction == (1 if name in self.rising else -1)
                text = f"{name} is {_factor(change.shift, change.low, change.high)} of what it was"
                self._worse[name] = "" if better else text
        return self._worse.get(name, "")

    def _other(self, name: str, factor: float, readings: Mapping[str, Read]) -> str:
        """All changes since the service was changed taken together: slow growth is one as well."""
        read = readings.get(name)
        seen = self._asked.setdefault(name, [])
        if not isinstance(read, Reading) or read.value <= 0:  # nothing is asked: nothing to tune for
            return ""
        seen.append(math.log(read.value))
        del seen[_FIRST : _FIRST - _KEPT]
        changes = find_drift(seen).changes
        shift, low, high = (math.fsum(getattr(one, end) for one in changes) for end in ("shift", "low", "high"))
        if abs(shift) < math.log(factor):
            return ""
        return f"the traffic is another: {name} is {_factor(shift, low, high)} of what it was"

    def _is_due(self, now: datetime, begun: Sequence[datetime]) -> str:
        last = _last(now, begun)
        if self.every_s is None or last is None or (now - last).total_seconds() < self.every_s:
            return ""
        return f"{self.every_s / 86400:g} days have passed"


def moved(known: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """What is another than it was, in a clause; empty for nothing."""
    names = sorted(name for name in {*known, *environment} if known.get(name) != environment.get(name))
    return f"the environment is another: {', '.join(names)}" if names else ""


def broken_by_candidate(windows: Sequence[Window], levels: Sequence[Limit], breaches: int) -> str:
    """A level that the candidate has broken in each of the newest windows while the other kept it; empty for none.

    Args:
        windows: In order.
        levels: Of the service.
        breaches: So many windows.
    """
    newest = windows[-breaches:]
    for limit in levels if len(newest) == breaches else ():
        seen = [(one.candidate.get(limit.metric, math.nan), one.baseline.get(limit.metric, math.nan)) for one in newest]
        # no number of the candidate breaks nothing: whether it fails requests is the judge's to say
        if all(0 < limit.excess(own, None) < math.inf and limit.excess(other, None) <= 0 for own, other in seen):
            worst = format_value(limit.metric, seen[-1][0])
            return (
                f"its {limit.metric} is {worst}, {breaches} windows in a row over {limit.text}, which the other keeps"
            )
    return ""


def _factor(shift: float, low: float, high: float) -> str:
    """Logarithms of a ratio and its interval, as a person reads them."""
    factor, least, most = (math.exp(min(one, _MOST_LOG)) for one in (shift, low, high))
    return f"{factor:.2f}x [{least:.2f}, {most:.2f}]"


def _last(now: datetime, begun: Sequence[datetime]) -> datetime | None:
    """The newest that was not begun in the future: a clock that was wrong and is right again keeps nobody waiting."""
    return max((at for at in begun if at <= now), default=None)
