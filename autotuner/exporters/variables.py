r"""A configuration as environment variables: for `sh` and systemd's EnvironmentFile, or for Docker and Kustomize.

All read `NAME=value` lines and `#` comments. The first two need quotes around what is not plain, and both read within
double quotes a backslash before `"`, `\`, `$` and a backtick as that character. The other two take a line as it stands,
quotes and all.
"""

import re
from collections.abc import Mapping

from autotuner.errors import UsageError
from autotuner.exporters.command_line import command_line
from autotuner.exporters.documents import spelled
from autotuner.types import Config, Recommendation, Value

FOR_SHELL = ", with the variables of `{0}.env`: for sh and systemd, as docker keeps the quotes of --env-file"

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_SPECIAL = re.compile(r'(["\\$`])')
_LINE = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)=(?:"((?:[^"\\]|\\.)*)"|([^"]*))')
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")  # a parameter that is called like one is one


def all_variables(config: Config, recommendation: Recommendation) -> Mapping[str, str]:
    """Every parameter as a variable, and those that the study sets for the program that it runs.

    Raises:
        UsageError: Two parameters would share a variable, or a value cannot stand in one line.
    """
    line = command_line(recommendation, config)
    own = {name: _printable(name, value) for name, value in line.environment.items()} if line else {}
    return {**as_variables(config), **own}


def as_variables(config: Config) -> Mapping[str, str]:
    """`{variable: value}` of every parameter that has a value, in order.

    Raises:
        UsageError: Two parameters would share a variable, or a value cannot stand in one line.
    """
    variables: dict[str, str] = {}
    for parameter, value in config.items():
        name = variable(parameter)
        if any(variable(other) == name for other in config if other != parameter):
            raise UsageError(f"two parameters would both be {name}", "export to json, or rename one of them")
        if value is not None:
            variables[name] = _text(parameter, value)
    return variables


def variable(parameter: str) -> str:
    """The environment variable of a parameter.

    >>> variable("attn.kernel"), variable("NCCL_ALGO")
    ('AUTOTUNE_ATTN_KERNEL', 'NCCL_ALGO')
    """
    if _VARIABLE.fullmatch(parameter):
        return parameter
    return "AUTOTUNE_" + re.sub(r"[^A-Z0-9]", "_", parameter.upper())


def quote(value: str) -> str:
    """`value` bare where nobody would misread it, else in double quotes with its special characters escaped."""
    return value if _PLAIN.fullmatch(value) else '"' + _SPECIAL.sub(r"\\\1", value) + '"'


def as_env_file(variables: Mapping[str, str]) -> bytes:
    """A `NAME=value` line for each, quoted for `sh` and systemd."""
    return "".join(f"{name}={quote(value)}\n" for name, value in variables.items()).encode()


def as_plain_file(variables: Mapping[str, str]) -> bytes:
    """A `NAME=value` line for each, for `docker --env-file` and Kustomize: what follows the sign is the value."""
    return "".join(f"{name}={value}\n" for name, value in variables.items()).encode()


def parse(text: str) -> Mapping[str, str]:
    """The variables of such a file, the way `sh` and systemd read them.

    Raises:
        ValueError: A line that is neither a comment nor a variable.
    """
    variables: dict[str, str] = {}
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if not found:
            raise ValueError(f"not a variable: {line!r}")
        name, quoted, bare = found.groups()
        variables[name] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return variables


def _text(parameter: str, value: Value) -> str:
    return _printable(parameter, spelled(value))


def _printable(name: str, text: str) -> str:
    if not text.isprintable():
        raise UsageError(f"the value of {name} has a line break or control character", "export to json")
    return text
