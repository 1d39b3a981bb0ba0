"""How a server wants to be asked: strict servers refuse fields that others need, so each is tried once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from autotuner.load.plan import Answer, Api, Call, Episode, Plan

Run: TypeAlias = Callable[[Plan], Episode]

# What makes requests alike and countable, if the server knows it.
WISHES: Mapping[str, Any] = {
    "stream_options": {"include_usage": True},  # tokens are counted by the server, in the last event
    "ignore_eos": True,  # every answer is as long as was asked for: no configuration may do less work
    "temperature": 0.0,
    "seed": 0,
}
_LENGTHS = ("max_tokens", "max_completion_tokens")  # newer servers know the second
_REFUSED = ("HTTP 400", "HTTP 422")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server understands.

    Attributes:
        url: Where requests go.
        api: How they look.
        model: That it calls its own; empty when it need not be named.
        stream: Answers come in parts.
        wishes: Fields beyond what must be there, each accepted once.
        length: What it calls the most tokens of an answer.
        headers: Of every request.
        timeout_s: Of every request.
    """

    url: str
    api: Api
    model: str = ""
    stream: bool = True
    wishes: Mapping[str, Any] = field(default_factory=lambda: WISHES)
    length: str = "max_tokens"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0

    def body(self, prompt: str, output_tokens: int, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A request for an answer of so many tokens."""
        asked = {"messages": [{"role": "user", "content": prompt}]} if self.api == "chat" else {"prompt": prompt}
        named = {"model": self.model} if self.model else {}
        wishes = {name: value for name, value in self.wishes.items() if self.stream or name != "stream_options"}
        return {**named, **asked, self.length: output_tokens, "stream": self.stream, **wishes, **(extra or {})}

    def ask(self, run: Run, body: Mapping[str, Any], *, keep: bool = False) -> Answer:
        """Send one request and wait for it."""
        plan = Plan(
            self.url, (Call(body),), api=self.api, headers=self.headers, timeout_s=self.timeout_s, keeps_answers=keep
        )
        return run(plan).replies[0].answer


def learn(run: Run, dialect: Dialect, extra: Mapping[str, Any]) -> tuple[Dialect, Answer]:
    """Find out which wishes a server grants; of a server that grants them all, by one request.

    Args:
        run: Sends an episode.
        dialect: With every wish.
        extra: Fields that the user wants in every request.

    Returns:
        What the server understands, and its answer; a failure of the plainest request is the answer.
    """
    from dataclasses import replace

    def answer_to(candidate: Dialect) -> Answer:
        return candidate.ask(run, candidate.body("Hello", 4, extra))

    answer = answer_to(dialect)
    if not answer.failure.startswith(_REFUSED):
        return dialect, answer
    for length in _LENGTHS:
        plain = replace(dialect, wishes={}, length=length)
        if not (answer := answer_to(plain)).failure:
            break
    if answer.failure:
        return plain, answer
    granted: dict[str, Any] = {}
    for name, value in dialect.wishes.items():
        if not answer_to(replace(plain, wishes={name: value})).failure:
            granted[name] = value
    return replace(plain, wishes=granted), answer
