"""What a session of load found."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotuner.metrics import format_quantity, quantile
from autotuner.report.json_lines import plain
from autotuner.report.terminal import columns, facts
from autotuner.report.text import count_failures, one_line, percent, plural
from autotuner.statistics import required_requests

CONFIDENCE = 0.95  # of a percentile that is printed
SHARES = (0.5, 0.9, 0.95, 0.99)
NAMES = {"latency_s": "latency", "ttft_s": "first token", "tpot_s": "each further token"}


class Found(Protocol):
    """What `load.session.load_server` gives."""

    @property
    def url(self) -> str: ...  # noqa: D102
    @property
    def arrivals(self) -> str: ...  # noqa: D102
    @property
    def offered_per_s(self) -> float: ...  # noqa: D102
    @property
    def requests(self) -> int: ...  # noqa: D102
    @property
    def answered(self) -> int: ...  # noqa: D102
    @property
    def duration_s(self) -> float: ...  # noqa: D102
    @property
    def tokens(self) -> int | None: ...  # noqa: D102
    @property
    def samples(self) -> Mapping[str, Sequence[float]]: ...  # noqa: D102
    @property
    def failures(self) -> Mapping[str, int]: ...  # noqa: D102
    @property
    def attainment_ratio(self) -> float: ...  # noqa: D102
    @property
    def highest_rate_per_s(self) -> float | None: ...  # noqa: D102
    @property
    def saturated(self) -> bool: ...  # noqa: D102
    @property
    def doubts(self) -> str: ...  # noqa: D102
    @property
    def lag_s(self) -> float: ...  # noqa: D102
    @property
    def client_busy_ratio(self) -> float: ...  # noqa: D102


def load_view(found: Found) -> RenderableType:
    """Percentiles that enough requests stand behind, throughput, and whether all of it may be believed."""
    title = f"{one_line(found.url)}: {plural(found.requests, 'request')}, {_arrivals(found)}"
    return Group(Text(title, style="bold"), "", _latencies(found), "", _facts(found))


def _arrivals(found: Found) -> str:
    if math.isnan(found.offered_per_s):
        return "closed loop"
    return f"{found.arrivals} arrivals, {format_quantity(found.offered_per_s, '1/s')}"


def _latencies(found: Found) -> Table:
    table = columns("", "mean", *(f"p{share * 100:.0f}" for share in SHARES), "max", left=[""])
    for name, samples in found.samples.items():
        mean = math.fsum(samples) / len(samples)
        values = [mean, *(_claimed(samples, share) for share in SHARES), max(samples)]
        table.add_row(Text(NAMES[name]), *(Text(format_quantity(value, "s")) for value in values))
    return table


def _claimed(samples: Sequence[float], share: float) -> float:
    """A percentile; NaN where too few requests stand behind it."""
    enough = share == 0.5 or len(samples) >= required_requests(0, share, CONFIDENCE)
    return quantile(samples, share) if enough else math.nan


def _facts(found: Found) -> Table:
    served = f"{format_quantity(found.answered / found.duration_s, '1/s')} requests"
    tokens = "" if found.tokens is None else f", {format_quantity(found.tokens / found.duration_s, '1/s')} tokens"
    rows = [("served", served.replace("/s requests", "requests/s") + tokens.replace("/s tokens", "tokens/s"))]
    if found.highest_rate_per_s is not None:
        rate = format_quantity(found.highest_rate_per_s, "1/s").replace(" /s", " requests/s")
        rows.append(("highest", rate if found.highest_rate_per_s else "no rate keeps the service level"))
    if not math.isnan(found.attainment_ratio):
        rows.append(("level", f"kept by {percent(found.attainment_ratio)} of the requests"))
    failed = found.requests - found.answered
    rows.append(("failed", count_failures({one_line(k): n for k, n in found.failures.items()}) if failed else "none"))
    if found.saturated:
        rows.append(("saturated", "requests piled up: the latencies say only how long that lasted"))
    few = [f"p{s * 100:.0f}" for s in SHARES if any(math.isnan(_claimed(v, s)) for v in found.samples.values())]
    if few:
        needed = required_requests(0, float(few[0][1:]) / 100, CONFIDENCE)
        rows.append(("too few", f"requests for {', '.join(few)}: {few[0]} needs {needed}"))
    health = f"1 % sent {format_quantity(found.lag_s, 's')} late or later, {percent(found.client_busy_ratio)} of a core"
    rows.append(("client", found.doubts or f"to be believed: {health}"))
    return facts(rows)


def load_json(found: Found) -> dict[str, Any]:
    """Everything, raw samples included; percentiles only where enough requests stand behind them."""
    percentiles = {
        name: {f"p{share * 100:.0f}": _claimed(values, share) for share in SHARES}
        for name, values in found.samples.items()
    }
    names = (
        "url", "arrivals", "offered_per_s", "requests", "answered", "duration_s", "tokens", "failures",
        "attainment_ratio", "highest_rate_per_s", "saturated", "doubts", "lag_s", "client_busy_ratio",
    )  # fmt: skip
    known = {name: getattr(found, name) for name in names}
    rates = {
        "throughput_requests_per_s": found.answered / found.duration_s,
        "throughput_tokens_per_s": None if found.tokens is None else found.tokens / found.duration_s,
    }
    samples = {name: list(values) for name, values in found.samples.items()}
    document: dict[str, Any] = plain({**known, **rates, "percentiles": percentiles, "samples": samples})
    return document
