"""What NVIDIA's command-line profilers print: tables of nsys, hardware counters of ncu.

Formats as their guides document them (Nsight Systems, "Statistical Reports"; Nsight Compute CLI, "Output Pages"):
CSV after lines of progress, numbers with thousands separators, units in headers (nsys) or in a second row (ncu), `n/a`
for what a device cannot count.
"""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

DURATION = "gpu__time_duration.sum"
SM = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
OCCUPANCY = "sm__warps_active.avg.pct_of_peak_sustained_active"
LOAD_SECTORS = "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio"
STORE_SECTORS = "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio"
LOAD_USED = "smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct"
STORE_USED = "smsp__sass_average_data_bytes_per_sector_mem_global_op_st.pct"
METRICS = (DURATION, SM, DRAM, OCCUPANCY, LOAD_SECTORS, STORE_SECTORS, LOAD_USED, STORE_USED)

_UNITS_S = {
    "ns": 1e-9, "nsecond": 1e-9, "nanosecond": 1e-9, "us": 1e-6, "usecond": 1e-6, "microsecond": 1e-6,
    "ms": 1e-3, "msecond": 1e-3, "millisecond": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0,
}  # fmt: skip
_TOTAL = re.compile(r"Total Time(?: \((\w+)\))?$")
_MEDIAN = re.compile(r"Med(?:ian)?(?: \((\w+)\))?$")


@dataclass(frozen=True, slots=True)
class Total:
    """A row of nsys: a kernel, an API call, or a kind of copy, in the whole captured range."""

    name: str
    count: int
    total_s: float
    median_s: float


@dataclass(frozen=True, slots=True)
class NsysTables:
    """The three reports, most expensive rows first."""

    kernels: tuple[Total, ...] = ()
    calls: tuple[Total, ...] = ()
    copies: tuple[Total, ...] = ()


@dataclass(frozen=True, slots=True)
class Counters:
    """Hardware counters of a kernel, means over the launches that ncu replayed; NaN where the device has none.

    Attributes:
        kernel: Its name.
        launches: How many were replayed.
        duration_s: Of one, at the clocks that ncu fixes.
        sm_ratio: Throughput of the SMs, of their peak.
        dram_ratio: Throughput of the device's memory, of its peak.
        occupancy_ratio: Active warps, of the most that fit.
        load_sectors: 32-byte sectors that one warp's global load touches; 4 is coalesced for 4-byte elements, 32 the
            worst.
        store_sectors: The same of stores.
        load_used_ratio: Bytes that loads use of every sector, of all that are moved.
        store_used_ratio: The same of stores.
    """

    kernel: str
    launches: int
    duration_s: float = math.nan
    sm_ratio: float = math.nan
    dram_ratio: float = math.nan
    occupancy_ratio: float = math.nan
    load_sectors: float = math.nan
    store_sectors: float = math.nan
    load_used_ratio: float = math.nan
    store_used_ratio: float = math.nan


def parse_nsys(text: str) -> NsysTables:
    """The tables in what `nsys stats --format csv` printed, in any order; a missing one is empty.

    Args:
        text: Of the reports cuda_gpu_kern_sum, cuda_api_sum and cuda_gpu_mem_time_sum.
    """
    found: dict[str, tuple[Total, ...]] = {}
    for header, rows in _tables(text, "Time (%)", "Time(%)"):
        kind = _kind(header)
        if kind and kind not in found:
            found[kind] = tuple(sorted(_totals(header, rows), key=lambda total: -total.total_s))
    return NsysTables(**found)


def _kind(header: Sequence[str]) -> str:
    """Which report has these columns."""
    if "Operation" in header:
        return "copies"
    if "Num Calls" in header:
        return "calls"
    return "kernels" if "Instances" in header and "Name" in header else ""


def _totals(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[Total]:
    name = header.index("Operation" if "Operation" in header else "Name")
    count = next(header.index(key) for key in ("Instances", "Num Calls", "Count", "Operations") if key in header)
    total, total_unit = _column(header, _TOTAL)
    middle, middle_unit = _column(header, _MEDIAN)
    for row in rows:
        times, total_s = _number(row[count]), _number(row[total]) * total_unit
        if math.isfinite(times) and times > 0 and math.isfinite(total_s):
            median_s = _number(row[middle]) * middle_unit if middle >= 0 else total_s / times
            yield Total(row[name], int(times), total_s, median_s)


def _column(header: Sequence[str], wanted: re.Pattern[str]) -> tuple[int, float]:
    """Place and unit in seconds of a column; -1 when there is none."""
    for index, title in enumerate(header):
        if match := wanted.match(title):
            return index, _UNITS_S.get(match[1] or "ns", 1e-9)
    return -1, 1.0


def parse_ncu(text: str) -> tuple[Counters, ...]:
    """The counters in what `ncu --csv` printed, a kernel a row, slowest first.

    Takes both forms: `--page raw` has a column a metric and their units in the row below the header; without it there
    is a row for each metric.
    """
    launches: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for header, rows in _tables(text, "ID"):
        if "Kernel Name" in header:
            for key, metric, value, unit in _cells(header, list(rows)):
                if metric in METRICS and math.isfinite(value):
                    launches[key][metric] = value * (_UNITS_S.get(unit, 1e-9) if metric == DURATION else 1.0)
    kernels: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for (_, kernel), values in launches.items():
        kernels[kernel].append(values)
    found = [_counters(kernel, seen) for kernel, seen in kernels.items()]
    return tuple(sorted(found, key=lambda c: -c.duration_s * c.launches if math.isfinite(c.duration_s) else 0.0))


def _cells(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[tuple[tuple[str, str], str, float, str]]:
    """(launch, kernel), metric, value and unit, from either form."""
    number, kernel = header.index("ID"), header.index("Kernel Name")
    if "Metric Name" in header:
        places = [header.index(title) for title in ("Metric Name", "Metric Value", "Metric Unit")]
        for row in rows:
            metric, value, unit = (row[place] for place in places)
            yield (row[number], row[kernel]), metric, _number(value), unit
        return
    units = rows[0] if rows and not rows[0][number] else [""] * len(header)
    for row in rows:
        if row[number]:
            for title, value, unit in zip(header, row, units, strict=True):
                yield (row[number], row[kernel]), title, _number(value), unit


def _counters(kernel: str, seen: Sequence[Mapping[str, float]]) -> Counters:
    def mean(metric: str, scale: float = 1.0) -> float:
        values = [launch[metric] for launch in seen if metric in launch]
        return scale * sum(values) / len(values) if values else math.nan

    return Counters(
        kernel=kernel,
        launches=len(seen),
        duration_s=mean(DURATION),
        sm_ratio=mean(SM, 0.01),
        dram_ratio=mean(DRAM, 0.01),
        occupancy_ratio=mean(OCCUPANCY, 0.01),
        load_sectors=mean(LOAD_SECTORS),
        store_sectors=mean(STORE_SECTORS),
        load_used_ratio=mean(LOAD_USED, 0.01),
        store_used_ratio=mean(STORE_USED, 0.01),
    )


def _tables(text: str, *first: str) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header and rows of every CSV table whose first column is called so; what is no row ends a table."""
    header: list[str] = []
    rows: list[list[str]] = []
    for row in csv.reader(io.StringIO(text)):
        if row and row[0] in first:
            if header:
                yield header, rows
            header, rows = row, []
        elif header and len(row) == len(header):
            rows.append(row)
        elif header:
            yield header, rows
            header, rows = [], []
    if header:
        yield header, rows


def _number(text: str) -> float:
    """A number with or without thousands separators; NaN for `n/a` and words."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan


def base_name(kernel: str) -> str:
    """The function's bare name, by which ncu selects kernels (`--kernel-name-base function`).

    >>> base_name("void at::native::(anonymous namespace)::softmax<4, float>(int)")
    'softmax'
    """
    plain = re.sub(r"(\(anonymous namespace\)|<unnamed>)::", "", kernel).removeprefix("void ")
    words = re.split(r"[<(]", plain, maxsplit=1)[0].rpartition("::")[2].split()
    return words[-1] if words else kernel


def complaint(text: str) -> str:
    """The first error line of either tool, without its decoration; empty when there is none."""
    for line in text.splitlines():
        if match := re.match(r"\s*(?:==ERROR==|ERROR:|Error:|FATAL ERROR:)\s*(.+)", line):
            return match[1].strip()
    return ""
