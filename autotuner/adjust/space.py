"""The legal, canonical, distinct configurations of a study, as rows of value indices that can be compared.

A row holds, for every parameter in the file's order, the index of its value: `space.decode(space.encode(config))` is
`config`. Rows are what the strategies compute with; configurations are what leaves this room.
"""

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from autotuner.adjust.dimensions import Rows, Shape, names, numbers
from autotuner.errors import UsageError
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Value

Row: TypeAlias = tuple[int, ...]
Mask: TypeAlias = npt.NDArray[np.bool_]
Positions: TypeAlias = npt.NDArray[np.intp]

ENUMERATION_LIMIT = 200_000  # raw combinations; more are sampled, not listed
_SAMPLES = 1_000  # legal configurations drawn at a time when the space is too large to list
_MOST_DRAWS = 20_000  # attempts at them, for rules that forbid nearly everything
_FEW_VALUES = 16  # up to here every other value is a neighbour; beyond, steps of powers of two


class Space:
    """What a study may try.

    Attributes:
        spec: The study.
        names: Parameters in the order of a row.
        sizes: How many values each has.
        ordered: Which have an order; the others are categorical.
        raw_size: Number of combinations before rules and conditions.
        rows: Every legal configuration [count, parameters] in lexical order; None when there are too many to list.
    """

    def __init__(self, spec: StudySpec) -> None:
        """List the space, or prepare to sample it.

        Raises:
            UsageError: The rules forbid every configuration, or cannot be decided for one.
        """
        self.spec = spec
        self.names = tuple(spec.parameters)
        self._values = tuple(parameter.values for parameter in spec.parameters.values())
        self._indices = tuple({(type(v), v): i for i, v in enumerate(values)} for values in self._values)
        self.sizes = tuple(map(len, self._values))
        self.ordered = tuple(parameter.ordered for parameter in spec.parameters.values())
        self.raw_size = math.prod(self.sizes)
        self.rows = self._listed() if self.raw_size <= ENUMERATION_LIMIT else None
        if self.rows is not None and not len(self.rows):
            raise UsageError("the rules forbid every configuration", "loosen a rule, or add values to a parameter")

    def most_ranks(self) -> int:
        """Processes of the configuration that needs most; of a sample where there are too many to list."""
        rows = self.candidates(random.Random(self.spec.seed), [self.spec.baseline])
        return max(self.spec.workload.ranks(self.decode(row)) for row in rows.tolist())

    def size(self) -> int | None:
        """Number of legal configurations; None when there were too many to count."""
        return None if self.rows is None else len(self.rows)

    @cached_property
    def shape(self) -> Shape:
        """What a model may know of the parameters."""
        return Shape(
            tuple(
                numbers(values) if ordered else names(len(values))  # type: ignore[arg-type]
                for values, ordered in zip(self._values, self.ordered, strict=True)
            )
        )

    @cached_property
    def configs(self) -> tuple[Config, ...]:
        """Every legal configuration in lexical order; empty when there are too many to list."""
        return () if self.rows is None else tuple(self.decode(row) for row in self.rows.tolist())

    def __contains__(self, config: object) -> bool:
        """Whether `config` is legal and canonical, and all its values are the file's."""
        if not isinstance(config, Mapping) or set(config) != set(self.names):
            return False
        known = all((type(config[n]), config[n]) in index for n, index in zip(self.names, self._indices, strict=True))
        return known and self._legal(config)

    def encode(self, config: Config) -> Row:
        """The row of a configuration.

        Raises:
            ValueError: A value that the file does not name.
        """
        try:
            return tuple(
                index[type(config[name]), config[name]] for name, index in zip(self.names, self._indices, strict=True)
            )
        except KeyError as error:
            raise ValueError(f"not a configuration of {self.spec.name}: {dict(config)}") from error

    def decode(self, row: Sequence[int]) -> Config:
        """The configuration of a row."""
        return {name: values[i] for name, values, i in zip(self.names, self._values, row, strict=True)}

    def canonical(self, config: Config) -> Config:
        """`config` with every inactive parameter at its default, also where one condition hangs on another.

        A round only ever moves parameters to their defaults, so as many rounds as there are parameters suffice.
        """
        for _ in self.names:
            with _decidable():
                settled = self.spec.canonical(config)
            if settled == config:
                break
            config = settled
        return config

    def neighbours(self, config: Config) -> list[Row]:
        """Legal configurations that differ from `config` in one choice, and in what that choice switches off."""
        found: dict[Row, None] = {}
        for name, values, here in zip(self.names, self._values, self.encode(config), strict=True):
            for i in _steps(here, len(values)):
                moved = self.move(config, name, values[i])
                if moved is not None:
                    found[self.encode(moved)] = None
        found.pop(self.encode(config), None)
        return list(found)

    def move(self, config: Config, name: str, value: Value) -> Config | None:
        """`config` with one parameter changed; None when that is forbidden."""
        moved = self.canonical({**config, name: value})
        return moved if self._allowed(moved) else None

    def candidates(self, rng: random.Random, also: Iterable[Config] = ()) -> Rows:
        """Every legal configuration; a sample of them, `also` and the neighbours of `also` if they are too many."""
        if self.rows is not None:
            return self.rows
        found: dict[Row, None] = {}
        for config in also:
            found[self.encode(config)] = None
            found.update(dict.fromkeys(self.neighbours(config)))
        drawn = itertools.islice(self._drawn(rng), _SAMPLES)
        found.update(dict.fromkeys(drawn))
        return self.matrix(found)

    def matrix(self, rows: Iterable[Row]) -> Rows:
        """Rows as one array [count, parameters], also when there are none."""
        return np.array(list(rows), dtype=np.int32).reshape(-1, len(self.names))

    def _drawn(self, rng: random.Random) -> Iterator[Row]:
        """Legal configurations at random, with repetitions; ends after many attempts."""
        for _ in range(_MOST_DRAWS):
            config = self.canonical({n: rng.choice(values) for n, values in zip(self.names, self._values, strict=True)})
            if self._allowed(config):
                yield self.encode(config)

    def _listed(self) -> Rows:
        """Every legal row. A canonical configuration is its own canonical form, so none is met twice."""
        products = zip(itertools.product(*self._values), itertools.product(*map(range, self.sizes)), strict=True)
        return self.matrix(row for values, row in products if self._legal(dict(zip(self.names, values, strict=True))))

    def _legal(self, config: Config) -> bool:
        with _decidable():
            return self.spec.canonical(config) == config and self.spec.legal(config)

    def _allowed(self, config: Config) -> bool:
        with _decidable():
            return self.spec.legal(config)


@contextmanager
def _decidable() -> Iterator[None]:
    """Expressions are the user's: one that has no value for some combination is named.

    Raises:
        UsageError: A division by zero, an order between text and numbers.
    """
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error), "say in the expression where it applies: a != 0 and b / a > 2") from error


def _steps(here: int, count: int) -> list[int]:
    """Indices worth a step from `here`: all others of a few values, else distances 1, 2, 4, … both ways."""
    if count <= _FEW_VALUES:
        return [i for i in range(count) if i != here]
    jumps = [2**power for power in range(count.bit_length())]
    return [i for jump in jumps for i in (here - jump, here + jump) if 0 <= i < count]


@dataclass(frozen=True, slots=True)
class SpaceCheck:
    """What a study file describes, without running anything.

    Attributes:
        name: Of the study.
        source: The file.
        parameters: `{name: its values}`.
        baseline: Every parameter at its default.
        raw_size: Product of the numbers of values.
        legal_size: Distinct configurations that no rule forbids; None when there are too many to count.
        objective: "maximize throughput_tokens_per_s".
        limits: As written.
        max_trials: Budget.
        max_minutes: Budget; None when only trials count.
        device: "cpu" or "cuda".
    """

    name: str
    source: str
    parameters: Mapping[str, tuple[Value, ...]]
    baseline: Config
    raw_size: int
    legal_size: int | None
    objective: str
    limits: tuple[str, ...]
    max_trials: int
    max_minutes: float | None
    device: str


def check_space(spec: StudySpec) -> SpaceCheck:
    """Count what a study may try."""
    space = Space(spec)
    return SpaceCheck(
        name=spec.name,
        source=spec.source,
        parameters={name: parameter.values for name, parameter in spec.parameters.items()},
        baseline=spec.baseline,
        raw_size=space.raw_size,
        legal_size=space.size(),
        objective=spec.objective.text,
        limits=tuple(limit.text for limit in spec.limits),
        max_trials=spec.budget.trials,
        max_minutes=spec.budget.minutes,
        device=spec.device,
    )
