"""A file with other values in some places, read again to be sure that nothing else of it changed."""

import ast
import json
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from autotuner.errors import UsageError
from autotuner.exporters.documents import in_yaml, spelled
from autotuner.exporters.places import LINES, Place, compose, is_literal, readable
from autotuner.exporters.variables import quote
from autotuner.types import Value

_LANGUAGES = {".py": "x = ", ".toml": "x = ", ".json": "", ".yaml": "", ".yml": ""}  # what stands before a value alone


def rewrite(text: str, file: Path, values: Mapping[Place, Value]) -> str:
    """The text with these values in these places.

    Raises:
        UsageError: Read again, the file would say something else besides, or not these values.
    """
    changed, pairs = text, []
    for place, value in sorted(values.items(), key=lambda item: -item[0].start):
        old, new = text[place.start : place.end], _spelled(value, file)
        if old and _means(old, file) == _means(new, file):
            continue  # another spelling would be a change that nobody wants
        pairs.append((old, new))
        if not old and file.suffix in (".yaml", ".yml"):
            new = f" {new}"  # `key:` has no value yet
        changed = changed[: place.start] + new + changed[place.end :]
    if not _changes_only(pairs, text, changed, file):
        lines = ", ".join(str(place.line) for place in values)
        raise UsageError(
            f"{file} would not say what is wanted, or say more than that, with other values in lines {lines}",
            "change it by hand, or name other places with --set names.…",
        )
    return changed


def _changes_only(pairs: Iterable[tuple[str, str]], before: str, after: str, file: Path) -> bool:
    """Whether the text after says the second of each pair where the one before says the first, and else the same."""
    try:
        wanted = Counter((_said(old, file), _said(new, file)) for old, new in pairs)
        was, now = [*_leaves(before, file)], [*_leaves(after, file)]
    except UsageError:
        return False  # it cannot even be read
    if [where for where, _ in was] != [where for where, _ in now]:
        return False
    found = Counter((old, new) for (_, old), (_, new) in zip(was, now, strict=True) if old != new)
    return found == Counter({(old, new): count for (old, new), count in wanted.items() if old != new})


def _means(piece: str, file: Path) -> str | None:
    """What a value means alone; None when it cannot be read so."""
    try:
        return _said(piece, file) if file.suffix in _LANGUAGES else " ".join(shlex.split(piece))
    except (UsageError, ValueError):  # a quote without its other half
        return None


def _said(piece: str, file: Path) -> str:
    """What a value in the file's language means, alone."""
    return [*_leaves(_LANGUAGES.get(file.suffix, "x=") + piece, file)][-1][1]


def _leaves(text: str, file: Path) -> Iterator[tuple[str, str]]:
    """Everything that a file says, value by value: where, and what; comments and spaces are nothing."""
    with readable(file):
        match file.suffix:
            case ".py":
                blank = _Blank()
                yield ast.dump(blank.visit(ast.parse(text))), ""
                yield from (("", value) for value in blank.values)
            case ".json" | ".yaml" | ".yml":
                yield from _nodes(compose(text, file), "")
            case ".toml":
                yield from _items(tomllib.loads(text), "")
            case _:
                for line in text.split("\n"):
                    found = re.fullmatch(LINES.format(name=r"[^\s=]+"), line)
                    start, end = found.span("value") if found else (0, 0)
                    yield line[:start] + line[end:], line[start:end]


class _Blank(ast.NodeTransformer):
    """Takes the literal values out of a program, in order."""

    def __init__(self) -> None:
        self.values: list[str] = []

    def visit(self, node: ast.AST) -> ast.AST:
        if not is_literal(node):
            return self.generic_visit(node)
        self.values.append(repr(ast.literal_eval(node)))
        return ast.Constant(None)


def _nodes(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Of YAML; an alias says once more what its anchor says."""
    match node:
        case yaml.MappingNode(value=pairs):
            yield f"{path} {node.tag}", ""
            for key, value in pairs:
                yield from _nodes(key, f"{path}?")
                yield from _nodes(value, f"{path}.")
        case yaml.SequenceNode(value=items):
            yield f"{path} {node.tag}", ""
            for item in items:
                yield from _nodes(item, f"{path}-")
        case yaml.ScalarNode():
            yield path, f"{node.tag} {node.value}"
        case None:
            yield path, "tag:yaml.org,2002:null "


def _items(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Of TOML."""
    match value:
        case dict():
            yield f"{path} table", ""
            for key, item in value.items():
                yield from _items(item, f"{path}.{key}")
        case list():
            yield f"{path} array", ""
            for item in value:
                yield from _items(item, f"{path}-")
        case _:
            yield path, repr(value)


def _spelled(value: Value, file: Path) -> str:
    match file.suffix:
        case ".py":
            return repr(value)
        case ".json" | ".toml":
            return json.dumps(value, ensure_ascii=False)
        case ".yaml" | ".yml":
            return in_yaml(value)
        case _:
            return quote(spelled(value))
