"""Metrics: counters, distributions, and values that stand until they are set again; NaN and infinity are left out."""

import math

from autotuner.telemetry.live import NO_ATTRIBUTES, Attributes, current, present

_BOUNDARIES = tuple(digit * 10.0**exponent for exponent in range(-5, 5) for digit in (1, 2, 5))


def count(name: str, amount: float = 1, attributes: Attributes = NO_ATTRIBUTES, unit: str = "") -> None:
    """Add to a counter; `amount` must not be negative."""
    if live := current():
        live.meter.create_counter(name, unit).add(amount, present(attributes))


def observe(name: str, value: float, unit: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
    """Add a value to a distribution; its buckets go 1, 2, 5 from 1e-5 to 5e4 in `unit` ("s", "By", "1")."""
    if live := current():
        histogram = live.meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=_BOUNDARIES)
        histogram.record(value, present(attributes))


def gauge(name: str, value: float, unit: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
    """Set a value that stands until it is set again, `hw.power` in "W" for instance."""
    if live := current():
        live.meter.create_gauge(name, unit).set(value, present(attributes))


def level(name: str, value: float, unit: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
    """Set an amount that makes sense added up over its attributes, `hw.gpu.memory.usage` in "By" for instance."""
    if (live := current()) and math.isfinite(value):  # the SDK leaves it out, but it would stay in the difference
        kept = present(attributes)
        key = (name, repr(sorted(kept.items())))
        live.meter.create_up_down_counter(name, unit).add(value - live.levels.get(key, 0), kept)
        live.levels[key] = value
