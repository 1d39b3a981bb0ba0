"""Numbers from a service's own /metrics page, without a Prometheus between: levels now, and what was counted since.

What is counted is taken between two looks. A counter that went back, or a process that was started anew in between,
gives no number: how much was lost is not known.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from autotuner.daemon.exposition import Exposition, Series, parse
from autotuner.daemon.sources import Gap, Read, Reading, fetch
from autotuner.statistics import required_requests

Take: TypeAlias = Literal["value", "rate", "mean", "p50", "p90", "p95", "p99"]
Key: TypeAlias = tuple[str, frozenset[tuple[str, str]]]

_MOST_BYTES = 8 << 20
_STARTED = "process_start_time_seconds"  # which most libraries tell of themselves
_CONFIDENCE = 0.95  # of a percentile
_COUNTED = ("counter", "histogram", "summary", "unknown")
_LEVELS = ("gauge", "unknown", "summary")
_PARTS: Mapping[str, tuple[str, ...]] = {"rate": ("",), "mean": ("_sum", "_count")}


@dataclass(slots=True)
class Page:
    """A page, fetched once for all signals of a look.

    Attributes:
        url: Of it.
        timeout_s: For all of it.
        clock: Monotonic seconds.
    """

    url: str
    timeout_s: float = 5.0
    clock: Callable[[], float] = time.monotonic
    _look: tuple[float, Exposition | Gap, float] | None = None

    def look(self, now_s: float) -> tuple[Exposition | Gap, float]:
        """The page, and when it came by the clock; the same for the same `now_s`."""
        if self._look is None or self._look[0] != now_s:
            body = fetch(self.url, self.timeout_s, _MOST_BYTES, lambda body: "no reason given")
            self._look = now_s, body if isinstance(body, Gap) else parse(body), self.clock()
        return self._look[1:]


@dataclass(frozen=True, slots=True)
class _Counts:
    """What had been counted at a look; buckets, sums and counts by their names and labels."""

    at_s: float
    started_s: tuple[float, ...]
    values: Mapping[Key, float]


@dataclass(slots=True)
class Scraped:
    """A signal from a page.

    Attributes:
        page: Shared by all signals of it.
        name: Of the series, for a rate as it stands on the page (`requests_total`); of the histogram for the others.
        labels: That it must have. What is counted is summed over all series that have them; a level must be the only
            one.
        take: value of a level; rate per second, mean or percentile of what came since the last look.
        max_age_s: Older is stale, where the page tells the time of a number.
        most_s: Looks that are further apart are not compared.
    """

    page: Page
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    take: Take = "value"
    max_age_s: float = 120.0
    most_s: float = 600.0
    _before: _Counts | None = None

    def read(self, now_s: float) -> Read:
        """The number now, of all that was counted since the last look."""
        page, at_s = self.page.look(now_s)
        if isinstance(page, Gap):
            return page
        if self.take == "value":
            return self._level(page, now_s)
        counts = self._counts(page, at_s, now_s)
        if isinstance(counts, Gap):
            return counts
        before = self._before
        self._before = counts
        if before is None or at_s <= before.at_s:
            return Gap("a second look is needed")
        grown = _grown(before, counts, self.most_s)
        if isinstance(grown, Gap):
            return grown
        value = self._taken(grown, at_s - before.at_s)
        return value if isinstance(value, Gap) else Reading(value, now_s)

    def forget(self) -> None:
        """What comes is counted from the next look on, and not from the last."""
        self._before = None

    def _level(self, page: Exposition, now_s: float) -> Read:
        found = self._find(page, self.name, _LEVELS, now_s)
        if isinstance(found, Gap):
            return found
        if len(found) > 1:
            return Gap(f"{len(found)} series are called {self.name}: tell one by its labels:")
        series = next(iter(found.values()))
        return Reading(series.value, now_s if series.at_s is None else series.at_s)

    def _counts(self, page: Exposition, at_s: float, now_s: float) -> _Counts | Gap:
        values: dict[Key, float] = {}
        for part in _PARTS.get(self.take, ("_bucket",)):
            found = self._find(page, self.name + part, _COUNTED, now_s)
            if isinstance(found, Gap):
                return found
            values |= {key: series.value for key, series in found.items()}
        started_s = tuple(sorted(series.value for series in page.series.get(_STARTED, ())))
        return _Counts(at_s, started_s, values)

    def _find(self, page: Exposition, name: str, kinds: tuple[str, ...], now_s: float) -> dict[Key, Series] | Gap:
        """Every series of a name with the labels, each a finite and fresh number; at least one."""
        found: dict[Key, Series] = {}
        for series in page.series.get(name, ()):
            if not self.labels.items() <= series.labels.items():
                continue
            key = name, frozenset(series.labels.items())
            if key in found:
                return Gap(f"{name} is there twice with the same labels")
            if not math.isfinite(series.value):
                return Gap(f"{name} is {series.value}")
            if series.at_s is not None and now_s - series.at_s > self.max_age_s:
                return Gap(f"stale: {now_s - series.at_s:.0f} s old, at most {self.max_age_s:.0f} are allowed")
            found[key] = series
        if not found:
            labels = ", ".join(f"{label}={value}" for label, value in self.labels.items())
            return Gap(f"the page has no {name}" + (f" with {labels}" if labels else ""))
        if (kind := page.kinds[name]) not in kinds:
            return Gap(f"{name} is a {kind}, of which take: {self.take} says nothing")
        return found

    def _taken(self, grown: Mapping[Key, float], elapsed_s: float) -> float | Gap:
        if self.take == "rate":
            return math.fsum(grown.values()) / elapsed_s
        if self.take == "mean":
            total, count = (
                math.fsum(value for key, value in grown.items() if key[0] == self.name + part)
                for part in _PARTS["mean"]
            )
            return total / count if count > 0 else Gap("nothing was counted since the last look")
        buckets: dict[str, float] = {}
        for (_, labels), value in grown.items():
            bound = dict(labels).get("le", "")
            buckets[bound] = buckets.get(bound, 0.0) + value
        return percentile(int(self.take[1:]) / 100, buckets)


def _grown(before: _Counts, now: _Counts, most_s: float) -> dict[Key, float] | Gap:
    """By how much each grew; what was not there before began at 0."""
    if (apart_s := now.at_s - before.at_s) > most_s:
        return Gap(f"the last look was {apart_s:.0f} s ago, at most {most_s:.0f} are compared")
    anew = before.started_s and now.started_s and before.started_s != now.started_s
    if anew or any(now.values.get(key, -math.inf) < value for key, value in before.values.items()):
        return Gap("it was started anew since the last look")
    return {key: value - before.values.get(key, 0.0) for key, value in now.values.items()}


def percentile(share: float, buckets: Mapping[str, float]) -> float | Gap:
    """A percentile from a histogram, linear within its bucket, as PromQL's histogram_quantile has it.

    But beyond the last finite bound there is none, and none either where too few requests stand behind it.

    Args:
        share: 0.95 for p95; in (0, 1).
        buckets: Upper bound as written to how many were at most that, `+Inf` included.
    """
    try:
        counts = sorted((float(bound), count) for bound, count in buckets.items())
    except ValueError:
        return Gap("its buckets have no bounds")
    if not counts or counts[-1][0] != math.inf or [count for _, count in counts] != sorted(c for _, c in counts):
        return Gap("its buckets do not add up")
    total = counts[-1][1]
    if total <= 0:
        return Gap("nothing was counted since the last look")
    if share > 0.5 and total < (needed := required_requests(0, share, _CONFIDENCE)):
        return Gap(f"{total:g} were counted since the last look, and p{100 * share:g} needs {needed}")
    low, below = min(0.0, counts[0][0]), 0.0
    for bound, count in counts:
        if count >= share * total:
            break
        low, below = bound, count
    if bound == math.inf:
        return Gap(f"p{100 * share:g} lies beyond the last bucket, {low:g}")
    return low + (bound - low) * (share * total - below) / (count - below) if count > below else bound
