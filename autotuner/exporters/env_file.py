r"""The recommendation as environment variables: for `sh`, systemd's EnvironmentFile and `docker --env-file` alike.

The three agree on little: `NAME=value` lines and `#` comments. Docker takes quotes literally, the other two need
them around what is not plain; so plain values stay bare, and only the rest is quoted. Within double quotes `sh` and
systemd both read a backslash before `"`, `\`, `$` and a backtick as that character.
"""

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Literal

from autotuner.errors import UsageError
from autotuner.exporters.common import FileExporter, is_forced
from autotuner.metrics import format_quantity
from autotuner.types import Config, Recommendation, Value

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_SPECIAL = re.compile(r'(["\\$`])')
_LINE = re.compile(r'(AUTOTUNE_[A-Z0-9_]+)=(?:"((?:[^"\\]|\\.)*)"|([^"]*))')


class EnvExporter(FileExporter):
    """Writes `STUDY.env` with one `AUTOTUNE_PARAMETER=value` a line."""

    kind: Literal["env"] = "env"
    target_version: ClassVar[str] = "POSIX sh; systemd EnvironmentFile; docker --env-file for unquoted values"

    def export(self, recommendation: Recommendation, directory: Path) -> Path:
        """Write the file; see `Exporter.export`."""
        self.admit(recommendation)
        variables = as_variables(recommendation.config)
        lines = [*_header(recommendation), *_absent(recommendation.config)]
        lines += [f"{name}={quote(value)}" for name, value in variables.items()]
        text = "\n".join(lines) + "\n"
        assert parse(text) == variables
        return self.write(directory / f"{recommendation.study}.env", text)


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

    >>> variable("attn.kernel")
    'AUTOTUNE_ATTN_KERNEL'
    """
    return "AUTOTUNE_" + re.sub(r"[^A-Z0-9]", "_", parameter.upper())


def quote(value: str) -> str:
    """`value` bare where nobody would misread it, else in double quotes with its special characters escaped."""
    return value if _PLAIN.fullmatch(value) else '"' + _SPECIAL.sub(r"\\\1", value) + '"'


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
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not text.isprintable():
        raise UsageError(f"the value of {parameter} has a line break or control character", "export to json")
    return text


def _header(recommendation: Recommendation) -> Iterator[str]:
    """The evidence, as comments."""
    proof = recommendation.verification
    low, high = (format_quantity(bound, "x") for bound in proof.gain_interval)
    yield f"# autotune {version('autotune-loop')}: study {recommendation.study}"
    if is_forced(recommendation):
        yield f"# FORCED: this is not verified BETTER but {proof.decision}."
    yield _comment(f"{proof.decision}: {proof.reason}")
    yield f"# {proof.metric}: factor {proof.gain_ratio:.4g} (95 %: {low} to {high}, {len(proof.pairs)} pairs)"
    if proof.equivalence is not None:
        yield _comment(f"outputs: {proof.equivalence.reason}")
    yield from (_comment(f"{key}: {value}") for key, value in sorted(recommendation.environment.items()))


def _absent(config: Config) -> Iterator[str]:
    return (f"# {variable(name)} is not set: its value is null" for name, value in config.items() if value is None)


def _comment(text: str) -> str:
    """One comment line. A trailing backslash would continue it, for systemd, into the next."""
    return "# " + " ".join(re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", " ", text).split()).rstrip("\\")
