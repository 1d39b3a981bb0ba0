"""Parts of a daemon's file: what is watched, how a candidate is brought in, by which programs."""

import math
import re
from collections.abc import Mapping
from datetime import time
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from autotuner.daemon.hooks import WORDS
from autotuner.metrics import parse_quantity
from autotuner.spec.problems import suggest


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    days = re.fullmatch(r"\s*([0-9.]+)\s*d(ays?)?\s*", value)
    return 86400 * float(days[1]) if days else parse_quantity(value, "s")


def _clock_time(value: Any) -> Any:
    """`22:00`; YAML would like to make a number of it."""
    return time.fromisoformat(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
ClockTime = Annotated[time, BeforeValidator(_clock_time)]


class Section(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WatchSection(Section):
    """What asks for tuning."""

    interval: Seconds = Field(60.0, description="Between two looks.")
    slo: tuple[str, ...] = Field((), description="What must hold, as limits of a study: latency_p95_s <= 200 ms.")
    breaches: int = Field(3, ge=1, description="Looks in a row that make a breach.")
    drift: tuple[str, ...] = Field((), description="Signals whose level should not get worse.")
    traffic: Mapping[str, Annotated[float, Field(gt=1)]] = Field(
        default_factory=dict, description="Signals of what is asked, and the factor of a change that asks for tuning."
    )
    every: Seconds | None = Field(None, description="Tune so often whatever is seen: 7 d.")
    cooldown: Seconds = Field(3600.0, description="Between two studies.")
    per_day: int = Field(3, ge=1, description="Most studies within 24 hours.")
    gpu_minutes_per_day: float | None = Field(None, gt=0, description="Most that studies use; without a GPU, minutes.")
    money_per_day: float | None = Field(None, gt=0, description="Most that they cost, by gpu_hour_price.")
    gpu_hour_price: float | None = Field(None, gt=0, description="Of one GPU, in the same currency.")
    profile: bool = Field(True, description="Before each study, what serves is profiled on this machine.")
    quiet: tuple[tuple[ClockTime, ClockTime], ...] = Field((), description="Hours in which none is begun, UTC.")

    @model_validator(mode="after")
    def _has_a_price(self) -> Self:
        if self.money_per_day is not None and self.gpu_hour_price is None:
            raise ValueError("money_per_day needs gpu_hour_price")
        return self

    @property
    def device_s_per_day(self) -> float:
        """The stricter of both budgets."""
        minutes = math.inf if self.gpu_minutes_per_day is None else self.gpu_minutes_per_day
        if self.money_per_day is not None and self.gpu_hour_price is not None:
            minutes = min(minutes, 60 * self.money_per_day / self.gpu_hour_price)
        return 60 * minutes


class CanarySection(Section):
    """How a candidate is compared with what serves."""

    minimize: str | None = None
    maximize: str | None = None
    guards: Mapping[str, float] = Field(
        default_factory=dict, description="What must not get worse, and the loss that is none: latency_p50_s: 0.05."
    )
    margin: float = Field(0.02, ge=0, lt=1, description="The same of the aim, until it is better.")
    window: Seconds = Field(10.0, description="Of one comparison.")
    warm_up_windows: int = Field(2, ge=0, description="The first windows after a change, which count for nothing.")
    least_windows: int = Field(16, ge=8)
    most_windows: int = Field(120, ge=16)
    probation_windows: int = Field(60, ge=16)
    percents: tuple[Annotated[int, Field(ge=1, le=99)], ...] = Field((10, 50), min_length=1)
    failure_ratio: float = Field(0.001, ge=0, lt=1)
    requests: str = Field("", description="PromQL: requests of {arm} during a window; left out, nobody counts.")
    failures: str = Field("", description="PromQL: those that failed.")

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if (self.minimize is None) == (self.maximize is None):
            raise ValueError("say one aim: minimize: or maximize:")
        if list(self.percents) != sorted(set(self.percents)):
            raise ValueError("percents must grow")
        return self


class HooksSection(Section):
    """The programs that change the service."""

    apply: tuple[str, ...] = Field(min_length=1)
    observe: tuple[str, ...] = Field(min_length=1)
    smoke: tuple[str, ...] = ()
    environment: tuple[str, ...] = Field((), description="Prints a JSON object: versions of where the service runs.")
    evidence: tuple[str, ...] = Field((), description="Is given {folder} before a study: what it writes there is kept.")
    deadline: Seconds = 60.0

    @model_validator(mode="after")
    def _known_words(self) -> Self:
        """A word in braces that nobody fills in would reach the program as it is."""
        for name, known in {
            "apply": WORDS,
            "smoke": WORDS,
            "observe": (),
            "environment": (),
            "evidence": ("folder",),
        }.items():
            for word in re.findall(r"\{([a-z_]+)\}", " ".join(getattr(self, name))):
                if word not in known:
                    hint = suggest(word, known) if known else "nothing is filled in there"
                    raise ValueError(f"{name}: nobody knows {{{word}}}: {hint}")
        return self
