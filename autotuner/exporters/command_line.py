"""The command line and environment that a study measured, as options that a target's own files can hold.

Only what is safe leaves: where the study let the server listen is no business of a deployment, and a secret of its
command line or environment stays here.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from autotuner.errors import UsageError
from autotuner.exporters.settings import workload
from autotuner.types import Config, Recommendation
from autotuner.workloads.templates import Arguments, fill, fill_arguments, names_in

_OURS = {name: f"\0{name}\0" for name in ("port", "folder", "python")}  # stand for what is different in each trial
_HERE = re.compile("\0(port|folder)\0")
_LISTENING = frozenset({"host", "port"})
_SECRET = re.compile(
    r"(?i)(^|[-_.])(api[-_]?key|key|tokens?|secrets?|passw(or)?d|credentials?|auth(orization)?)($|[-_.])"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+\S|://[^/\s:@]+:[^/\s@]+@|^(hf|sk|gh[ops])[_-]\w{8,}")
_COUNTED = re.compile(r"(?i)(max|num|min|batch|batched|prefill|new|draft|output|total|speculative)[-_]")
_ALLOWED = re.compile(
    r"(NCCL|OMP|MKL|KMP|GOMP|OPENBLAS|NUMEXPR|MALLOC|PYTORCH|TORCH|TORCHINDUCTOR|TORCHDYNAMO|TRITON|CUDA|CUBLAS|VLLM|"
    r"SGLANG|GGML|LLAMA_ARG|ROCR|HIP|GLIBC|LD_PRELOAD|TOKENIZERS|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE|JAVA_TOOL_OPTIONS)"
    r"(_.*)?"
)

Options = dict[str, tuple[str, ...]]  # `{flag without dashes: its words}`, none for a switch


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What was run.

    Attributes:
        words: Program and arguments; without host, port, secrets and paths of a trial.
        environment: Variables that the study set, of those that may leave.
        in_environment: Parameters that a variable holds.
        used: Parameters that one of the two holds.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    in_environment: frozenset[str]
    used: frozenset[str]

    def left_out(self, config: Config, why: str) -> dict[str, str]:
        """`{parameter: why}` of those that neither holds."""
        return {name: why for name, value in config.items() if value is not None and name not in self.used}


def command_line(recommendation: Recommendation, config: Config) -> CommandLine | None:
    """What the study ran with this configuration; None when it ran no program."""
    section = workload(recommendation)
    if section.get("kind") not in ("server", "command"):
        return None
    arguments = TypeAdapter(Arguments).validate_python(section["argv"])
    words = fill_arguments(arguments, {**config, **_OURS})
    environment = {
        name: fill(text, {**config, **_OURS}) for name, text in section.get("env", {}).items() if _may_leave(name, text)
    }
    environment = {name: value for name, value in environment.items() if not _HERE.search(value) and value}
    kept = tuple(word.replace(_OURS["python"], "python") for word in _without(words))
    in_words = set(names_in([*arguments]))
    in_environment = frozenset(name for key in environment for name in names_in(section["env"][key]))
    return CommandLine(kept, environment, in_environment, in_environment | in_words)


def options(words: Sequence[str], short: Mapping[str, str] = {}) -> tuple[tuple[str, ...], Options]:
    """Words that belong to no flag, and flags with what follows them.

    >>> options(["serve", "m", "--max-num-seqs", "64", "--eager", "-tp=2"], {"tp": "tensor-parallel-size"})
    (('serve', 'm'), {'max-num-seqs': ('64',), 'eager': (), 'tensor-parallel-size': ('2',)})
    """
    free: list[str] = []
    found: Options = {}
    current = ""
    for word in words:
        if is_flag(word):
            name, sign, value = word.lstrip("-").partition("=")
            current = short.get(name, name).replace("_", "-")
            found[current] = (value,) if sign else ()
        elif current:
            found[current] += (word,)
        else:
            free.append(word)
    return tuple(free), found


def is_flag(word: str) -> bool:
    """Whether a word names an option; a negative number does not."""
    return bool(re.match(r"--?[A-Za-z]", word))


def is_secret(name: str, value: str = "") -> bool:
    """Whether an option or variable looks like one that must not leave: by its name, or by its value.

    >>> is_secret("api-key"), is_secret("max-num-batched-tokens"), is_secret("HF_TOKEN"), is_secret("h", "Bearer x")
    (True, False, True, True)
    """
    return bool((_SECRET.search(name) and not _COUNTED.search(name)) or _BEARER.search(value))


def by_line(words: Sequence[str]) -> list[str]:
    """Flags with their values, a line each, quoted for `sh`."""
    lines: list[str] = []
    for word in words:
        if is_flag(word) or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines


def typed(word: str) -> Any:
    """A word as the YAML value that is printed as this word again; text where none is.

    >>> typed("64"), typed("0.9"), typed("1e-5"), typed("007"), typed("auto")
    (64, 0.9, '1e-5', '007', 'auto')
    """
    for kind in (int, float):
        try:
            value = kind(word)
        except ValueError:
            continue
        if str(value) == word and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", word):
            return value
    return word


def wrong_program(recommendation: Recommendation, target: str, program: str) -> UsageError:
    """For a study that runs something else."""
    kind = workload(recommendation).get("kind", "something else")
    return UsageError(
        f"{target} cannot use the study {recommendation.study}: it does not run {program} but {kind}",
        "autotune export --list says what each target needs; env, json and python take every study",
    )


def _without(words: Sequence[str]) -> Iterator[str]:
    """The words without flags of the trial's own, and without secrets."""
    skipping = False  # the word after a flag that is hidden
    for place, word in enumerate(words):
        name, sign, value = word.lstrip("-").partition("=")
        if is_flag(word):
            following = value if sign else next(iter(words[place + 1 : place + 2]), "")
            hidden = name.casefold() in _LISTENING or is_secret(name, following) or bool(_HERE.search(following))
            skipping = hidden and not sign
            if hidden:
                continue
        elif place and is_flag(words[place - 1]) and skipping:
            skipping = False
            continue
        elif _BEARER.search(word) or _HERE.search(word):
            continue
        yield word


def _may_leave(name: str, text: str) -> bool:
    """An allowed variable, or one that only says a parameter; never one that is called like a secret."""
    only_a_parameter = bool(re.fullmatch(r"\{[^{}]+\}", text))
    return not is_secret(name, text) and (bool(_ALLOWED.fullmatch(name)) or only_a_parameter)
