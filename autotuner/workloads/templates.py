"""Texts with {names} in them, filled in with a configuration: command lines, environments, files and requests."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from autotuner.errors import InvalidConfigError
from autotuner.spec.expressions import Expression
from autotuner.types import Config, Value

Values = Mapping[str, Value]

_NAME = r"([A-Za-z_][A-Za-z0-9._-]*)"
_NAMES = re.compile(rf"\{{\{{{_NAME}\}}\}}|\{{{_NAME}\}}")  # other braces, as those of JSON, are nobody's business


class Conditional(BaseModel):
    """Arguments that are there only while an expression over the parameters is true."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    condition: str = Field(alias="if", description="An expression over parameters, as in rules.")
    args: tuple[str, ...] = Field(description="What is then there.")

    @field_validator("condition")
    @classmethod
    def _can_be_read(cls, text: str) -> str:
        Expression(text)
        return text


Argument = str | Conditional
Arguments = tuple[Argument, ...]


def fill(text: str, values: Values) -> str:
    """`text` with every {name} replaced; {{name}} is the word in braces.

    >>> fill('--threads={threads} {{x}} {"a": {"b": 1}}', {"threads": 4})
    '--threads=4 {x} {"a": {"b": 1}}'

    Raises:
        InvalidConfigError: There is no value of that name.
    """

    def replace(found: re.Match[str]) -> str:
        word, name = found[1], found[2]
        if word is not None:
            return f"{{{word}}}"
        if name not in values:
            raise InvalidConfigError(f"{{{name}}} is no parameter", f"write {{{{{name}}}}} for the braces themselves")
        return spelled(values[name])

    return _NAMES.sub(replace, text)


def fill_data(data: Any, values: Values) -> Any:
    """JSON data with every text filled in; a text that is one {name} and nothing else keeps the value's type."""
    match data:
        case str():
            whole = _NAMES.fullmatch(data)
            return values[whole[2]] if whole and whole[2] in values else fill(data, values)
        case Mapping():
            return {key: fill_data(value, values) for key, value in data.items()}
        case Sequence():
            return [fill_data(value, values) for value in data]
        case _:
            return data


def fill_arguments(arguments: Sequence[Argument], values: Values) -> list[str]:
    """The command line; what is conditional and false is left out."""
    line: list[str] = []
    for argument in arguments:
        if isinstance(argument, str):
            line.append(fill(argument, values))
        elif Expression(argument.condition).evaluate(values):
            line += [fill(text, values) for text in argument.args]
    return line


def names_in(data: Any) -> Iterator[str]:
    """Every name that a text, an argument or JSON data refers to."""
    match data:
        case str():
            yield from (found[2] for found in _NAMES.finditer(data) if found[2])
        case Conditional():
            yield from Expression(data.condition).names
            yield from names_in(data.args)
        case Mapping():
            yield from names_in([*data.values()])
        case Sequence():
            for value in data:
                yield from names_in(value)


def misfit(names: Iterable[str], config: Config, ours: Sequence[str], places: str) -> str:
    """What does not fit between the names in texts and the parameters, in words; empty when all does."""
    named = set(names)
    for name in sorted(named.difference(config, ours)):
        near = get_close_matches(name, [*config, *ours], n=1)
        return f"{{{name}}} is no parameter" + (f": did you mean {{{near[0]}}}?" if near else "")
    for name in sorted(config.keys() - named):
        return f"{name} is used nowhere: write {{{name}}} into {places}"
    return ""


def spelled(value: Value) -> str:
    """A value as programs read it: true and false in small letters, nothing for none."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
