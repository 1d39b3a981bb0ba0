"""What tuning has cost, as the journal tells it, also where a daemon died over it."""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise

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
