"""What tuning has cost, as the journal tells it, also where a daemon died over it."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from autotuner.daemon.watching import LEAST_S, Pauses
from autotuner.store.journal import Entry

STRETCH = "stretch"  # of tuning: one entry when it begins, one when it ends


def spent_device_s(entries: Iterable[Entry], now: datetime) -> float:
    """Seconds of devices that studies used within 24 hours.

    Args:
        entries: Of the kind `STRETCH`, in order.
        now: UTC.

    Returns:
        A stretch that has no end was cut off: it counts until the next one begins, but no longer than its study may
        have taken.
    """
    known = list(entries)
    found = 0.0
    for entry, following in pairwise([*known, None]):
        assert entry is not None
        if "devices" not in entry.payload or now - entry.at >= timedelta(days=1):
            continue
        until = following.at if following is not None else now
        passed_s = max(0.0, (until - entry.at).total_seconds())
        ended = following is not None and "devices" not in following.payload
        most_s = math.inf if ended else float(entry.payload["most_s"])
        found += entry.payload["devices"] * min(passed_s, most_s)
    return found


def most_s(entries: Sequence[Entry], cycle: int, pauses: Pauses, now: datetime, devices: int) -> float:
    """Seconds that a cycle may take from now on, whether it begins or is taken up.

    Args:
        entries: Of the kind `STRETCH`, in order.
        cycle: Which.
        pauses: Of the service.
        now: UTC.
        devices: That it uses at once.

    Returns:
        What is left of the day's. One that began without bound, for a person wanted it beyond the day's, stays so; any
        other has a minute at least, to come to its end.
    """
    own = [entry.payload for entry in entries if entry.payload["cycle"] == cycle and "devices" in entry.payload]
    left_s = pauses.left_s(spent_device_s(entries, now), devices)
    if not own or math.isinf(pauses.device_s_per_day):
        return left_s
    if math.isinf(own[0]["most_s"]):
        return math.inf
    return LEAST_S if math.isinf(left_s) else left_s
