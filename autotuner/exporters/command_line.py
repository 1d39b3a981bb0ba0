"""The command line and environment that a study measured, as options that a target's own files can hold.

Only what is safe leaves: where the study let the server listen is no business of a deployment, and a secret of its
command line or environment stays here. What stays here is named.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from pydantic import TypeAdapter

from autotuner.errors import UsageError
from autotuner.exporters.secrecy import SECRET, is_known_variable, is_secret
from autotuner.exporters.settings import workload
from autotuner.spec.expressions import Expression
from autotuner.types import Config, Recommendation
from autotuner.workloads.templates import Arguments, Values, fill, fill_arguments, names_in

_OURS = {name: f"\0{name}\0" for name in ("port", "folder", "python")}  # stand for what is different in each trial
_HERE = re.compile("\0(port|folder)\0")
_LISTENING = frozenset({"host", "port"})
_OF_A_TRIAL = "it holds a folder or port of a trial"
_UNKNOWN = "it is not on the list of known variables that may leave: set it yourself"

Options = dict[str, tuple[str, ...]]  # `{flag without dashes: its words}`, none for a switch
Word = tuple[str, frozenset[str]]  # with the parameters that it says


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What was run.

    Attributes:
        words: Program and arguments; without host, port, secrets and paths of a trial.
        says: Of each word, the parameters that it says.
        unsaid: Parameters that say by leaving words out.
        environment: Variables that the study set, of those that may leave.
        in_environment: Parameters that a variable holds.
        hidden: `{flag: why}`, of the words that stay here; but for host and port.
        unset: `{variable: why}`, of the variables that stay here.
    """

    words: tuple[str, ...]
    says: tuple[frozenset[str], ...]
    unsaid: frozenset[str]
    environment: Mapping[str, str]
    in_environment: frozenset[str]
    hidden: Mapping[str, str]
    unset: Mapping[str, str]

    @property
    def withheld(self) -> dict[str, str]:
        """`{flag or variable: why}`, of all that stays here."""
        return {**self.hidden, **self.unset}

    def left_out(self, config: Config, why: str) -> dict[str, str]:
        """`{parameter: why}` of those that neither words nor variables hold."""
        used = self.in_environment.union(self.unsaid, *self.says)
        return {name: why for name, value in config.items() if value is not None and name not in used}

    def starting_at(self, place: int) -> "CommandLine":
        """The line from its program on; what stands before it, but for Python, is hidden then."""
        before = [*self.words[:place]]
        while before and (before[-1] in ("-m", "-c") or PurePath(before[-1]).name.startswith("python")):
            before.pop()
        lost = {shlex.join(before): "it stands before the program: start it with that yourself"} if before else {}
        return replace(self, words=self.words[place:], says=self.says[place:], hidden={**self.hidden, **lost})


def command_line(recommendation: Recommendation, config: Config) -> CommandLine | None:
    """What the study ran with this configuration; None when it ran no program."""
    section = workload(recommendation)
    if section.get("kind") not in ("server", "command"):
        return None
    values = {**config, **_OURS}
    said, unsaid = _filled(TypeAdapter(Arguments).validate_python(section["argv"]), values)
    kept, hidden = _shown(said)
    texts: Mapping[str, str] = section.get("env", {})
    environment = {name: _anywhere(fill(text, values)) for name, text in texts.items()}
    unset = {name: why for name, value in environment.items() if (why := _why_unset(name, texts[name], value))}
    environment = {name: value for name, value in environment.items() if name not in unset}
    return CommandLine(
        words=tuple(_anywhere(word) for word, _ in kept),
        says=tuple(names for _, names in kept),
        unsaid=unsaid,
        environment=environment,
        in_environment=frozenset(names_in([texts[name] for name in environment])),
        hidden=hidden,
        unset=unset,
    )


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
            flag, dot, key = name.partition(".")  # behind the dot is a key of JSON, which keeps its underscores
            current = short.get(flag, flag).replace("_", "-") + dot + key
            found[current] = (value,) if sign else ()
        elif current:
            found[current] += (word,)
        else:
            free.append(word)
    return tuple(free), found


def is_flag(word: str) -> bool:
    """Whether a word names an option; a negative number does not."""
    return bool(re.match(r"--?[A-Za-z]", word))


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


def _filled(arguments: Arguments, values: Values) -> tuple[list[Word], frozenset[str]]:
    """Every word, and the parameters whose condition leaves words out."""
    said: list[Word] = []
    unsaid: set[str] = set()
    for argument in arguments:
        words = fill_arguments([argument], values)
        if isinstance(argument, str):
            said += [(word, frozenset(names_in(argument))) for word in words]
            continue
        condition = Expression(argument.condition).names
        unsaid.update(() if words else condition)
        said += [(word, condition.union(names_in(text))) for text, word in zip(argument.args, words, strict=False)]
    return said, frozenset(unsaid)


def _anywhere(text: str) -> str:
    """With the Python of any machine in the place of ours."""
    return text.replace(_OURS["python"], "python")


def _shown(said: Sequence[Word]) -> tuple[list[Word], dict[str, str]]:
    """The words that may leave, and `{flag: why}` of those that may not."""
    kept: list[Word] = []
    hidden: dict[str, str] = {}
    for place, group in _by_flag([*_not_listening(said)]):
        word, following = group[0][0], [word for word, _ in group[1:]]
        flag, sign, attached = word.partition("=") if is_flag(word) else ("", "=", word)
        name, values = flag.lstrip("-"), [attached, *following] if sign else following
        if any(is_secret(name, value) for value in values):
            hidden[flag or f"word {place + 1}"] = SECRET
        elif any(_HERE.search(value) for value in values):
            hidden[flag or f"word {place + 1}"] = _OF_A_TRIAL
        else:
            kept += group
    return kept, hidden


def _not_listening(said: Sequence[Word]) -> Iterator[Word]:
    """The words without host and port, which take one word each."""
    follows = False
    for word in said:
        flag, sign, _ = word[0].partition("=")
        listening = is_flag(flag) and flag.lstrip("-").casefold() in _LISTENING
        if not listening and not (follows and not is_flag(flag)):
            yield word
        follows = listening and not sign


def _by_flag(said: Sequence[Word]) -> Iterator[tuple[int, Sequence[Word]]]:
    """Each flag with all that follows it, and its place; before the first flag each word alone."""
    flags = [place for place, (word, _) in enumerate(said) if is_flag(word)]
    starts = [*range(flags[0] if flags else len(said)), *flags]
    for start, end in zip(starts, [*starts[1:], len(said)], strict=True):
        yield start, said[start:end]


def _why_unset(name: str, text: str, value: str) -> str:
    """Why a variable stays here: empty for a known one, and for one that only says a parameter."""
    if is_secret(name, value):
        return SECRET
    if _HERE.search(value):
        return _OF_A_TRIAL
    return "" if is_known_variable(name) or re.fullmatch(r"\{[^{}]+\}", text) else _UNKNOWN
