"""One line a recorded trace, and every question that the device did not answer: `traces.py TRACE…`."""

import json
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

COLUMNS = {  # heading: question, place of the value, factor, form
    "W": ("nvmlDeviceGetFieldValues:186", 2, 1e-3, ".0f"),
    "SM MHz": ("nvmlDeviceGetClockInfo:1", 1, 1, ".0f"),
    "°C": ("nvmlDeviceGetTemperature:0", 1, 1, ".0f"),
    "busy %": ("nvmlDeviceGetUtilizationRates", 1, 1, ".1f"),
    "SM %": ("nvmlGpmMetricsGet:2", 1, 1, ".1f"),
    "occup. %": ("nvmlGpmMetricsGet:3", 1, 1, ".1f"),
    "tensor %": ("nvmlGpmMetricsGet:5", 1, 1, ".1f"),
    "DRAM %": ("nvmlGpmMetricsGet:10", 1, 1, ".1f"),
}
REASONS = {74: "power cap", 76: "sync boost", 269: "software thermal", 270: "hardware thermal", 271: "power brake"}
Moments = list[dict[str, Any]]


def mean(moments: Moments, question: str, place: int, factor: float, form: str) -> str:
    """Mean over the moments that answered; a dash if none did."""
    answers = [moment["answers"].get(question, [-1]) for moment in moments]
    values = [answer[place] * factor for answer in answers if answer[0] == 0]
    return format(fmean(values), form) if values else "-"


def held_back(moments: Moments) -> str:
    """Share of the time that clocks were held back, by reason."""
    span_ns = (moments[-1]["at_s"] - moments[0]["at_s"]) * 1e9
    shares = {}
    for number, reason in REASONS.items():
        first, last = (moments[place]["answers"].get(f"nvmlDeviceGetFieldValues:{number}", [-1]) for place in (0, -1))
        if first[0] == last[0] == 0 and last[2] > first[2] and span_ns > 0:
            shares[reason] = (last[2] - first[2]) / span_ns
    return ", ".join(f"{reason} {share:.1%}" for reason, share in shares.items()) or "nothing"


def show(path: Path) -> None:
    header, *moments = (json.loads(line) for line in path.read_text().splitlines())
    marks = [mark for mark in ("synthetic", "replay") if header[mark]]
    print(f"{path.stem}: {header['name']}, driver {header['driver']}, {header['date']}, {header['load']}", *marks)
    if not moments:
        print("  no samples")
        return
    print(f"  {len(moments)} samples; " + ", ".join(f"{mean(moments, *how)} {what}" for what, how in COLUMNS.items()))
    print(f"  clocks held back by {held_back(moments)}")
    failed = Counter((name, answer[0]) for moment in moments for name, answer in moment["answers"].items() if answer[0])
    for (name, code), count in sorted(failed.items()):
        print(f"  {name}: NVML error {code}, {count} times")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        show(Path(name))
