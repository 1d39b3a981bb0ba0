"""A recorded landscape: every legal configuration of a space with what was measured of it.

In Kernel Tuner's cache format. The recorded set is the legal set: all that the declared constraints allow was measured,
or failed.
"""

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from autotuner.types import Config, config_key

_WARM_UPS = 1  # first repeats carry the warm-up


@dataclass(frozen=True)
class Landscape:
    """A space and its measurements.

    Attributes:
        name: Of the file.
        values: Of each parameter, in order.
        repeats: `{config_key: every measurement in its own unit, smaller is better}`; empty for a failed one.
    """

    name: str
    values: Mapping[str, Sequence[int | float | str]]
    repeats: Mapping[str, tuple[float, ...]]

    @cached_property
    def means(self) -> Mapping[str, float]:
        """Of what did not fail."""
        return {key: sum(found) / len(found) for key, found in self.repeats.items() if found}

    @cached_property
    def optimum(self) -> float:
        """The smallest mean."""
        return min(self.means.values())

    def is_legal(self, config: Config) -> bool:
        """Whether it was recorded."""
        return config_key(config) in self.repeats

    def baseline(self, seed: int) -> Config:
        """What somebody runs today: any that works, by lot."""
        config: Config = json.loads(Random(f"baseline/{self.name}/{seed}").choice(sorted(self.means)))
        return config

    def draw(self, config: Config, rng: Random | None) -> float | None:
        """What a trial sees: the mean, or one repeat by lot; None for a failure."""
        found = self.repeats[config_key(config)]
        if not found:
            return None
        return self.means[config_key(config)] if rng is None else rng.choice(found)


def read_landscape(path: Path) -> Landscape:
    """From a file, compressed or not."""
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    document = json.loads(text)
    names = document["tune_params_keys"]
    entries = list(document["cache"].values())
    values = {name: _ordered({entry[name] for entry in entries}) for name in names}
    repeats = {config_key({name: entry[name] for name in names}): _repeats(entry) for entry in entries}
    return Landscape(path.name.split(".")[0], values, repeats)


def _repeats(entry: Mapping[str, object]) -> tuple[float, ...]:
    mean, times = entry["time"], entry.get("times")
    if not isinstance(mean, int | float) or not math.isfinite(mean):
        return ()  # failed: its kind stands there as a text
    several = [float(time) for time in times] if isinstance(times, list) else []
    return tuple(several[_WARM_UPS:]) if len(several) > _WARM_UPS else (float(mean),)


def _ordered(values: set[int | float | str]) -> list[int | float | str]:
    numeric = all(isinstance(value, int | float) for value in values)
    return sorted(values) if numeric else sorted(values, key=str)  # type: ignore[type-var]
