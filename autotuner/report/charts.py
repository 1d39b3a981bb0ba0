"""Charts as SVG text: axes, and the marks that the study's page draws on them. Colours are names of its style sheet."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 1000, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 86, 14, 26, 34


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values along a side.

    Attributes:
        low: At the beginning.
        high: At the end.
        ticks: Values that are labelled.
        log: Distances are ratios.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """From 0 at `low` to 1 at `high`; what lies outside is put at the edge."""
        low, high, at = (map(math.log, (self.low, self.high, max(value, 1e-300))) if self.log
                         else (self.low, self.high, value))  # fmt: skip
        return min(1.0, max(0.0, (at - low) / (high - low)))


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a chart draws.

    Attributes:
        x: Along the bottom.
        y: Along the left.
        width: Of the whole, in the drawing's units; so is `height`.
    """

    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT

    def left(self, value: float) -> float:
        """Where a value of `x` lies."""
        return _LEFT + self.x.place(value) * (self.width - _LEFT - _RIGHT)

    def top(self, value: float) -> float:
        """Where a value of `y` lies."""
        return self.height - _BOTTOM - self.y.place(value) * (self.height - _TOP - _BOTTOM)


def axis(values: Sequence[float], *, log: bool = False, margin_ratio: float = 0.06, count: int = 5) -> Axis:
    """An axis that shows all of `values`, with round ticks; `values` must be finite, and positive for `log`."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log:
        reach = max(math.log(high / low), 0.05) * margin_ratio
        low, high = low * math.exp(-reach), high * math.exp(reach)
        ticks = [base * 10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
                 for base in (1, 2, 5)]  # fmt: skip
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) < 3:
            shown = [*_even(low, high, count)]
        return Axis(low, high, tuple(shown[:: max(1, len(shown) // count)]), log=True)
    reach = (high - low) * margin_ratio or abs(high) * 0.05 or 1.0
    low, high = low - reach, high + reach
    return Axis(low, high, tuple(_even(low, high, count)))


def _even(low: float, high: float, count: int) -> Iterator[float]:
    """Round values at equal distances, about so many."""
    step = _round_up((high - low) / count)
    first = math.ceil(low / step)
    return (step * (first + i) for i in range(count + 2) if step * (first + i) <= high)


def _round_up(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(base * power for base in (1, 2, 5, 10) if base * power >= step * 0.999)


def draw(
    frame: Frame, marks: Sequence[str], label: str, print_x: Callable[[float], str], print_y: Callable[[float], str],
    titles: tuple[str, str] = ("", ""),
) -> str:  # fmt: skip
    """A whole chart: grid, ticks, marks.

    Args:
        frame: Its axes.
        marks: SVG, in order of drawing.
        label: What it shows, for who cannot see it.
        print_x: Labels of the ticks.
        print_y: The same.
        titles: Of the two axes.
    """
    bottom, right = frame.height - _BOTTOM, frame.width - _RIGHT
    grid = [f'<path class="grid" d="M{_LEFT} {frame.top(tick):.1f}H{right}"/>' for tick in frame.y.ticks]
    grid += [text(_LEFT - 8, frame.top(tick) + 4, print_y(tick), "tick end") for tick in frame.y.ticks]
    grid += [text(frame.left(tick), bottom + 18, print_x(tick), "tick mid") for tick in frame.x.ticks]
    grid += [text(right, bottom + 31, titles[0], "tick end"), text(4, _TOP - 12, titles[1], "tick")]
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{escape(label)}">'
        f'{"".join(grid)}<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>{"".join(marks)}</svg>'
    )


def dot(x: float, y: float, kind: str, title: str, trial: int | None = None, radius: float = 4) -> str:
    """A point; those of a trial light up with its row."""
    of = "" if trial is None else f' data-trial="{trial}"'
    return (
        f'<circle class="{kind}"{of} cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"><title>{escape(title)}</title></circle>'
    )


def line(points: Sequence[tuple[float, float]], kind: str, *, steps: bool = False) -> str:
    """A line through points; `steps`: it keeps its height until the next one."""
    if not points:
        return ""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    path += "".join(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}" for x, y in points[1:])
    return f'<path class="{kind}" d="{path}"/>'


def text(x: float, y: float, words: str, kind: str = "tick") -> str:
    """Words at a place."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>' if words else ""


def band(left: float, right: float, top: float, bottom: float, kind: str) -> str:
    """A filled rectangle."""
    return (
        f'<rect class="{kind}" x="{min(left, right):.1f}" y="{min(top, bottom):.1f}" width="{abs(right - left):.1f}" '
        f'height="{abs(bottom - top):.1f}"/>'
    )
