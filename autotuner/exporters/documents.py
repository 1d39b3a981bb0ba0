"""Texts in the formats that targets read: YAML for readers of YAML 1.1, JSON, shell words."""

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from autotuner.types import Value


class _Dumper(yaml.SafeDumper):
    """Writes what YAML 1.1 and 1.2 read alike."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Quoted when it looks like something else to anybody: y and n are switches to Go, 1e-5 a number to YAML 1.2."""
    ambiguous = text.casefold() in ("y", "n") or _is_number(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if ambiguous else None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    """With a point and a signed exponent, as YAML 1.1 wants them."""
    assert math.isfinite(number), number
    text = repr(number)
    mantissa, sign, exponent = text.partition("e")
    if sign:
        mantissa += "" if "." in mantissa else ".0"
        text = f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _number)


def as_yaml(*documents: Any, comments: Iterable[str] = ()) -> bytes:
    """YAML in the order given, `# comment` lines first."""
    head = "".join(f"# {comment}\n" for comment in comments)
    text = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**16)
    return (head + text).encode()


def in_yaml(value: Value) -> str:
    """A value as it can stand anywhere in YAML, within braces too.

    >>> in_yaml("a, b")
    "'a, b'"
    """
    text: str = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=2**16)
    return text.strip()[1:-1]


def as_json(document: Any) -> bytes:
    """Indented JSON."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def as_script(words: Iterable[str], environment: Mapping[str, str] = {}, comments: Iterable[str] = ()) -> bytes:
    """A script for `sh` that runs a program, and passes on what it is given.

    Args:
        words: The program, then its arguments as they stand on a line each; quoted already.
        environment: Set before it.
        comments: Lines for people.
    """
    lines = ["#!/bin/sh", *(f"# {comment}" for comment in comments), "set -eu"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    program, *others = words
    lines.append(" \\\n  ".join([f"exec {program}", *others, '"$@"']))
    return ("\n".join(lines) + "\n").encode()


def spelled(value: Value) -> str:
    """A value as programs read it: true and false in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)
