"""Every number that a daemon reads: the signals of a service, at a look and over a window of both arms."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

from autotuner.daemon.loading import Load, Pool
from autotuner.daemon.probing import Probed, Probes
from autotuner.daemon.scraping import Page, Scraped
from autotuner.daemon.signals import CANDIDATE, STABLE, Signal
from autotuner.daemon.sources import Gap, Prometheus, Read, Reading, Source
from autotuner.daemon.spec import ServiceSpec
from autotuner.types import Window

_PATIENCE = 3.0  # intervals between two looks that are still compared
_MOST_REQUESTS = 1e12  # of a window: beyond it a count is a mistake

logger = logging.getLogger(__name__)


class Measuring:
    """The sources of both arms, which remember from look to look; ends with the `with`.

    Args:
        spec: What is read, and where.
        moved: Is called whenever a part of it has ended, for who wants to know that it goes on.
    """

    def __init__(self, spec: ServiceSpec, moved: Callable[[], None] = lambda: None) -> None:
        self._spec, self._stack = spec, ExitStack()
        self._load = Load(spec.load, spec.arms, self._stack, moved) if spec.load else None
        self._probes, self._pages = Probes(self._stack), dict[str, Page]()
        self._sources = {
            arm: {name: self._source(signal, arm) for name, signal in spec.signals.items()}
            for arm in (STABLE, CANDIDATE)
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def look(self) -> Mapping[str, Read]:
        """Every signal of what serves stably; with a load after one episode of it."""
        if self._load:
            self._load.look()
        return self._read(self._spec.signals, STABLE, time.time())

    def window(self, promoted: bool = False) -> Window:
        """Both arms over the same seconds: what is counted is counted from the beginning of the window.

        Under load both get the same requests; a window in which the client cannot be believed has no numbers at all,
        nor has one in which nobody knows how many requests failed: no failure may be overlooked.

        Args:
            promoted: The new one serves stably, and the old one stands beside it: where only the old one answers, all
                requests to the new one fail, and count. In a canary such failures of the stable arm would excuse
                those of the candidate: a window at whose beginning it does not answer is a gap.
        """
        levels = (limit.metric for limit in self._spec.levels)
        names = tuple(dict.fromkeys((self._spec.aim.metric, *self._spec.canary.guards, *levels)))
        self._begin(names, time.time())
        pools: Mapping[str, Pool] | Gap = {}
        if self._load:
            pools = self._load.compare(self._spec.canary.window, (STABLE, CANDIDATE) if promoted else (STABLE,))
        else:
            time.sleep(self._spec.canary.window)
        if isinstance(pools, Gap):
            return Window({}, {}, gap=pools.reason)
        now_s = time.time()
        found = {arm: self._read(names, arm, now_s) for arm in (STABLE, CANDIDATE)}
        counts: dict[str, tuple[int, int]] = {}
        for arm in (STABLE, CANDIDATE):
            counted = self._counts(arm, pools)
            if isinstance(counted, Gap):
                logger.warning("a window cannot be used: the requests of %s: %s", arm, counted.reason)
                return Window({}, {}, gap=f"the requests of {arm}: {counted.reason}")
            counts[arm] = counted
        numbers = _numbers(found[STABLE]), _numbers(found[CANDIDATE])
        return Window(*numbers, *counts[STABLE], *counts[CANDIDATE], _gap(found))

    def _begin(self, names: Iterable[str], now_s: float) -> None:
        """Even where this look fails: an earlier one would tell of other seconds."""
        for arm in (STABLE, CANDIDATE):
            for source in (self._sources[arm][name] for name in names):
                if isinstance(source, Scraped):
                    source.forget()
                    source.read(now_s)

    def _read(self, names: Iterable[str], arm: str, now_s: float) -> dict[str, Read]:
        return {name: self._sources[arm][name].read(now_s) for name in names}

    def _counts(self, arm: str, pools: Mapping[str, Pool]) -> tuple[int, int] | Gap:
        """Requests and failures of an arm: the client's own, or what Prometheus counted; 0 where nobody counts."""
        if arm in pools:
            return pools[arm].requests, pools[arm].failures.total()
        canary, found = self._spec.canary, list[int]()
        for name in ("failures", "requests"):  # in this order: what comes in between is no failure too many
            source = self._spec.counted(getattr(canary, name), arm)
            if source is None:
                return 0, 0
            read = source.read(time.time())
            if isinstance(read, Gap):
                return Gap(f"canary.{name}: {read.reason}")
            if not 0 <= (count := round(read.value)) < _MOST_REQUESTS:  # PromQL's increase() gives fractions
                return Gap(f"canary.{name}: {read.value:g} is no number of requests")
            found.append(count)
        failures, requests = found
        if failures > requests:
            return Gap(f"canary.failures: {failures:,} of {requests:,} requests failed, which cannot be")
        return requests, failures

    def _source(self, signal: Signal, arm: str) -> Source:
        spec = self._spec
        fill = partial(spec.arms.fill, arm=arm)
        if signal.metrics is not None:
            url = fill(signal.metrics)
            page = self._pages.setdefault(url, Page(url))
            labels = {name: fill(value) for name, value in signal.labels.items()}
            most_s = max(signal.max_age, _PATIENCE * max(spec.watch.interval, spec.canary.window))
            return Scraped(page, signal.name, labels, signal.take, signal.max_age, most_s)
        if signal.probe is not None:
            return Probed(self._probes, signal.probe, signal.name)
        if signal.load is not None:
            assert self._load is not None
            return _Loaded(self._load, arm, signal.load)
        assert signal.query is not None
        url = signal.url or spec.prometheus or ""
        return Prometheus(fill(url), fill(signal.query), fill(signal.age_query), signal.max_age)


def _numbers(found: Mapping[str, Read]) -> dict[str, float]:
    """What has a number; a gap is left out, and the judge sees that it is missing."""
    return {name: read.value for name, read in found.items() if isinstance(read, Reading)}


def _gap(found: Mapping[str, Mapping[str, Read]]) -> str:
    """The first of the arms' gaps, in words; empty for none."""
    gaps = (
        f"{name} of {arm}: {read.reason}"
        for arm, reads in found.items()
        for name, read in reads.items()
        if isinstance(read, Gap)
    )
    return next(gaps, "")


class _Loaded:
    """A signal of our own client."""

    def __init__(self, load: Load, arm: str, metric: str) -> None:
        self._load, self._arm, self._metric = load, arm, metric

    def read(self, now_s: float) -> Read:
        """Of what was measured last."""
        return self._load.read(self._arm, self._metric, now_s)
