"""A page of numbers as services show them to Prometheus; the only door to its parser, which is an optional extra."""

import importlib.util
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotuner.daemon.sources import Gap

INSTALL = "pip install 'autotune-loop[prometheus]'"


@dataclass(frozen=True, slots=True)
class Series:
    """One number of a page.

    Attributes:
        labels: What tells it from others of its name.
        value: As written; may be NaN or infinite.
        at_s: When it held, seconds since 1970, where the page says so: hardly any does.
    """

    labels: Mapping[str, str]
    value: float
    at_s: float | None = None


@dataclass(frozen=True, slots=True)
class Exposition:
    """A page.

    Attributes:
        series: By the name in front of the braces.
        kinds: By the same name: counter, gauge, histogram, summary or unknown.
    """

    series: Mapping[str, Sequence[Series]]
    kinds: Mapping[str, str]


def is_installed() -> bool:
    """Whether pages can be read at all."""
    return importlib.util.find_spec("prometheus_client") is not None


def parse(body: bytes) -> Exposition | Gap:
    """Read a page in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
    from prometheus_client.parser import text_string_to_metric_families

    series: dict[str, list[Series]] = defaultdict(list)
    kinds: dict[str, str] = {}
    try:
        text = body.decode()
        if not text.endswith("\n"):  # as the format demands: else nobody knows whether the last number is whole
            return Gap("its page is empty or breaks off")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                at_s = None if sample.timestamp is None else float(sample.timestamp)
                series[sample.name].append(Series(sample.labels, float(sample.value), at_s))
                kinds[sample.name] = family.type
    except (ValueError, IndexError, KeyError) as error:
        return Gap(f"its page is not in Prometheus' text format: {' '.join(str(error).split())[:80]}")
    return Exposition(series, kinds)
