"""What is asked: prompts from a file, from a recorded trace, or made; the same seed gives the same ones."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from autotuner.errors import UsageError

_TEXT = """
time year people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work night point home water room mother area money story fact month
lot right study book eye job word business issue side kind head house service friend father power hour
"""
_WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request of a file.

    Attributes:
        at_s: When it came, after the first; 0 in a file without times.
        prompt: Its text; empty when the file tells only how long it was.
        prompt_words: How long, where there is no text.
        output_tokens: How long the answer was; 0 when the file does not say.
        body: The whole body, for endpoints that are no language models.
    """

    at_s: float = 0.0
    prompt: str = ""
    prompt_words: int = 0
    output_tokens: int = 0
    body: Mapping[str, Any] | None = None


def made_prompt(seed: int, episode: int | str, number: int, words: int, shared: int = 0) -> str:
    """A text that no other request has: after its shared beginning nothing can be cached of it.

    Args:
        seed: Of all prompts.
        episode: Which, and what else tells it from others.
        number: Of the request.
        words: In all.
        shared: Of them, from the first, are the same in every prompt, as a system prompt is.
    """
    beginning = random.Random(f"prompt/{seed}").choices(_WORDS, k=shared)
    draw = random.Random(f"prompt/{seed}/{episode}/{number}")
    return " ".join([*beginning, f"{draw.randrange(10**6):06d}", *draw.choices(_WORDS, k=max(0, words - shared - 1))])


@lru_cache(maxsize=4)
def read_requests(path: Path) -> tuple[Recorded, ...]:
    """Read JSON lines, one request each.

    Known keys: `prompt`, `output_tokens`, `at_s`; `timestamp` in milliseconds, `input_length` and `output_length`, as
    in Mooncake's published traces; `body`, the whole request of another endpoint. A line that is a text is a prompt.

    Raises:
        UsageError: The file is not there, or a line cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    requests = [_request(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not requests:
        raise UsageError(f"{path} holds no request", 'write lines like {"prompt": "…", "output_tokens": 32}')
    first_s = min(request.at_s for request in requests)
    ordered = sorted(requests, key=lambda request: request.at_s)
    return tuple(
        Recorded(one.at_s - first_s, one.prompt, one.prompt_words, one.output_tokens, one.body) for one in ordered
    )


def _request(path: Path, number: int, line: str) -> Recorded:
    try:
        data = json.loads(line)
        if isinstance(data, str):
            return Recorded(prompt=data)
        return Recorded(
            at_s=float(data["at_s"]) if "at_s" in data else float(data.get("timestamp", 0)) / 1e3,
            prompt=str(data.get("prompt", "")),
            prompt_words=int(data.get("input_length", 0)),
            output_tokens=int(data.get("output_tokens", data.get("output_length", 0))),
            body=dict(data["body"]) if "body" in data else None,
        )
    except (ValueError, TypeError, AttributeError, KeyError):
        hint = 'expected JSON like {"prompt": "…", "output_tokens": 32, "at_s": 0.5}'
        raise UsageError(f"{path}:{number}: no request", hint) from None
