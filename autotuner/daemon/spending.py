"""What tuning has cost, as the journal tells it, also where a daemon died over it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import pairwise

from autotuner.daemon.leading import Leadership
from autotuner.daemon.watching import LEAST_S, Pauses
from autotuner.daemon.world import World
from autotuner.errors import MachineError
from autotuner.store.journal import Entry, Journal

TUNING = "tuning"  # kind of an entry: a cycle has begun, why, and whether a person asked for it
STRETCH = "stretch"  # of tuning: one entry when it begins, one when it ends

_DAY_S = 86400.0


class Spending:
    """Of one service.

    Args:
        journal: Of the service.
        lease: Of the daemon.
        world: Whose devices they are.
        pauses: How much may be spent.
        kept: Entries of each kind that the journal keeps.
    """

    def __init__(self, journal: Journal, lease: Leadership, world: World, pauses: Pauses, kept: int) -> None:
        self._journal, self._lease, self._world, self._pauses, self._kept = journal, lease, world, pauses, kept

    def spent_device_s(self, now: datetime) -> float:
        """Seconds of devices within the last 24 hours."""
        return spent_device_s(self._stretches(), now)

    @contextmanager
    def stretch(self, cycle: int) -> Iterator[float]:
        """Devices are used for a cycle within; yields for how many seconds at most.

        Raises:
            LeaseLostError: Another daemon leads.
        """
        self._journal.forget(self._lease.token, self._kept)  # one that fails is taken up at every turn
        devices, now = self._world.devices(), self._world.clock()
        asked = any(entry.payload.get("asked") for entry in self._journal.entries(kinds=(TUNING,), last=1))
        left_s = most_s(list(self._stretches()), cycle, asked, self._pauses, now, devices)
        self._write({"cycle": cycle, "devices": devices, "most_s": left_s})
        try:
            yield left_s
        except BaseException:
            with suppress(MachineError):  # the first error says more than that another one leads, or a locked record
                self._write({"cycle": cycle})
            raise
        self._write({"cycle": cycle})

    def _stretches(self) -> Iterator[Entry]:
        return self._journal.entries(kinds=(STRETCH,), last=self._kept)

    def _write(self, payload: dict[str, object]) -> None:
        self._journal.append(self._lease.token, STRETCH, payload, self._world.clock())


def spent_device_s(entries: Iterable[Entry], now: datetime) -> float:
    """Seconds of devices that studies used within 24 hours.

    Args:
        entries: Of the kind `STRETCH`, in order.
        now: UTC.

    Returns:
        A stretch that has no end was cut off: it counts until the next one begins, but no longer than its study may
        have taken. Of one that began longer ago only what lies within the 24 hours counts.
    """
    known = list(entries)
    found = 0.0
    for entry, following in pairwise([*known, None]):
        assert entry is not None
        if "devices" not in entry.payload:
            continue
        begun_s = (entry.at - now).total_seconds()
        until_s = (following.at - now).total_seconds() if following is not None else 0.0
        if following is None or "devices" in following.payload:
            until_s = min(until_s, begun_s + float(entry.payload["most_s"]))
        found += entry.payload["devices"] * max(0.0, until_s - max(begun_s, -_DAY_S))
    return found


def most_s(entries: Sequence[Entry], cycle: int, asked: bool, pauses: Pauses, now: datetime, devices: int) -> float:
    """Seconds that a cycle may take from now on, whether it begins or is taken up.

    Args:
        entries: Of the kind `STRETCH`, in order.
        cycle: Which.
        asked: Whether a person asked for it.
        pauses: Of the service.
        now: UTC.
        devices: That it uses at once.

    Returns:
        What is left of the day's, but a minute at least, to come to its end. One that a person wants when less is left
        than that begins without bound, and stays so.
    """
    own = [entry.payload for entry in entries if entry.payload["cycle"] == cycle and "devices" in entry.payload]
    left_s = pauses.left_s(spent_device_s(entries, now), devices)
    beyond = math.isinf(own[0]["most_s"]) if own else left_s < LEAST_S
    return math.inf if asked and beyond else max(LEAST_S, left_s)
