"""One thing that is worth knowing of a machine before anything is measured on it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much it matters."""

    STOPS = "stops"  # nothing can be measured, or kept
    ADVICE = "advice"  # measuring works, and would be better without it
    INFO = "info"  # good to know, nothing to mend


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        level: How much it matters.
        name: Of the check, for programs.
        sentence: What it is, with the number or path that it concerns.
        mend: What to do about it, in one line; empty when there is nothing to do.
    """

    level: Level
    name: str
    sentence: str
    mend: str = ""
