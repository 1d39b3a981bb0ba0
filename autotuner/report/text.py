"""Small pieces of text that every report shares. Numbers of a metric are printed by `metrics.format_value` alone."""

import math
import re
from collections.abc import Mapping

from autotuner import metrics
from autotuner.errors import UsageError
from autotuner.metrics import format_value
from autotuner.types import Config, Failure, Trial, Value, Verdict, Verification

_NOTHING_KNOWN = 1e3  # of the ends of an interval to each other
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")  # ECMA-48: CSI and OSC


def one_line(text: str) -> str:
    """`text` on one line, without what could steer a terminal: a worker's words are not trusted."""
    plain = _ESCAPES.sub("", text)
    return " ".join("".join(char if char.isprintable() else " " for char in plain).split())


def shorten(text: str, width: int) -> str:
    """The first `width` characters of `text` on one line, the cut marked by an ellipsis."""
    line = one_line(text)
    return line if len(line) <= width else line[: max(0, width - 1)].rstrip() + "…"


def spell(value: Value) -> str:
    """A parameter's value as a study file spells it: `true`, `null`, `16`, `sdpa`."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case _:
            return one_line(str(value))


def changes(config: Config, baseline: Config) -> Config:
    """What differs from the baseline, in the configuration's order."""
    return {name: value for name, value in config.items() if name not in baseline or baseline[name] != value}


def describe(changed: Config) -> str:
    """`batch_size=16 compile=default`; "baseline" when nothing differs."""
    return " ".join(f"{name}={spell(value)}" for name, value in changed.items()) or "baseline"


def print_value(metric: str, value: float) -> str:
    """A metric's value with its unit; six digits without one for one whose name tells none."""
    try:
        return format_value(metric, value)
    except UsageError:
        return f"{value:.6g}"


def factor(ratio: float) -> str:
    """`1.33×`; "-" when it is not known."""
    if not math.isfinite(ratio):
        return "-"
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.2f}×"


def bounds(interval: tuple[float, float]) -> str:
    """`[1.28, 1.38]`; empty when an end is still open, or so far off that nothing is known yet."""
    low, high = interval
    return f"[{low:.2f}, {high:.2f}]" if low > 0 and high / low < _NOTHING_KNOWN else ""


def percent(ratio: float, decimals: int = 1) -> str:
    """`1.2 %`; `? %` for what is not known."""
    if not math.isfinite(ratio):
        return "? %"
    return f"{100 * ratio:.{decimals}f} %"


def duration(seconds: float) -> str:
    """How a person says it: `3.2 s`, `42 s`, `4 min 12 s`, `2 h 03 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def clock(seconds: float) -> str:
    """A running clock: `0:42`, `4:12`, `2:03:10`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """`1 trial`, `30 trials`, `2 launches`; `nouns` is for a plural that needs more than an s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def gain(value: float, baseline: float, maximize: bool) -> float:
    """How many times better than the baseline, in the direction of improvement; NaN when it cannot be said."""
    above, below = (value, baseline) if maximize else (baseline, value)
    return above / below if below > 0 and math.isfinite(above) and math.isfinite(below) else math.nan


def more_is_better(verification: Verification, metric: str) -> bool:
    """As the study asked for it, else as its kind has it."""
    known = verification.maximize.get(metric)
    return metrics.metric(metric).better == "higher" if known is None else known


def value_of(trial: Trial, metric: str) -> float:
    """The trial's value of a metric; NaN when it failed."""
    return trial.verdict.objectives.get(metric, math.nan) if trial.verdict else math.nan


def violation(verdict: Verdict) -> str:
    """The limit that is broken most, `breaks latency_p95_s <= 150 ms by 12 %`; empty when all are kept.

    What is no comparison, like the guard of the outputs, has no meaningful excess: `not kept: same outputs`.
    """
    broken = {limit: excess for limit, excess in verdict.violations.items() if not excess <= 0}
    if not broken:
        return ""
    worst = max(broken, key=lambda limit: broken[limit])
    if "<" not in worst and ">" not in worst:
        return f"not kept: {worst}"
    by = f" by {percent(broken[worst], 0)}" if math.isfinite(broken[worst]) else ""
    return f"breaks {worst}{by}"


def failure_text(failure: Failure) -> str:
    """Kind and message on one line: `out_of_memory: tried to allocate 2.00 GiB`."""
    return f"{failure.kind}: {one_line(failure.message)}" if failure.message else str(failure.kind)


def count_failures(failures: Mapping[str, int]) -> str:
    """`2 out_of_memory, 1 timed_out`, most frequent first."""
    ordered = sorted(failures.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)
