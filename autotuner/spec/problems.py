"""What is wrong with a section, in the words of the file instead of pydantic's: the door for its errors."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from autotuner.errors import UsageError
from autotuner.spec.draft import Draft
from autotuner.spec.model import StudySpec
from autotuner.spec.yaml import KeyPath

FACTS = ("device", "cpu_cores", "devices", "source")  # of a StudySpec; no file gives them

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument")
_EXPECTED: Sequence[tuple[str, str]] = (
    ("bool", "true or false"),
    ("int", "a whole number"),
    ("float", "a number"),
    ("string_type", "text"),
    ("none_required", "null"),
    ("path", "a path"),
    ("tuple", "a list"),
    ("list", "a list"),
    ("set_type", "a list"),
    ("iterable", "a list"),
    ("dict", "a section of `key: value` lines"),
    ("mapping", "a section of `key: value` lines"),
    ("model", "a section of `key: value` lines"),
    ("dataclass", "a section of `key: value` lines"),
)
_LOOKS_CONVERTED = re.compile(r"\s*([-+]?[0-9._]+(e[-+]?[0-9]+)?|true|false|yes|no|on|off|[tfyn])\s*", re.IGNORECASE)


def explain(error: ValidationError, kind: type, data: Mapping[str, Any], draft: Draft, at: KeyPath) -> UsageError:
    """The first problem in one line, and how many more there are; a key that nobody knows comes first.

    Args:
        error: What pydantic says.
        kind: The class that was to be built.
        data: What it was to be built from.
        draft: The file.
        at: Where `data` stands in it.
    """
    groups: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        groups.setdefault(_written_path(detail, data), []).append(detail)
    for path in [path for path, found in groups.items() if found[0]["type"] == "too_short"]:
        if any(other[: len(path)] == path != other for other in groups):
            del groups[path]  # too short only because an item is wrong
    path, details = min(groups.items(), key=lambda group: group[1][0]["type"] not in _UNKNOWN)
    problem, hint = _describe(details, kind, path)
    more = f" (and {len(groups) - 1} more)" if len(groups) > 1 else ""
    return draft.error(at + path, problem + more, hint)


def suggest(name: str, known: Sequence[str]) -> str:
    """A hint for a name that is not known."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else "known here: " + ", ".join(known)


def find_converted(given: Any, kept: Any, path: KeyPath = ()) -> tuple[KeyPath, str, str] | None:
    """Where pydantic took text for a number or a switch, or one of these for the other; None if nowhere.

    Returns:
        Path, problem and hint of the first such place.
    """
    if isinstance(given, dict) and isinstance(kept, dict):
        pairs = [((*path, key), given[key], kept[key]) for key in given if key in kept]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = [((*path, index), *pair) for index, pair in enumerate(zip(given, kept, strict=True))]
    else:
        if not _converted(given, kept):
            return None
        wanted = "true or false" if isinstance(kept, bool) else "a number"
        hint = "leave the quotes out" if isinstance(given, str) and not isinstance(kept, bool) else ""
        return path, f"expected {wanted}, found {_shown(given)}", hint
    found = (find_converted(inner, value, here) for here, inner, value in pairs)
    return next((here for here in found if here is not None), None)


def _converted(given: Any, kept: Any) -> bool:
    if not isinstance(kept, int | float):
        return False
    if isinstance(given, str):
        return _LOOKS_CONVERTED.fullmatch(given) is not None
    return isinstance(given, int | float) and isinstance(given, bool) != isinstance(kept, bool)


def _written_path(detail: ErrorDetails, data: Any) -> KeyPath:
    """The part of pydantic's location that the file has: what follows names members of unions."""
    path: list[str | int] = []
    for step in detail["loc"]:
        inside = isinstance(data, dict) and step in data
        if not inside and not (isinstance(data, list | tuple) and isinstance(step, int) and step < len(data)):
            return (*path, step) if detail["type"] in _MISSING else tuple(path)
        path.append(step)
        data = data[step]
    return tuple(path)


def _describe(details: Sequence[ErrorDetails], kind: type, path: KeyPath) -> tuple[str, str]:
    """Problem and hint for all that pydantic says about one key."""
    first = details[0]
    if first["type"] in _UNKNOWN:
        return "unknown key", suggest(str(path[-1]), _keys(kind, path[:-1]))
    if first["type"] in _MISSING:
        return ("an item is missing" if isinstance(path[-1], int) else "is missing"), ""
    if first["type"] in ("value_error", "assertion_error"):
        return str(first["ctx"]["error"]), ""
    expected = list(dict.fromkeys(filter(None, map(_expected, details))))
    if expected:
        words = " or ".join(expected) if len(expected) < 4 else "a single value"
        return f"expected {words}, found {_shown(first['input'])}", ""
    return _wording(first)


def _expected(detail: ErrorDetails) -> str | None:
    if detail["type"] in ("literal_error", "enum"):
        return str(detail["ctx"]["expected"])
    if not detail["type"].endswith(("_type", "_parsing", "_from_float", "none_required", "attributes_type")):
        return None
    return next((words for start, words in _EXPECTED if detail["type"].startswith(start)), None)


def _wording(detail: ErrorDetails) -> tuple[str, str]:
    """Pydantic's own words where they are plain, ours where they are not."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "too_short":
            return f"has {context['actual_length']} items, needs at least {context['min_length']}", ""
        case "too_long":
            return f"has too many items, at most {context['max_length']} are allowed", ""
        case "string_pattern_mismatch":
            hint = f"the pattern is {context['pattern']}"
            return f"{_shown(detail['input'])} has characters that are not allowed here, or too many", hint
        case "is_instance_of" | "is_subclass_of":
            return f"{_shown(detail['input'])} does not fit here", ""
        case _:
            return f"{detail['msg'].removeprefix('Input ').removeprefix('Value ')}, found {_shown(detail['input'])}", ""


def _shown(value: Any) -> str:
    """A value as the file has it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a section"
        case list() | tuple():
            return "a list"
        case int() | float():
            return str(value)
        case _:
            text = str(value)
            return repr(text if len(text) <= 60 else text[:59] + "…")


def _keys(kind: Any, path: KeyPath) -> list[str]:
    """The keys that a file may use in the section at `path` of `kind`."""
    for step in path:
        kind = _inside(kind, step)
    return [key for key in _fields(_bare(kind)) if kind is not StudySpec or key not in FACTS]


def _inside(kind: Any, step: str | int) -> Any:
    kind = _bare(kind)
    if fields := _fields(kind):
        return fields.get(str(step))
    arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
    return arguments[-1] if arguments else None


def _bare(kind: Any) -> Any:
    """A type without its annotations and without None."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next((option for option in get_args(kind) if option is not type(None)), None)
    return kind


def _fields(kind: Any) -> Mapping[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind) if is_dataclass(kind) else {}
