"""A study file on its way to a `StudySpec`: plain data, where each key was written, and overrides of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from autotuner.errors import UsageError
from autotuner.spec.yaml import MAX_BYTES, MAX_DEPTH, KeyPath, parse

_MAX_CHARACTERS = 400
_OPTION = "--set"


@dataclass(frozen=True, slots=True)
class Draft:
    """Plain data and its origins.

    Attributes:
        data: The file's mapping, overrides included; belongs to this draft alone.
        places: Where a key was written: "x.yaml:12" or "--set budget.trials=5"; `()` is the whole.
    """

    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Where `path` was written, or the nearest section around it that was; with an override inside of it."""
        known = next(path[:end] for end in range(len(path), -1, -1) if path[:end] in self.places)
        place = self.places[known]
        inside = (self.places[key] for key in self.places if path and key[: len(path)] == path)
        override = next((inner for inner in inside if inner.startswith(_OPTION) and inner != place), None)
        return f"{place} with {override}" if override else place

    def locate(self, path: KeyPath, problem: str) -> str:
        """One line: where, which key, what is wrong."""
        key = f"{dotted(path)}: " if path else ""
        return one_line(f"{self.place(path)}: {key}{problem}")

    def error(self, path: KeyPath, problem: str, hint: str = "") -> UsageError:
        """The user's mistake at `path`."""
        return UsageError(self.locate(path, problem), one_line(hint))


def dotted(path: KeyPath) -> str:
    """A path as `--set` takes it.

    >>> dotted(("parameters", "batch_size", "choices", 0))
    'parameters.batch_size.choices.0'
    """
    return ".".join(map(str, path))


def one_line(text: str) -> str:
    """`text` without line breaks or characters that a terminal could act on, cut where nobody reads on."""
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    return line if len(line) <= _MAX_CHARACTERS else line[: _MAX_CHARACTERS - 1] + "…"


def read(path: Path) -> Draft:
    """Read a study file.

    Raises:
        UsageError: There is none, it cannot be read, or it is no YAML mapping of at most 1 MiB.
    """
    source = one_line(str(path))
    document = parse(_text(path, source), source)
    if not isinstance(document.data, dict):
        raise UsageError(f"{source}:1: a study file consists of `key: value` lines", "start with `workload:`")
    return Draft(document.data, {key: f"{source}:{line}" for key, line in document.lines.items()})


def _text(path: Path, source: str) -> str:
    """The file's text; its size is looked at before it is decoded."""
    try:
        if not path.is_file():
            problem = "a directory, not a file" if path.is_dir() else "no such file"
            raise UsageError(f"{source}: {problem}", _suggest_file(path))
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{source}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{source}: more than {MAX_BYTES // 2**20} MiB", "a study file is a few kilobytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{source}:{line}: not UTF-8 text", "is it binary?") from None


def _suggest_file(path: Path) -> str:
    """A study file near a path that is none."""
    folder = path if path.is_dir() else path.parent
    files = sorted(file.name for file in folder.glob("*.y*ml")) if folder.is_dir() else []
    near = get_close_matches(path.name, files, n=1) or files[:1]
    return one_line(f"is it {folder / near[0]}?") if near else "give the path of a YAML file that describes a study"


def override(draft: Draft, overrides: Sequence[str]) -> None:
    """Apply "dotted.key=value" texts to the draft, in order; the values are YAML.

    Raises:
        UsageError: No such form, no YAML, or a key below something that has no keys.
    """
    for text in overrides:
        _override(draft, text)


def _override(draft: Draft, text: str) -> None:
    place = one_line(f"{_OPTION} {text}")
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise UsageError(f"{place}: give a key and a value", "write --set budget.trials=5, or key=null for none")
    try:
        document = parse(value, place)
    except UsageError as error:
        raise UsageError(error.message.replace(f"{place}:1:", f"{place}:", 1), error.hint) from None
    path = _key_path(draft.data, key.strip().split("."), place)
    _put(draft.data, path, document.data)
    for stale in [known for known in draft.places if known[: len(path)] == path]:
        del draft.places[stale]
    for end in range(1, len(path) + 1):  # sections too that were not there before
        draft.places.setdefault(path[:end], place)


def _key_path(data: dict[str, Any], parts: list[str], place: str) -> KeyPath:
    """The path that a dotted key means; a parameter's name may itself contain dots."""
    if len(parts) > MAX_DEPTH:
        raise UsageError(f"{place}: nested more than {MAX_DEPTH} levels deep")
    path: list[str | int] = []
    node: Any = data
    while parts:
        if isinstance(node, list):
            if not (len(parts[0]) < 6 and parts[0].isdecimal() and int(parts[0]) < len(node)):
                raise UsageError(f"{place}: {dotted(tuple(path))} has {len(node)} items, counted from 0")
            index = int(parts.pop(0))
            path.append(index)
            node = node[index]
        elif isinstance(node, dict) or node is None:
            section = node or {}
            lengths = [end for end in range(len(parts), 0, -1) if ".".join(parts[:end]) in section]
            name = ".".join(parts[: lengths[0] if lengths else 1])
            path.append(name)
            parts = parts[name.count(".") + 1 :]
            node = section.get(name)
        else:
            raise UsageError(f"{place}: {dotted(tuple(path))} is a value and has no keys below it")
    return tuple(path)


def _put(data: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set the value at a path, with new sections where there are none."""
    node: Any = data
    for key, below in pairwise(path):
        if isinstance(below, str) and isinstance(node, dict) and node.get(str(key)) is None:
            node[key] = {}
        node = node[key]
    node[path[-1]] = value
