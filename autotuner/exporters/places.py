"""Where a file says a value, and the file with another value there; nothing else of it changes."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import UsageError
from autotuner.exporters.documents import as_yaml
from autotuner.exporters.variables import quote
from autotuner.types import Value

_TOML = r"^[ \t]*{name}[ \t]*=[ \t]*(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^#\n\"']*?)[ \t]*(#.*)?$"
_LINES = r"^[ \t]*(?:export[ \t]+)?{name}=(?P<value>\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^\s#\"']*)[ \t]*$"


@dataclass(frozen=True, slots=True)
class Place:
    """A literal value in a text.

    Attributes:
        start: Its first character, from 0.
        end: Behind its last.
        line: From 1.
    """

    start: int
    end: int
    line: int


def find_places(text: str, file: Path, name: str) -> Iterator[Place]:
    """Every place where the file gives a literal value to `name`, or to `NAME:LINE` the one in that line.

    Raises:
        UsageError: The file cannot be read as what its ending says.
    """
    name, _, line = name.partition(":")
    for place in _places(text, file, name):
        if not line or str(place.line) == line:
            yield place


def rewrite(text: str, file: Path, values: Mapping[Place, Value]) -> str:
    """The text with these values in these places; it can still be read."""
    changed = text
    for place, value in sorted(values.items(), key=lambda item: -item[0].start):
        changed = changed[: place.start] + _spelled(value, file) + changed[place.end :]
    [*_places(changed, file, "")]
    return changed


def _places(text: str, file: Path, name: str) -> Iterator[Place]:
    try:
        match file.suffix:
            case ".py":
                yield from _in_python(text, name)
            case ".json":
                json.loads(text)
                spaced = text.replace("\t", " ")  # between tokens, where YAML wants none; none is within a string
                yield from _in_yaml(yaml.compose(spaced, yaml.SafeLoader), name.split("."))
            case ".yaml" | ".yml":
                yield from _in_yaml(yaml.compose(text, yaml.SafeLoader), name.split("."))
            case ".toml":
                tomllib.loads(text)
                yield from _by_pattern(text, _TOML, name)
            case _:
                yield from _by_pattern(text, _LINES, name)
    except (SyntaxError, json.JSONDecodeError, yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {file}: {' '.join(str(error).split())}") from None


def _in_python(text: str, name: str) -> Iterator[Place]:
    """Assignments, keyword arguments, defaults of parameters, keys of a dict, defaults of argparse's options."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    lines = text.splitlines(keepends=True)

    def offset(line: int, column_bytes: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column_bytes].decode())

    for key, node in _pairs(ast.parse(text)):
        if key == name and _is_literal(node):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            yield Place(offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset), node.lineno)


def _pairs(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and what is given to them."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield from ((key, value) for target in targets if (key := _name(target)))
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield from ((key, value) for key in (_name(target),) if key)
            case ast.Dict(keys=keys, values=values):
                for name, value in zip(keys, values, strict=True):
                    if isinstance(name, ast.Constant) and isinstance(name.value, str):
                        yield name.value, value
            case ast.arguments():
                positional = [*node.posonlyargs, *node.args]
                yield from ((a.arg, d) for a, d in zip(positional[::-1], node.defaults[::-1], strict=False))
                yield from ((a.arg, d) for a, d in zip(node.kwonlyargs, node.kw_defaults, strict=True) if d)
            case ast.Call(func=ast.Attribute(attr="add_argument"), args=args, keywords=keywords):
                flags = [arg.value for arg in args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                for keyword in keywords:
                    if keyword.arg == "default" and flags:
                        yield flags[-1].lstrip("-").replace("-", "_"), keyword.value
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    if keyword.arg:
                        yield keyword.arg, keyword.value


def _name(target: ast.expr) -> str:
    return target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""


def _is_literal(node: ast.expr) -> bool:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return False
    return value is None or isinstance(value, bool | int | float | str)


def _in_yaml(node: Any, keys: list[str]) -> Iterator[Place]:
    """Scalars under a key, however deep; under a path of keys where several are given."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == keys[0] and len(keys) == 1 and isinstance(value, yaml.ScalarNode):
                yield Place(value.start_mark.index, value.end_mark.index, value.start_mark.line + 1)
            elif key.value == keys[0] and len(keys) > 1:
                yield from _in_yaml(value, keys[1:])
            else:
                yield from _in_yaml(value, keys)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _in_yaml(item, keys)


def _by_pattern(text: str, pattern: str, name: str) -> Iterator[Place]:
    for found in re.finditer(pattern.format(name=re.escape(name or "\0")), text, re.MULTILINE):
        yield Place(found.start("value"), found.end("value"), text.count("\n", 0, found.start()) + 1)


def _spelled(value: Value, file: Path) -> str:
    match file.suffix:
        case ".py":
            return repr(value)
        case ".json" | ".toml":
            return json.dumps(value)
        case ".yaml" | ".yml":
            return as_yaml([value]).decode().removeprefix("- ").rstrip("\n")
        case _:
            return quote(str(value).lower() if isinstance(value, bool) else str(value))
