"""The user's own programs that change a service: one puts in place what is wanted, one says what is there, one tries.

What is wanted is told whole and every time the same ("this bundle serves, that one beside it gets 10 %"), so that it
can be told again after any crash. That it was put in place is believed only when it was read back.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotuner.daemon.leash import run_leashed
from autotuner.types import Deployment

MOST_OUTPUT = 2000  # characters of what a hook says that are written down


@dataclass(frozen=True, slots=True)
class Hooks:
    """Programs with their arguments; words in braces are filled in.

    Attributes:
        apply: Gets {stable} and {candidate}, the folders of the bundles (empty for none), {percent}, {token}, which
            grows with every new leader, and {stable_hash}, {candidate_hash}. May be called again with the same.
        observe: Prints one JSON object: {"stable": HASH, "candidate": HASH or "", "percent": N}.
        smoke: Ends with 0 when the service answers as it should; left out: nobody tries.
        deadline_s: For all of them together.
    """

    apply: Sequence[str]
    observe: Sequence[str]
    smoke: Sequence[str] = ()
    deadline_s: float = 60.0


WORDS = ("stable", "stable_hash", "candidate", "candidate_hash", "percent", "token")  # that apply and smoke are given


class HookError(Exception):
    """A hook failed, took too long, or the service is not what it should be; says which, in one sentence."""


def put_in_place(
    hooks: Hooks, wanted: Deployment, token: int, folder_of: Callable[[str], Path], clock: Callable[[], float]
) -> None:
    """Make the service what is wanted, read it back and try it.

    Args:
        hooks: The user's.
        wanted: By the service.
        token: Of the leader.
        folder_of: Where the files of a bundle lie, by its hash.
        clock: Monotonic seconds.

    Raises:
        HookError: It did not come to that within the deadline.
    """
    ends_s = clock() + hooks.deadline_s
    words = {
        "stable": str(folder_of(wanted.stable)), "stable_hash": wanted.stable,
        "candidate": str(folder_of(wanted.candidate)) if wanted.candidate else "", "candidate_hash": wanted.candidate,
        "percent": str(wanted.percent), "token": str(token),
    }  # fmt: skip
    run_hook("apply", hooks.apply, words, ends_s - clock())
    seen = observe(hooks, ends_s - clock())
    if seen != wanted:
        raise HookError(f"after apply the service says that it is {told(seen)}, and not {told(wanted)}")
    if hooks.smoke:
        run_hook("smoke", hooks.smoke, words, ends_s - clock())


def observe(hooks: Hooks, limit_s: float) -> Deployment:
    """What serves now.

    Raises:
        HookError: The hook failed, or says no such thing.
    """
    text = run_hook("observe", hooks.observe, {}, limit_s)
    try:
        said: Any = json.loads(text)
        stable, candidate, percent = said["stable"], said.get("candidate") or "", said.get("percent") or 0
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        stable = candidate = percent = ""
    named = all(isinstance(one, str) and one.isprintable() for one in (stable, candidate))
    if not named or isinstance(percent, bool) or percent not in range(101):
        raise HookError(
            "observe says no JSON object with stable and candidate, which are hashes, and percent, a whole number, "
            f"but: {text[:200]!r}"
        )
    return Deployment(stable, candidate, int(percent))


def said_environment(argv: Sequence[str], limit_s: float) -> dict[str, str]:
    """What a program says of where the service runs: one JSON object, names and values.

    Raises:
        HookError: It failed, or says no such thing.
    """
    text = run_hook("environment", argv, {}, limit_s)
    try:
        return {_written(name): _written(value) for name, value in json.loads(text).items()}
    except (ValueError, RecursionError, AttributeError):
        raise HookError(f"environment says no JSON object, but: {text[:200]!r}") from None


def run_hook(name: str, argv: Sequence[str], words: Mapping[str, str], limit_s: float) -> str:
    """Run one of the user's programs and return what it prints: of much, the beginning and the end.

    Args:
        name: What it is, for errors.
        argv: With words in braces.
        words: What they become.
        limit_s: When it takes longer, or we die, its children die with it.

    Raises:
        HookError: It cannot be started, does not end in time, or not with 0.
    """
    if limit_s <= 0:
        raise HookError(f"no time was left for {name}")
    filled = [_fill(word, words) for word in argv]
    try:
        status, output = run_leashed(filled, limit_s)
    except TimeoutError as error:
        raise HookError(f"{name} {error.strerror}") from None
    except (OSError, ValueError) as error:
        raise HookError(f"{name} cannot be started: {filled[0]}: {getattr(error, 'strerror', '') or error}") from None
    if status:
        said = " ".join(output[-MOST_OUTPUT:].split())
        raise HookError(f"{name} ended with {status}{said and f': {said}'}")
    return output


def _written(value: object) -> str:
    """What can be printed and stored: JSON may hold halves of characters."""
    return str(value).encode(errors="replace").decode()


def _fill(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def told(seen: Deployment) -> str:
    """A deployment in a few words."""
    beside = f" with {seen.percent} % for {seen.candidate}" if seen.candidate else ""
    return f"{seen.stable}{beside}"
