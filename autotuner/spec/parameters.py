"""The parts of a study file that say what may change: parameters, rules, and what to try first."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autotuner.types import Binding, Tier, Value

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Section(BaseModel):
    """Common to every part of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Parameter(Section):
    """One thing that may change. Exactly one of `int`, `powers_of_two`, `choices`, `bool` says what it may be."""

    int_range: tuple[int, int] | None = Field(None, alias="int", description="From … to …, both included.")
    step: int = Field(1, ge=1, description="Distance between the values of `int`.")
    powers_of_two: tuple[int, int] | None = Field(None, description="Powers of two from … to …, both included.")
    choices: tuple[Value, ...] | None = Field(None, min_length=1, description="A list of values.")
    boolean: Literal[True] | None = Field(None, alias="bool", description="true: may be false or true.")
    default: Value = Field(description="The baseline: what is in use today.")
    when: str | None = Field(None, description="An expression; where it is false the parameter keeps its default.")
    live: bool | None = Field(None, description="Can change without reopening the workload.")
    tier: Tier | None = Field(None, description="How far it may move the outputs.")
    memory: bool | None = Field(None, description="A larger value needs at least as much memory.")
    acts_on: tuple[Binding, ...] | None = Field(None, description="Resources whose demand it changes.")
    needs_gpu: bool | None = Field(None, description="It does nothing on a CPU, where it keeps its default.")

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """Every value, in order."""
        if self.int_range is not None:
            return tuple(range(self.int_range[0], self.int_range[1] + 1, self.step))
        if self.powers_of_two is not None:
            low, high = self.powers_of_two
            return tuple(2**exponent for exponent in range(low.bit_length() - 1, high.bit_length()))
        if self.choices is not None:
            return self.choices
        return (False, True)

    def allows(self, value: Value) -> bool:
        """Whether it is one of the values; 1, 1.0 and true are three."""
        return any(type(known) is type(value) and known == value for known in self.values)

    @property
    def ordered(self) -> bool:
        """Whether neighbours in `values` are alike."""
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in self.values)
        return numeric and list(self.values) == sorted(self.values)  # type: ignore[type-var]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [self.int_range, self.powers_of_two, self.choices, self.boolean]
        if sum(kind is not None for kind in given) != 1:
            raise ValueError("give exactly one of int, powers_of_two, choices, bool")
        if self.int_range is not None and self.int_range[0] > self.int_range[1]:
            raise ValueError(f"the range {list(self.int_range)} is empty: write the smaller number first")
        if self.powers_of_two is not None:
            low, high = self.powers_of_two
            if low < 1 or low > high or low & (low - 1) or high & (high - 1):
                raise ValueError(f"powers_of_two {[low, high]}: both ends must be powers of two, the smaller one first")
        if len(set(map(repr, self.values))) != len(self.values):
            raise ValueError("a value is named twice")
        if not self.allows(self.default):
            raise ValueError(f"default {self.default!r} is not one of the values {list(self.values)}")
        return self


class Rule(Section):
    """A combination that must not be tried."""

    forbid: str = Field(description="An expression over parameters, `device` and `cpu_cores`.")
    because: str = Field("", description="Why, for the reader.")


class Suggestion(Section):
    """A configuration to try right after the baseline."""

    change: Mapping[Name, Value] = Field(min_length=1, description="Parameters that differ from their defaults.")
    because: str = Field("the file says to try it first", description="Why, for the reader.")
