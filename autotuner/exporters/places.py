"""Where a file says a value."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from autotuner.errors import UsageError

_TOML = r"^[ \t]*{name}[ \t]*=[ \t]*(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^#\r\n\"'\[\]{{}}]*?)[ \t]*(#[^\n]*)?\r?$"
LINES = r"^[ \t]*(?:export[ \t]+)?{name}=(?P<value>\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^\s#\"']*)[ \t]*\r?$"


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
    with readable(file):
        for start, end in dict.fromkeys(_spans(text, file, name)):  # YAML's aliases lead to one more than once
            place = Place(start, end, text.count("\n", 0, start) + 1)
            if not line or str(place.line) == line:
                yield place


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """What is wrong with the file as the user's mistake.

    Raises:
        UsageError: It is not what its ending says.
    """
    try:
        yield
    except (SyntaxError, json.JSONDecodeError, yaml.YAMLError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {file}: {' '.join(str(error).split())}") from None


def compose(text: str, file: Path) -> Any:
    """The nodes of a YAML or JSON file; None when it is empty."""
    if file.suffix == ".json":
        json.loads(text)
        text = text.replace("\t", " ")  # between tokens, where YAML wants none; none is within a string
    return yaml.compose(text, yaml.SafeLoader)


def is_literal(node: ast.AST) -> TypeGuard[ast.expr]:
    """Whether it is a number, a text, True, False or None."""
    if not isinstance(node, ast.Constant | ast.UnaryOp):
        return False
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return False
    return value is None or isinstance(value, bool | int | float | str)


def _spans(text: str, file: Path, name: str) -> Iterator[tuple[int, int]]:
    match file.suffix:
        case ".py":
            yield from _in_python(text, name)
        case ".json" | ".yaml" | ".yml":
            nodes = compose(text, file)
            tokens = yaml.scan(text.replace("\t", " ") if file.suffix == ".json" else text)
            starts = {t.end_mark.index: t.start_mark.index for t in tokens if isinstance(t, yaml.ScalarToken)}
            for node in _in_yaml(nodes, name.split(".")):
                end = node.end_mark.index  # the value alone: an anchor or a tag before it stays
                yield max(node.start_mark.index, starts.get(end, end)), end
        case ".toml":
            tomllib.loads(text)
            yield from _by_pattern(text, _TOML, name)
        case _:
            yield from _by_pattern(text, LINES, name)


def _in_python(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Assignments, keyword arguments, defaults of parameters, keys of a dict, defaults of argparse's options."""
    starts = [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text)), len(text)]  # lines as Python counts them
    lines = [text[start:end] for start, end in pairwise(starts)]

    def offset(line: int, column_bytes: int) -> int:
        return starts[line - 1] + len(lines[line - 1].encode()[:column_bytes].decode())

    for key, node in _pairs(ast.parse(text)):
        if key == name and is_literal(node):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            yield offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)


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
                given = {keyword.arg: keyword.value for keyword in keywords}
                if "default" in given:
                    yield _destination(args, given.get("dest")), given["default"]
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    if keyword.arg:
                        yield keyword.arg, keyword.value


def _name(target: ast.expr) -> str:
    return target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""


def _destination(flags: list[ast.expr], named: ast.expr | None) -> str:
    """What argparse calls an option: as it is told to, or by its first long flag, or by its first."""
    if named is not None:
        return str(named.value) if isinstance(named, ast.Constant) else ""
    known = [flag.value for flag in flags if isinstance(flag, ast.Constant) and isinstance(flag.value, str)]
    chosen = next((flag for flag in known if flag.startswith("--")), known[0] if known else "")
    return chosen.lstrip("-").replace("-", "_")


def _in_yaml(node: Any, keys: list[str]) -> Iterator[Any]:
    """Scalars under a key, however deep; under a path of keys where several are given."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == keys[0] and len(keys) == 1 and isinstance(value, yaml.ScalarNode):
                yield value
            elif key.value == keys[0] and len(keys) > 1:
                yield from _in_yaml(value, keys[1:])
            else:
                yield from _in_yaml(value, keys)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _in_yaml(item, keys)


def _by_pattern(text: str, pattern: str, name: str) -> Iterator[tuple[int, int]]:
    for found in re.finditer(pattern.format(name=re.escape(name)), text, re.MULTILINE):
        yield found.span("value")
