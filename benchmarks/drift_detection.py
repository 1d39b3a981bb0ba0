"""How often does the watch over a history cry wolf, and how soon does it see a real change?

    python benchmarks/drift_detection.py [--histories 100] [--length 1000] [--json OUT]

Simulated histories through the real `find_drift` and `forecast`, beside rules that people use: five standard
deviations of the last 20 values, and a t test of the last 5 against the 20 before, after every value. Each value has
2 % noise: normal; heavy-tailed (Student's t with 3 degrees of freedom); spiking (one in 20 is 10 % slower); correlated
from value to value (AR(1), 0.3 and 0.5). Without a change every alarm is a lie; with one, all values from it on are 5 %
slower. Only verdicts are counted, so the speed of the machine that runs this does not matter.
"""

import argparse
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from statistics import fmean, median, stdev

from results import describe_machine, publish

from autotuner.analyze.drift import find_drift, forecast

NOISE = 0.02
STEP = math.log(0.95)
BEFORE = (10, 20, 40, 100)
SEEN_WITHIN = 20
AFTER = 40
LOOKED_AHEAD = (10, 30, 100)


def normal(rng: random.Random) -> Iterator[float]:
    """Independent."""
    while True:
        yield NOISE * rng.gauss(0, 1)


def heavy(rng: random.Random) -> Iterator[float]:
    """Student's t with 3 degrees of freedom, scaled to the same standard deviation."""
    while True:
        chi = sum(rng.gauss(0, 1) ** 2 for _ in range(3))
        yield NOISE * rng.gauss(0, 1) / math.sqrt(chi / 3) / math.sqrt(3)


def spiking(rng: random.Random) -> Iterator[float]:
    """Independent, and one in 20 is 10 % slower besides."""
    for value in normal(rng):
        yield value - (0.1 if rng.random() < 0.05 else 0.0)


def correlated(rng: random.Random, weight: float) -> Iterator[float]:
    """An autoregressive process of order 1."""
    value = rng.gauss(0, 1)
    while True:
        yield NOISE * value
        value = weight * value + math.sqrt(1 - weight**2) * rng.gauss(0, 1)


NOISES: dict[str, Callable[[random.Random], Iterator[float]]] = {
    "normal": normal,
    "heavy-tailed (t3)": heavy,
    "spiking": spiking,
    "AR(1) 0.3": partial(correlated, weight=0.3),
    "AR(1) 0.5": partial(correlated, weight=0.5),
}


def ours(series: Sequence[float]) -> list[int]:
    """Places of the values at which an alarm is given."""
    return [change.proven_at for change in find_drift(series).changes]


def five_deviations(series: Sequence[float]) -> list[int]:
    """A value further than five standard deviations of the 20 before it; then it waits for 20 values of the new."""
    return _watch(series, 20, lambda seen, value: abs(value - fmean(seen)) > 5 * stdev(seen))


def t_test(series: Sequence[float]) -> list[int]:
    """The last 5 against the 20 before them, |t| > 4; then it waits for 25 values of the new."""

    def differs(seen: Sequence[float], value: float) -> bool:
        old, new = seen[:20], [*seen[20:], value]
        error = math.sqrt(stdev(old) ** 2 / 20 + stdev(new) ** 2 / 5)
        return abs(fmean(new) - fmean(old)) > 4 * error

    return _watch(series, 24, differs)


def _watch(series: Sequence[float], size: int, alarming: Callable[[Sequence[float], float], bool]) -> list[int]:
    found, start = [], 0
    for place, value in enumerate(series):
        if place - start >= size and alarming(series[place - size : place], value):
            found.append(place)
            start = place + 1
    return found


RULES: dict[str, Callable[[Sequence[float]], list[int]]] = {
    "autotune": ours,
    "five deviations": five_deviations,
    "t test of the last 5": t_test,
}


@dataclass(frozen=True, slots=True)
class Row:
    """Raw counts of one rule under one noise.

    Attributes:
        values: Looked at without a change.
        alarms: False ones among them.
        histories: With a change, for each number of values before it.
        delays: `{values before: delays in values, one a history; None: not within 40}`.
        covered: Intervals of the size of a change, at its proof, that hold the truth; of all changes found.
        found: As many changes were found.
        forecasts: `{values known: share of next values within the forecast's interval}`.
    """

    rule: str
    noise: str
    values: int
    alarms: int
    histories: int
    delays: dict[int, list[int | None]]
    covered: int
    found: int
    forecasts: dict[int, float]

    @property
    def alarms_per_1000(self) -> float:
        return 1000 * self.alarms / self.values

    def seen(self, before: int) -> float:
        """Share of the changes that are seen within 20 values."""
        return fmean(delay is not None and delay <= SEEN_WITHIN for delay in self.delays[before])

    def delay(self, before: int) -> float:
        """Median; infinite when most are not seen."""
        return median(math.inf if delay is None else delay for delay in self.delays[before])


def tally(rule: str, noise: str, histories: int, length: int) -> Row:
    """One rule under one noise."""
    watch, make = RULES[rule], NOISES[noise]
    alarms = sum(len(watch(list(islice(make(random.Random(seed)), length)))) for seed in range(histories))
    delays: dict[int, list[int | None]] = {}
    covered = found = 0
    for before in BEFORE:
        delays[before] = []
        for seed in range(histories):
            series = list(islice(make(random.Random(1_000_000 + seed)), before + AFTER))
            series = [value + (STEP if place >= before else 0.0) for place, value in enumerate(series)]
            seen = [place for place in watch(series) if place >= before]
            delays[before].append(seen[0] - before + 1 if seen else None)
            if rule == "autotune" and seen:
                change = find_drift(series[: seen[0] + 1]).changes[-1]
                covered, found = covered + (change.low <= STEP <= change.high), found + 1
    held = {known: _held(make, known, histories) for known in LOOKED_AHEAD} if rule == "autotune" else {}
    return Row(rule, noise, histories * length, alarms, histories, delays, covered, found, held)


def _held(make: Callable[[random.Random], Iterator[float]], known: int, histories: int) -> float:
    """How often the next value lies in the interval that was forecast."""
    held = 0
    for seed in range(4 * histories):
        *series, following = islice(make(random.Random(2_000_000 + seed)), known + 1)
        expected = forecast(series)
        held += expected.low <= following <= expected.high
    return held / (4 * histories)


def goals(rows: Sequence[Row]) -> dict[str, bool]:
    """What is promised, of our rule."""
    own = {row.noise: row for row in rows if row.rule == "autotune"}
    steady = [row for noise, row in own.items() if not noise.startswith("AR")]
    return {
        "at most 1 false alarm in 1,000 values, every noise": all(row.alarms_per_1000 <= 1 for row in own.values()),
        "5 % at 2 % noise within 20 values at the median, after 10 or more": all(
            row.delay(before) <= SEEN_WITHIN for row in steady for before in BEFORE
        ),
        "the same in 90 % of all histories, after 20 or more": all(
            row.seen(before) >= 0.9 for row in steady for before in BEFORE[1:]
        ),
        "the forecast holds the next value in 90 % or more, after 30 or more": all(
            row.forecasts[known] >= 0.9 for row in own.values() for known in LOOKED_AHEAD[1:]
        ),
    }


def line(row: Row) -> str:
    """For a person."""
    seen = "".join(f"{row.delay(before):7.0f} {row.seen(before):5.0%}" for before in BEFORE)
    covered = f"{row.covered / row.found:8.0%}" if row.found else f"{'':8}"
    held = "".join(f"{share:6.0%}" for share in row.forecasts.values())
    return f"{row.rule:22}{row.noise:19}{row.alarms_per_1000:7.2f} {seen}{covered} {held}"


def main(arguments: Sequence[str]) -> None:
    """Print the table, and keep the raw counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=100, help="simulated histories a cell (default 100)")
    parser.add_argument("--length", type=int, default=1000, help="values of one without a change (default 1,000)")
    parser.add_argument("--json", type=Path, help="write the raw counts here")
    options = parser.parse_args(arguments)
    print(describe_machine())
    print(f"{'':41}{'alarms':>7}  {'delay and seen within 20, after':^50} {'interval':>8} {'forecast holds, of':>17}")
    after = "".join(f"{before:>13}" for before in BEFORE)
    known = "".join(f"{count:>6}" for count in LOOKED_AHEAD)
    print(f"{'rule':22}{'noise':19}{'/1,000':>7}{after}   {'covers':>8} {known}")
    cells = list(product(RULES, NOISES))
    with ProcessPoolExecutor() as workers:
        rows = []
        work = partial(tally, histories=options.histories, length=options.length)
        for row in workers.map(work, *zip(*cells, strict=True)):
            rows.append(row)
            print(line(row), flush=True)
    publish(options.json, [asdict(row) for row in rows], goals(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
