"""The one table of metrics: unit, direction, how raw samples become a value, and how a value is printed.

Inside, every quantity is in its SI base unit; only `format_value` converts. `parse_quantity` is its inverse, for
limits in a file ("150 ms", "4 GiB", "92 %").
"""

import math
import operator
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal, TypeAlias

from autotuner.errors import UsageError

Better: TypeAlias = Literal["higher", "lower"]
Reduction: TypeAlias = Literal["median", "mean", "p50", "p95", "p99", "max", "last"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    Attributes:
        name: What files and reports call it; ends in its unit.
        unit: SI base unit of the value: "s", "bytes", "1/s", "ratio", "nats", "W", "J".
        better: Which direction is better.
        samples: Name of the raw samples it is made of.
        reduction: How they become one value.
        text: One line for a person.
    """

    name: str
    unit: str
    better: Better
    samples: str
    reduction: Reduction
    text: str


SCORE = "score"


def _rate(name: str, text: str) -> Metric:
    return Metric(name, "1/s", "higher", name, "median", text)


_TABLE = (
    _rate("throughput_tokens_per_s", "tokens generated per second, median over blocks"),
    _rate("throughput_requests_per_s", "requests answered per second, median over blocks"),
    _rate("throughput_samples_per_s", "samples processed per second, median over blocks"),
    _rate("throughput_steps_per_s", "steps per second, median over blocks"),
    Metric(SCORE, "", "higher", SCORE, "last",
           "of several objectives: the product of what each gained over the baseline, by its weight"),
    Metric("latency_mean_s", "s", "lower", "latency_s", "mean", "mean time from request to complete answer"),
    Metric("latency_p50_s", "s", "lower", "latency_s", "p50", "median time from request to complete answer"),
    Metric("latency_p95_s", "s", "lower", "latency_s", "p95", "time within which 95 % of requests are answered"),
    Metric("latency_p99_s", "s", "lower", "latency_s", "p99", "time within which 99 % of requests are answered"),
    Metric("peak_memory_bytes", "bytes", "lower", "peak_memory_bytes", "max",
           "largest memory of the device that computes: the GPU allocator's reservation, of the fullest GPU; or on a "
           "CPU the resident sets of all ranks, and what loader processes have for themselves"),
    Metric("setup_s", "s", "lower", "setup_s", "last", "time to open the workload, compilation included"),
    Metric("step_s", "s", "lower", "block_step_s", "median", "time of a step, median over blocks"),
    Metric("input_wait_ratio", "ratio", "lower", "input_wait_ratio", "mean",
           "share of the steps' time spent waiting for data"),
    Metric("exposed_communication_ratio", "ratio", "lower", "exposed_communication_ratio", "mean",
           "share of the steps' time spent waiting for other processes, not hidden behind computation"),
    Metric("mfu_ratio", "ratio", "higher", "mfu_ratio", "median",
           "FLOPs of a step over what this machine's measured matrix products would do in its time, format by format"),
    Metric("ttft_p50_s", "s", "lower", "ttft_s", "p50", "median time from when a request was due to its first token"),
    Metric("ttft_p95_s", "s", "lower", "ttft_s", "p95", "time within which 95 % of requests have their first token"),
    Metric("ttft_p99_s", "s", "lower", "ttft_s", "p99", "time within which 99 % of requests have their first token"),
    Metric("tpot_p50_s", "s", "lower", "tpot_s", "p50", "median time of an output token after the first"),
    Metric("tpot_p95_s", "s", "lower", "tpot_s", "p95", "time of an output token after the first in 95 % of requests"),
    Metric("tpot_p99_s", "s", "lower", "tpot_s", "p99", "time of an output token after the first in 99 % of requests"),
    _rate("throughput_runs_per_s", "runs of a command per second"),
    _rate("goodput_requests_per_s", "requests per second that keep the service level"),
    _rate("slo_rate_per_s", "highest rate of requests at which the service level is kept"),
    Metric("slo_attainment_ratio", "ratio", "higher", "slo_attainment_ratio", "mean",
           "share of the requests that keep the service level"),
    Metric("error_ratio", "ratio", "lower", "error_ratio", "mean", "share of the requests that failed"),
    Metric("output_tokens_mean", "tokens", "higher", "output_tokens_mean", "mean", "tokens of an answer"),
    Metric("cost_per_million_tokens", "", "lower", "cost_per_million_tokens", "median",
           "price of a million output tokens, in the currency of the machine's price_per_hour"),
    Metric("top1_accuracy_ratio", "ratio", "higher", "top1_accuracy_ratio", "last",
           "share of the labelled set whose label is the first answer"),
    Metric("top5_accuracy_ratio", "ratio", "higher", "top5_accuracy_ratio", "last",
           "share of the labelled set whose label is among the first five answers"),
    Metric("run_cpu_s", "s", "lower", "run_cpu_s", "median", "CPU time of a run of a command"),
    Metric("run_peak_rss_bytes", "bytes", "lower", "run_peak_rss_bytes", "max",
           "most resident memory of a command and all below it"),
    Metric("power_mean_w", "W", "lower", "power_w", "mean", "mean electrical power of the GPU"),
    Metric("energy_per_sample_j", "J", "lower", "energy_per_sample_j", "median",
           "energy of the GPU for one sample: mean power over samples per second"),
    Metric("energy_per_token_j", "J", "lower", "energy_per_token_j", "median",
           "energy of the GPU for one token: mean power over tokens per second"),
    Metric("top1_agreement_ratio", "ratio", "higher", "top1_agreement_ratio", "last",
           "share of positions whose most likely token is the baseline's, near-ties left out"),
    Metric("top5_agreement_ratio", "ratio", "higher", "top5_agreement_ratio", "last",
           "mean overlap of the five most likely tokens with the baseline's"),
    Metric("output_kl_nats", "nats", "lower", "output_kl_nats", "last",
           "mean Kullback-Leibler divergence of the next-token distribution from the baseline's"),
    Metric("output_error_ratio", "ratio", "lower", "output_error_ratio", "last",
           "largest relative L2 deviation of an output vector from the baseline's"),
    Metric("loss_error_ratio", "ratio", "lower", "loss_error_ratio", "last",
           "deviation of the loss curve from the baseline's, relative to it"),
    Metric("loss_band_ratio", "ratio", "lower", "loss_band_ratio", "last",
           "deviation of the loss curve from the baseline's, in widths of the baseline's own band: 100 % fills it"),
    Metric("gradient_norm_error_ratio", "ratio", "lower", "gradient_norm_error_ratio", "last",
           "deviation of the gradients' norms from the baseline's, relative to them"),
)  # fmt: skip

METRICS: Mapping[str, Metric] = {row.name: row for row in _TABLE}


_SUFFIXES: tuple[tuple[str, str, Better], ...] = (
    ("_per_s", "1/s", "higher"), ("_s", "s", "lower"), ("_bytes", "bytes", "lower"), ("_ratio", "ratio", "higher"),
    ("_j", "J", "lower"), ("_w", "W", "lower"), ("_count", "", "higher"),
)  # fmt: skip


@lru_cache(maxsize=1000)
def derived_metric(name: str) -> Metric:
    """A metric that a workload reports of its own: its name ends in its unit, its value is the median.

    Which direction is better is what a study says; here the usual one is taken.

    Raises:
        UsageError: The name ends in no unit.
    """
    for suffix, unit, better in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix) and name.isidentifier():
            return Metric(name, unit, better, name, "median", "reported by the workload")
    endings = ", ".join(suffix for suffix, _, _ in _SUFFIXES)
    raise UsageError(f"{name!r} does not end in a unit", f"end it in one of {endings}; _count for a plain number")


def metric(name: str) -> Metric:
    """Look a metric up by name: of the table, or else one of a workload's own, by its unit.

    Raises:
        UsageError: No such metric; the hint names the nearest ones.
    """
    if name in METRICS:
        return METRICS[name]
    try:
        return derived_metric(name)
    except UsageError:
        raise unknown_metric(name) from None


def unknown_metric(name: str, own: Iterable[str] = ()) -> UsageError:
    """What to say of a name that no metric has."""
    known = [*METRICS, *own]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)
    return UsageError(f"unknown metric {name!r}", hint)


def goal(name: str, own: Collection[str] | None = None) -> Metric:
    """Look up a metric that a study may optimise or limit: one that every measurement gives by itself.

    Args:
        name: Its name.
        own: Names that the workload reports besides the table's; None where that is not known yet.

    Raises:
        UsageError: No such metric, or one that hangs on this machine's ceilings too.
    """
    if own is not None and name not in METRICS and name not in own:
        raise unknown_metric(name, own)
    if name == SCORE:
        raise UsageError(f"{name} is what several objectives make", "list the objectives, each with its weight")
    if name == "mfu_ratio":
        hint = "ask for the throughput: the same work in less time has the higher ratio"
        raise UsageError(f"{name} is reported, but cannot be asked for", hint)
    return metric(name)


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of the samples do not exceed (the inverse empirical CDF).

    >>> quantile([3.0, 1.0, 2.0], 0.95)
    3.0
    """
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones."""
    ordered = sorted(samples)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def reduce(samples: Sequence[float], reduction: Reduction) -> float:
    """One value from raw samples; NaN when there is none."""
    if not samples:
        return math.nan
    match reduction:
        case "median":
            return median(samples)
        case "mean":
            return math.fsum(samples) / len(samples)
        case "max":
            return max(samples)
        case "last":
            return samples[-1]
        case _:
            return quantile(samples, int(reduction[1:]) / 100)


def value_of(name: str, samples: Mapping[str, Sequence[float]]) -> float:
    """The value of a metric from a measurement's samples; NaN when it was not measured.

    Where the samples hold `block_s`, the steps take turns between fast and slow (see `plugins.Uneven`): then what was
    sampled by block is work over time of all blocks, and not their median, which would be that of the more frequent.
    """
    row = metric(name)
    seconds, values = samples.get("block_s", ()), samples.get(row.samples, ())
    if seconds and len(seconds) == len(values) and row.reduction == "median" and all(values):
        if row.better == "higher":  # work in a time, as rates and the MFU are
            return math.fsum(map(operator.mul, values, seconds)) / math.fsum(seconds)
        return math.fsum(seconds) / math.fsum(map(operator.truediv, seconds, values))  # time or energy for some work
    return reduce(values, row.reduction)


_SCALES: Mapping[str, tuple[tuple[str, float], ...]] = {
    "s": (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)),
    "bytes": (("TiB", 2.0**40), ("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10), ("bytes", 1.0)),
    "bytes/s": (("TB/s", 1e12), ("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3), ("bytes/s", 1.0)),
    "FLOP/s": (("PFLOP/s", 1e15), ("TFLOP/s", 1e12), ("GFLOP/s", 1e9), ("MFLOP/s", 1e6), ("FLOP/s", 1.0)),
    "J": (("MJ", 1e6), ("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)),
    "s/byte": (("us/byte", 1e-6), ("ns/byte", 1e-9), ("ps/byte", 1e-12)),
}
_ALIASES: Mapping[str, Mapping[str, float]] = {
    "bytes": {"B": 1.0, "KB": 1e3, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "byte": 1.0},
    "s": {"sec": 1.0, "second": 1.0, "seconds": 1.0, "µs": 1e-6, "minutes": 60.0},
    "ratio": {"%": 0.01},
    "1/s": {"/s": 1.0, "per_s": 1.0},
    "W": {"kW": 1e3},
    "J": {"µJ": 1e-6},
}


def format_value(name: str, value: float) -> str:
    """A value as a person reads it: "1.46 GiB", "134 ms", "2,204 /s", "99.1 %"."""
    return format_quantity(value, metric(name).unit)


def format_quantity(value: float, unit: str) -> str:
    """A number with its unit, three significant digits, scaled to a readable prefix."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if unit in _SCALES:
        scales = [pair for pair in _SCALES[unit] if pair[0] not in ("h", "min")] if abs(value) < 600 else _SCALES[unit]
        suffix, factor = next((pair for pair in scales if abs(value) >= pair[1]), scales[-1] if value else ("s", 1.0))
        return f"{_digits(value / factor)} {suffix if value else unit}"
    if unit == "ratio":
        return f"{100 * value:.1f} %"
    return f"{_digits(value)} {'/s' if unit == '1/s' else unit}".rstrip()


def _digits(value: float) -> str:
    """Three significant digits, never an exponent between 1e-3 and 1e9."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e9:
        return f"{value:.2e}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def parse_quantity(text: str, unit: str) -> float:
    """A number with an optional unit, in SI base units.

    >>> parse_quantity("150 ms", "s")
    0.15

    Raises:
        UsageError: Not a number, or a unit of another kind.
    """
    found = re.fullmatch(r"\s*([-+]?[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*(\S*)\s*", text)
    if not found:
        raise UsageError(f"{text!r} is not a number", f"write a number, with a unit of {unit} if you like")
    number, suffix = float(found[1].replace("_", "")), found[2]
    factors = dict(_SCALES.get(unit, ())) | dict(_ALIASES.get(unit, {})) | {"": 1.0, unit: 1.0}
    if suffix not in factors:
        allowed = ", ".join(sorted(name for name in factors if name))
        raise UsageError(f"{suffix!r} is not a unit of {unit}", f"use one of {allowed}")
    return number * factors[suffix]
