"""The only YAML door of `spec`: text in, plain values and the line of every key out.

PyYAML only tokenises here. The values are resolved below, because what YAML 1.1 makes of `off`, `012` or `12:30:45`
is never what was meant, and because a file of one kilobyte can unfold into gigabytes through aliases.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from autotuner.errors import UsageError

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 20_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]*[0-9a-fA-F]|0b[01_]*[01])")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+][0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")
_OCTAL = re.compile(r"([-+]?)0([0-9_]*[0-9])")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_EXPONENT = re.compile(r"([-+]?)([0-9]+)(\.[0-9]*)?[eE]([-+]?)([0-9]+)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")


@dataclass(frozen=True, slots=True)
class Document:
    """A file as plain values.

    Attributes:
        data: Mappings, lists, bool, int, float, str and None.
        lines: Line of every key and item, from 1, by its path; `()` is the whole.
    """

    data: Any
    lines: Mapping[KeyPath, int]


def parse(text: str, source: str) -> Document:
    """Read one YAML document.

    Args:
        text: Of at most 1 MiB.
        source: What messages call it: the file's name.

    Raises:
        UsageError: It is empty, too large, too deep, no YAML, or says something other than it seems to say; the
            message starts with "SOURCE:LINE".
    """
    reader = _Reader(source)
    reader.check_text(text)
    try:
        events = yaml.parse(text, Loader=_LOADER)
        data = reader.document(events)
    except yaml.YAMLError as error:
        raise _translated(error, text, source) from None
    return Document(data, reader.lines)


def _translated(error: yaml.YAMLError, text: str, source: str) -> UsageError:
    """PyYAML's complaint in one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    index = int(mark.line) if mark else 0
    problem = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read")
    lines = text.splitlines() or [""]
    line = min(index + 1, len(lines))
    written = lines[line - 1]
    if "\t" in written[: len(written) - len(written.lstrip())] or "'\\t'" in problem:
        return UsageError(f"{source}:{line}: a tab stands where only spaces may", "indent with spaces")
    if "alias" in problem:
        return UsageError(f"{source}:{line}: {problem}", "write the value out")
    return UsageError(f"{source}:{line}: this is not YAML: {problem}", "look for a missing colon, quote or bracket")


@dataclass(slots=True)
class _Anchored:
    """A value that an alias may repeat, and how many nodes it has."""

    value: Any
    nodes: int


@dataclass(slots=True)
class _Reader:
    """Builds values from PyYAML's events, counting what it builds."""

    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    nodes: int = 0

    def error(self, line: int, message: str, hint: str = "") -> UsageError:
        return UsageError(f"{self.source}:{line}: {message}", hint)

    def check_text(self, text: str) -> None:
        """Refuse what is too large, or no text."""
        if len(text) > MAX_BYTES:
            raise self.error(1, f"more than {MAX_BYTES // 2**20} MiB of text", "a study file is a few kilobytes")
        if bad := _FORBIDDEN.search(text):
            line = text.count("\n", 0, bad.start()) + 1
            raise self.error(line, f"the character {bad.group()!a} has no place in a text file", "is it binary?")

    def document(self, events: Iterator[yaml.Event]) -> Any:
        """The one document of a stream."""
        next(events)  # the start of the stream
        if isinstance(next(events), yaml.StreamEndEvent):
            raise self.error(1, "the file is empty", "a study needs at least workload, parameters and objectives")
        self.lines[()] = 1
        data = self._node(next(events), events, ())
        next(events)  # the end of the document
        after = next(events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self.error(_line(after), "a second document starts here", "keep one study in a file, without ---")
        return data

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath) -> Any:
        line = _line(event)
        self._count(1, line)
        if len(path) > MAX_DEPTH:
            raise self.error(line, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(str(event.anchor), line)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag is not None and event.tag != "!":
            raise self.error(line, f"the tag {_short(event.tag)!r} is not supported", "leave it out")
        before = self.nodes
        if isinstance(event, yaml.ScalarEvent):
            value: Any = self._plain(event.value, line) if event.implicit[0] else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(events, path)
        else:
            value = self._mapping(events, path)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchored(value, self.nodes - before + 1)
        return value

    def _repeated(self, anchor: str, line: int) -> Any:
        """A copy of what an anchor names, so that an override of one does not change the other."""
        if anchor not in self.anchors:
            raise self.error(line, f"*{_short(anchor)} repeats something that is not complete or does not exist")
        self._count(self.anchors[anchor].nodes, line)
        return copy.deepcopy(self.anchors[anchor].value)

    def _count(self, nodes: int, line: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.error(line, f"unfolds into more than {MAX_NODES:,} values", "a study file is a few kilobytes")

    def _sequence(self, events: Iterator[yaml.Event], path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.lines[here] = _line(event)
            items.append(self._node(event, events, here))
        return items

    def _mapping(self, events: Iterator[yaml.Event], path: KeyPath) -> dict[str, Any]:
        section: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key, line = self._key(event), _line(event)
            here = (*path, key)
            if key in section:
                before = f"was already given in line {self.lines[here]}"
                raise self.error(line, f"{_short(key)!r} {before}", "keep one of them")
            self.lines[here] = line
            section[key] = self._node(next(events), events, here)
        return section

    def _key(self, event: yaml.Event) -> str:
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise self.error(line, "a key must be a word, not a list or a section")
        if event.value == "<<" and event.implicit[0]:
            raise self.error(line, "<< is not supported", "write the keys out")
        key = self._plain(event.value, line) if event.implicit[0] else event.value
        if not isinstance(key, str):
            word = _short(event.value)
            raise self.error(line, f"the key {word} is not text", f"write '{word}' in quotes")
        self._count(1, line)
        return key

    def _plain(self, text: str, line: int) -> Any:
        """The value of a word without quotes."""
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.fullmatch(text):
            return self._integer(text, line)
        if _FLOAT.fullmatch(text):
            number = float(text.replace("_", ""))
            if abs(number) == float("inf"):
                raise self.error(line, f"{_short(text)} is too large a number")
            return number
        if trap := _trap(text):
            raise self.error(line, *trap)
        return text

    def _integer(self, text: str, line: int) -> int:
        digits = text.replace("_", "")
        base = 16 if "x" in digits else 2 if "b" in digits else 10
        if len(digits) > 66 or not -(2**63) <= int(digits, base) < 2**63:
            raise self.error(line, f"{_short(text)} is too large a whole number", "write it as text, in quotes")
        return int(digits, base)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return int(event.start_mark.line) + 1


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "…"


def _trap(text: str) -> tuple[str, str] | None:
    """What YAML 1.1 makes of a word that looks like something else, and what to write instead."""
    word, quoted = f"`{_short(text)}`", f"'{_short(text)}' in quotes"
    if text.lower() in _SWITCHES:
        meaning = _SWITCHES[text.lower()]
        return f"{word} means {meaning} in YAML", f"write {quoted}, or {meaning}"
    if _NOT_FINITE.fullmatch(text):
        return f"{word} is not a finite number", f"write a number, or {quoted}"
    if found := _OCTAL.fullmatch(text):
        digits = found[2].replace("_", "")
        octal = set(digits) <= set("01234567") and len(digits) <= 40
        meaning = f"means {found[1]}{int(digits, 8)} (octal)" if octal else "is text"
        return f"{word} {meaning} in YAML", f"write {_short(found[1] + (digits.lstrip('0') or '0'))}, or {quoted}"
    if _SEXAGESIMAL.fullmatch(text):
        return f"{word} means {_seconds(text)} (base 60) in YAML", f"write {quoted}, or the number"
    if found := _EXPONENT.fullmatch(text):
        fraction = found[3] if found[3] and found[3] != "." else ".0"
        number = f"{found[1]}{found[2]}{fraction}e{found[4] or '+'}{found[5]}"
        return f"{word} is text in YAML, not a number", f"write {_short(number)}, or {quoted}"
    if _DATE.fullmatch(text):
        return f"{word} is a date in YAML", f"write {quoted}"
    return None


def _seconds(text: str) -> str:
    """The number that YAML 1.1 makes of 12:30:45."""
    total = 0.0
    for part in text.lstrip("+-").replace("_", "")[:100].split(":"):
        total = total * 60 + float(part or 0)
    return f"{'-' if text.startswith('-') else ''}{total:.15g}"
