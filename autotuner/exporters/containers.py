"""What Kubernetes and KServe say of a container: its name, what it is started with, its environment."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from autotuner.exporters.command_line import CommandLine, is_flag
from autotuner.exporters.variables import variable
from autotuner.types import Config


def dns_name(name: str) -> str:
    """A name as Kubernetes allows it.

    >>> dns_name("Qwen3_CPU.v2")
    'qwen3-cpu-v2'
    """
    return "".join(c if c.isalnum() else "-" for c in name.lower())[:50].strip("-") or "study"


def environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """`env` of a container."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def started_with(line: CommandLine, port: int) -> dict[str, Any]:
    """`command` and `args` of a container that listens everywhere: the program up to its first option, and the rest.

    `-m` of Python belongs to the program.
    """
    words = line.words
    program = 3 if words[1:2] == ("-m",) and PurePath(words[0]).name.startswith("python") else 1
    first = next((place for place, word in enumerate(words) if place >= program and is_flag(word)), len(words))
    listening = ["--host", "0.0.0.0", "--port", str(port)]
    return {"command": [*words[:first]], "args": [*words[first:], *listening]}


def only_a_variable(line: CommandLine, config: Config, *, words: bool, hint: str = "") -> dict[str, str]:
    """Parameters that no word of the command line and no variable that the server reads says.

    Args:
        line: What was run.
        config: With it.
        words: Whether the container's words are replaced by what was run.
        hint: What to do about those that a word would say.
    """
    nowhere = line.left_out(config, "")
    missing = nowhere if words else config.keys() - line.in_environment
    return {
        name: f"it is only the variable {variable(name)}, which the server does not read"
        + ("" if name in nowhere else hint)
        for name, value in config.items()
        if value is not None and name in missing
    }
