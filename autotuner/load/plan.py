"""What the client is asked to send, and what it brings back. Frozen and picklable: it runs in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Api: TypeAlias = Literal["chat", "completions", "json"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        body: What is sent, as JSON.
        due_s: When, after the episode's start. In a closed loop nothing is due before a place is free.
    """

    body: Mapping[str, Any]
    due_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One episode of load.

    Attributes:
        url: Where every call goes.
        calls: In order of time.
        paced: Calls are due at their own times, whatever became of the earlier ones (an open loop); else a call is due
            when one of `places` is free (a closed loop).
        places: Most requests at a time; None for no end. In an open loop who waits for a place waits on the clock.
        api: How an answer is read.
        method: Of HTTP.
        headers: Of every request.
        timeout_s: After which a request counts as failed.
        keeps_answers: The texts and probabilities are wanted, not only times.
    """

    url: str
    calls: tuple[Call, ...]
    paced: bool = True
    places: int | None = None
    api: Api = "chat"
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    keeps_answers: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a response said.

    Attributes:
        failure: Why it is none: an error, an empty text, a stream that broke off; empty when it is one.
        first_s: When its first text came, after the episode's start; NaN when it did not come in parts.
        last_s: When its last text came.
        chunks: Parts with text.
        tokens: That the server counted; None when it does not say.
        prompt_tokens: Likewise.
        text: All of it, or the whole JSON; empty unless it is kept.
        logprobs: The server's, by token, as `{token: ln p}` of the likeliest; empty unless kept.
        picked: The tokens that it chose, as many.
    """

    failure: str = ""
    first_s: float = float("nan")
    last_s: float = float("nan")
    chunks: int = 0
    tokens: int | None = None
    prompt_tokens: int | None = None
    text: str = ""
    logprobs: tuple[Mapping[str, float], ...] = ()
    picked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """One request and what came of it; all times in seconds after the episode's start.

    Attributes:
        due_s: When it should have been sent: every latency counts from here.
        sent_s: When it was.
        ended_s: When its response was complete, or had failed.
        answer: What it said.
    """

    due_s: float
    sent_s: float
    ended_s: float
    answer: Answer


@dataclass(frozen=True, slots=True)
class Episode:
    """What an episode brought back.

    Attributes:
        replies: In the order of the plan's calls.
        client_busy_ratio: CPU time of the client over the time that it sent and received.
        in_flight_mean: Requests on their way, averaged over time, as the client counted them while it ran; held
            against Little's law afterwards.
        stalls: (end, length) in seconds of each time in which the client stood still: its process was stopped, or the
            machine suspended, whose clock may not have run meanwhile.
    """

    replies: tuple[Reply, ...]
    client_busy_ratio: float
    in_flight_mean: float
    stalls: tuple[tuple[float, float], ...] = ()
