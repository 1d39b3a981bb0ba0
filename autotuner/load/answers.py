"""What a response said, read from its raw parts after the episode: while it lasts, the client only takes times.

A status of 200 is no success yet: a body may say `error`, a text may be empty, a stream may break off. And a part is
no token: tokens are what the server counted.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from autotuner.load.plan import Answer, Api

Parts: TypeAlias = Sequence[tuple[float, bytes]]  # (when it came, what came)
_SHOWN_CHARACTERS = 200
_TEXTS = ("content", "reasoning_content", "reasoning", "text")


def read_answer(api: Api, status: int, content_type: str, parts: Parts, *, keep: bool = False) -> Answer:
    """Read a complete response.

    Args:
        api: "chat" or "completions" as OpenAI defined them, or "json" for any other endpoint.
        status: Of HTTP.
        content_type: The header, as it came.
        parts: In order of time.
        keep: Text and probabilities are wanted.
    """
    if not 200 <= status < 300:
        return Answer(f"HTTP {status}: {_shown(parts)}")
    kind = content_type.partition(";")[0].strip().lower()
    if api != "json" and kind == "text/event-stream":
        return _read_stream(parts, keep=keep)
    if kind != "application/json" and not kind.endswith("+json"):
        wanted = "JSON" if api == "json" else "JSON or an event stream"
        return Answer(f"the answer is {kind or 'of no type'}, not {wanted}: {_shown(parts)}")
    return _read_whole(api, parts, keep=keep)


def _read_whole(api: Api, parts: Parts, *, keep: bool) -> Answer:
    body = b"".join(part for _, part in parts)
    try:
        data = json.loads(body)
    except ValueError:
        return Answer(f"the answer is no JSON: {_shown(parts)}")
    if failure := _error(data):
        return Answer(failure)
    last_s = parts[-1][0]
    if api == "json":
        if data in (None, "", [], {}):
            return Answer("the answer is empty")
        return Answer(last_s=last_s, chunks=1, text=body.decode() if keep else "")
    choice = _choice(data)
    text = _text(choice.get("message") or choice)
    if not text:
        return Answer("the answer is empty")
    found = _Logprobs()
    if keep:
        found.add(choice)
    tokens, prompt_tokens = _counts(data)
    return Answer(
        "", math.nan, last_s, 1, tokens, prompt_tokens, text if keep else "", tuple(found.top), tuple(found.picked)
    )


def _read_stream(parts: Parts, *, keep: bool) -> Answer:
    texts: list[str] = []
    times_s: list[float] = []
    found, finished = _Logprobs(), False
    tokens = prompt_tokens = None
    for came_s, event in events(parts):
        if event == "[DONE]":
            finished = True
            continue
        try:
            data = json.loads(event)
        except ValueError:
            return Answer(f"an event is no JSON: {event[:_SHOWN_CHARACTERS]}")
        if failure := _error(data):
            return Answer(failure)
        choice = _choice(data)
        if text := _text(choice.get("delta") or choice):  # the first event as a rule holds a role and no text
            texts.append(text)
            times_s.append(came_s)
        if keep:
            found.add(choice)
        finished = finished or choice.get("finish_reason") is not None
        counted = _counts(data)  # as a rule the last event says it, or each one so far
        tokens = tokens if counted[0] is None else counted[0]
        prompt_tokens = prompt_tokens if counted[1] is None else counted[1]
    if not finished:
        return Answer(f"the stream broke off after {len(texts)} parts")
    if not texts:
        return Answer("the answer is empty")
    return Answer(
        "", times_s[0], times_s[-1], len(texts), tokens, prompt_tokens, "".join(texts) if keep else "",
        tuple(found.top), tuple(found.picked),
    )  # fmt: skip


def events(parts: Parts) -> Iterator[tuple[float, str]]:
    r"""The data of server-sent events, each with the time at which its last byte came.

    >>> list(events([(0.1, b"data: a"), (0.2, b"bc\n\ndata: d\n\n")]))
    [(0.2, 'abc'), (0.2, 'd')]
    """
    rest = b""
    for came_s, part in parts:
        rest = (rest + part).replace(b"\r\n", b"\n")
        *complete, rest = rest.split(b"\n\n")
        for block in complete:
            if data := _data(block):
                yield came_s, data
    if parts and (data := _data(rest)):  # the last event may lack its empty line
        yield parts[-1][0], data


def _data(block: bytes) -> str:
    lines = (line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(lines).decode(errors="replace")


def _error(data: object) -> str:
    """What a body with a good status says went wrong; empty if it says nothing of the kind."""
    if not isinstance(data, Mapping) or not data.get("error"):
        return ""
    error = data["error"]
    message = error.get("message") if isinstance(error, Mapping) else error
    return f"the answer is an error: {' '.join(str(message or error).split())[:_SHOWN_CHARACTERS]}"


def _choice(data: object) -> Mapping[str, Any]:
    choices = data.get("choices") if isinstance(data, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, Mapping) else {}


def _text(part: object) -> str:
    """Whatever was generated: an answer, a thought, or the call of a tool."""
    if not isinstance(part, Mapping):
        return part if isinstance(part, str) else ""
    said = "".join(value for name in _TEXTS if isinstance(value := part.get(name), str))
    return said or (json.dumps(part["tool_calls"]) if part.get("tool_calls") else "")


def _counts(data: object) -> tuple[int | None, int | None]:
    """Tokens of the answer and of the prompt, as the server counted them."""
    usage = data.get("usage") if isinstance(data, Mapping) else None
    if not isinstance(usage, Mapping):
        return None, None
    counts = (usage.get("completion_tokens"), usage.get("prompt_tokens"))
    tokens, prompt_tokens = (count if isinstance(count, int) else None for count in counts)
    return tokens, prompt_tokens


class _Logprobs:
    """Tokens that were chosen and the likeliest at each place, from either of OpenAI's two forms."""

    def __init__(self) -> None:
        self.top: list[Mapping[str, float]] = []
        self.picked: list[str] = []

    def add(self, choice: Mapping[str, Any]) -> None:
        """Take what a choice, or a part of one, tells."""
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, Mapping):
            return
        for place in logprobs.get("content") or ():  # of chats
            self.picked.append(str(place["token"]))
            self.top.append({str(one["token"]): float(one["logprob"]) for one in place.get("top_logprobs") or ()})
        if tokens := logprobs.get("tokens"):  # of completions
            self.picked += map(str, tokens)
            self.top += [dict(place or {}) for place in logprobs.get("top_logprobs") or [{}] * len(tokens)]


def _shown(parts: Parts) -> str:
    text = b"".join(part for _, part in parts)[: 4 * _SHOWN_CHARACTERS].decode(errors="replace")
    return " ".join(text.split())[:_SHOWN_CHARACTERS] or "no text"
