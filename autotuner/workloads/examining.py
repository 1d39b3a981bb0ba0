"""What a server answers, and not how fast: fixed prompts against the baseline's, and a labelled set."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotuner.load.dialect import Dialect
from autotuner.load.plan import Answer
from autotuner.load.process import LoadClient
from autotuner.load.prompts import made_prompt
from autotuner.workloads.labels import Quality, labels_at, read_labels
from autotuner.workloads.programs import ProgramError

_TOP = 5
_REFUSALS = ("HTTP 400", "HTTP 404", "HTTP 422", "HTTP 501")  # of a field that it does not know
_FIXED = "fixed"  # no episode is called so: these prompts are in no cache


class Examiner:
    """Asks one question after the other.

    Args:
        client: Who asks.
        dialect: How.
        quality: What.
        seed: Of made prompts.
        words: Of a made prompt.
        extra: Fields of every request.
    """

    def __init__(
        self, client: LoadClient, dialect: Dialect, quality: Quality, seed: int, words: int, extra: Mapping[str, Any]
    ) -> None:
        self._client, self._dialect, self._quality = client, replace(dialect, stream=False), quality
        self._seed, self._words, self._extra = seed, words, extra

    def outputs(self) -> Mapping[str, Any]:
        """The likeliest tokens after fixed prompts, if the server tells: arrays of texts and of ln p [positions, 5]."""
        import numpy as np

        answers = self._answers() if self._dialect.api != "json" else []
        if not answers or not all(answer.logprobs for answer in answers):
            return {}
        rows = [
            (number, picked, sorted(top.items(), key=lambda one: -one[1])[:_TOP])
            for number, answer in enumerate(answers)
            for picked, top in zip(answer.picked, answer.logprobs, strict=False)
        ]
        padded = [[*top, *[("", -math.inf)] * (_TOP - len(top))] for _, _, top in rows]
        return {
            "_prompt": np.array([number for number, _, _ in rows]),
            "_picked": np.array([picked for _, picked, _ in rows]),
            "_top_tokens": np.array([[token for token, _ in top] for top in padded]),
            "_top_logprobs": np.array([[logprob for _, logprob in top] for top in padded]),
        }

    def _answers(self) -> list[Answer]:
        """To the fixed prompts; none where the server refuses to say how sure it is.

        Raises:
            ProgramError: It gave no answer to one, although it did not refuse.
        """
        answers = []
        asked = {**self._extra, **self._logprobs()}
        for number in range(self._quality.prompts):
            prompt = made_prompt(self._seed, _FIXED, number, self._words)
            body = self._dialect.body(prompt, self._quality.tokens, asked)
            answer = self._dialect.ask(self._client.run, body, keep=True)
            if answer.failure.startswith(_REFUSALS):
                return []
            if answer.failure:
                raise ProgramError(f"no answer to prompt {number} of the quality check: {answer.failure}")
            answers.append(answer)
        return answers

    def _logprobs(self) -> Mapping[str, Any]:
        return {"logprobs": True, "top_logprobs": _TOP} if self._dialect.api == "chat" else {"logprobs": _TOP}

    def labelled(self) -> Mapping[str, float]:
        """How often the right label is the first answer, and among the first five."""
        if self._quality.labels is None:
            return {}
        rows = read_labels(self._quality.labels)
        hits = [[label.strip() for label in self._ranking(row)[:_TOP]] for row in rows]
        pairs = list(zip((str(row["label"]).strip() for row in rows), hits, strict=True))
        return {
            "top1_accuracy_ratio": sum(label in labels[:1] for label, labels in pairs) / len(pairs),
            "top5_accuracy_ratio": sum(label in labels for label, labels in pairs) / len(pairs),
        }

    def _ranking(self, row: Mapping[str, Any]) -> list[str]:
        """Labels, the likeliest first."""
        if self._dialect.api == "json":
            answer = self._dialect.ask(self._client.run, {**row.get("body", {}), **self._extra}, keep=True)
            return [] if answer.failure else labels_at(json.loads(answer.text), self._quality.answer)
        body = self._dialect.body(str(row["prompt"]), 1, {**self._extra, **self._logprobs()})
        answer = self._dialect.ask(self._client.run, body, keep=True)
        if answer.failure or not answer.logprobs:
            return [answer.text]
        return sorted(answer.logprobs[0], key=lambda token: -answer.logprobs[0][token])
