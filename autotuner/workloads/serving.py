"""A server that runs: when it is ready, an episode of load as a step, and what it answers to fixed questions."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autotuner.errors import UnbelievableError
from autotuner.load import results
from autotuner.load.capacity import Capacity, highest_rate, throughput_per_s
from autotuner.load.dialect import Dialect, learn
from autotuner.load.plan import Answer, Call, Episode, Plan
from autotuner.load.process import LoadClient
from autotuner.load.results import ServiceLevel
from autotuner.load.traffic import Traffic
from autotuner.plugins import Step
from autotuner.types import Config
from autotuner.workloads.labels import Quality, labels_at, read_labels
from autotuner.workloads.programs import Program, ProgramError, wait_until
from autotuner.workloads.templates import fill, fill_data

_POLL_S = 0.02
_REFUSED_S = 10.0  # a server that answers "no" for so long means it
_ATTEMPTS = 3  # at an episode that cannot be believed: a neighbour may have held the client up
_ATTEMPTS_S = 20.0  # for which short episodes are tried more often: a busy machine spoils many of them
_WARM_REQUESTS_PER_PLACE = 2
_WARM_MAX_S = 10.0
_GUESS_SHARE = 0.7  # of what a closed loop gets through: where queues are still short
_TOP = 5


class Reload(BaseModel):
    """A request by which the server takes new values while it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    json_body: Mapping[str, Any] = Field(default_factory=dict, alias="json")


@dataclass(frozen=True, slots=True)
class Service:
    """What is asked of a server; see the options of the plugin."""

    load: Traffic
    level: ServiceLevel | None
    find_rate: bool
    request: Mapping[str, Any]
    reload: Reload | None
    quality: Quality
    max_error_ratio: float
    price_per_hour: float | None


def await_answer(
    program: Program, client: LoadClient, dialect: Dialect, request: Mapping[str, Any], ready_s: float
) -> Dialect:
    """Wait until a request is answered, really and completely, and learn how the server wants to be asked.

    A health check says nothing: servers are known to pass theirs and to die of the first request.

    Raises:
        ProgramError: It ended, or it is not ready in time.
    """
    deadline_s = time.monotonic() + ready_s
    refused_since_s: float | None = None
    patient = replace(dialect, timeout_s=ready_s)
    while True:
        understood, answer = _first_answer(client, patient, request)
        if not answer.failure:
            return replace(understood, timeout_s=dialect.timeout_s)
        if not program.running:
            raise program.death()
        refused = answer.failure.startswith("HTTP 4")
        refused_since_s = (refused_since_s or time.monotonic()) if refused else None
        if refused_since_s is not None and time.monotonic() > refused_since_s + _REFUSED_S:
            raise ProgramError(f"{program.name} refuses a plain request: {answer.failure}")
        if not wait_until(deadline_s, _POLL_S):
            raise ProgramError(f"{program.name} gave no answer within {ready_s:g} s: {answer.failure}")


def _first_answer(client: LoadClient, dialect: Dialect, request: Mapping[str, Any]) -> tuple[Dialect, Answer]:
    if dialect.api == "json":
        return dialect, dialect.ask(client.run, request)
    return learn(client.run, dialect, request)


class OpenServer:
    """Takes episodes of load as steps."""

    def __init__(self, service: Service, program: Program, client: LoadClient, dialect: Dialect, url: str) -> None:
        self.dialect = dialect
        self._service, self._program, self._client, self._url = service, program, client, url
        self._level = service.level or ServiceLevel()
        self._episode = 0
        self._rate_per_s: float | None = None
        self._applied: Config | None = None
        self._accuracy: Mapping[str, float] = {}

    def first_request(self, config: Config) -> Mapping[str, Any]:
        """What the server must answer to count as ready; of a language model, the fields besides the prompt."""
        extra = self._extra(config)
        return self._service.load.plan(self.dialect, 0, extra).calls[0].body if self.dialect.api == "json" else extra

    def warm_up(self, config: Config) -> None:
        """As many requests at a time as the load will have, until two rounds take alike; no episode is lost on it."""
        self._apply(config)
        places = self._service.load.concurrency
        load = self._service.load.model_copy(update={"requests": _WARM_REQUESTS_PER_PLACE * places})
        begun_s, before_s = time.monotonic(), math.inf
        for number in range(1, 6):
            plan = replace(load.plan(self.dialect, -number, self._extra(config)), paced=False, places=places)
            took_s = results.duration_s(self._run(plan))
            if took_s > 0.9 * before_s or time.monotonic() - begun_s > _WARM_MAX_S:
                break
            before_s = took_s
        self._accuracy = self._labelled(config)

    def step(self, config: Config) -> Step:
        """One episode, or as many as it takes to find the highest rate."""
        self._apply(config)
        if self._service.find_rate:
            return self._rate_step(config)
        episode = self._believable(config)
        if self._service.load.arrivals != "closed" and results.is_saturated(episode.replies):
            rate = self._service.load.rate_per_s
            what = f"{rate:g} requests/s are more than it serves" if rate else "the trace is more than it serves"
            raise UnbelievableError(f"saturated: {what}, so that latencies only say how long the episode was")
        return self._told(episode, {})

    def processes(self) -> Sequence[int]:
        """Of the server: what it needs is the workload's."""
        return self._program.pids

    def _told(self, episode: Episode, more: Mapping[str, float]) -> Step:
        replies, duration_s = episode.replies, results.duration_s(episode)
        answered = sum(not reply.answer.failure for reply in replies)
        tokens = results.tokens(episode)
        metrics = {"error_ratio": 1 - answered / len(replies), **self._accuracy, **more}
        if self._service.level:
            attained = results.attainment_ratio(episode, self._level)
            metrics["slo_attainment_ratio"] = attained
            metrics["goodput_requests_per_s"] = attained * len(replies) / duration_s
        if tokens:
            metrics["output_tokens_mean"] = tokens / answered
            if price := self._service.price_per_hour:
                metrics["cost_per_million_tokens"] = price / 3600 * duration_s / tokens * 1e6
        samples = {
            name: [value for reply in replies if not math.isnan(value := of(reply))]
            for name, of in (("latency_s", results.latency_s), ("ttft_s", results.ttft_s), ("tpot_s", results.tpot_s))
        }
        work = {"requests": float(answered)} | ({"tokens": float(tokens)} if tokens else {})
        return Step(work, metrics, {name: values for name, values in samples.items() if values}, duration_s)

    def _rate_step(self, config: Config) -> Step:
        """Samples are those of the highest rate that was kept."""
        guess = self._rate_per_s or _GUESS_SHARE * throughput_per_s(self._believable(config, closed=True))
        found: Capacity = highest_rate(lambda rate: self._believable(config, rate), self._level, guess)
        if found.episode is None:
            raise ProgramError(f"no rate keeps the service level: tried down to {guess / 100:.2g} requests/s")
        self._rate_per_s = found.rate_per_s
        return self._told(found.episode, {"slo_rate_per_s": found.rate_per_s})

    def _believable(self, config: Config, rate_per_s: float | None = None, *, closed: bool = False) -> Episode:
        """The next episode; those in which the client itself was in the way do not count.

        Raises:
            UnbelievableError: It was each time.
            ProgramError: Too many requests failed.
        """
        load = self._service.load
        load = load.model_copy(update={"arrivals": "closed", "rate_per_s": None}) if closed else load
        begun_s, attempts = time.monotonic(), 0
        while True:
            plan = load.plan(self.dialect, self._episode, self._extra(config), rate_per_s)
            self._episode, attempts = self._episode + 1, attempts + 1
            episode = self._run(plan)
            if not (doubts := results.doubts(episode, plan.paced, plan.places)):
                return episode
            if attempts >= _ATTEMPTS and time.monotonic() - begun_s > _ATTEMPTS_S:
                raise UnbelievableError(doubts)

    def _run(self, plan: Plan) -> Episode:
        episode = self._client.run(plan)
        failed = results.failures(episode.replies)
        if failed and not self._program.running:
            raise self._program.death()
        if failed.total() > self._service.max_error_ratio * len(plan.calls):
            (worst, count), total = failed.most_common(1)[0], failed.total()
            raise ProgramError(f"{total} of {len(plan.calls)} requests failed, {count} of them: {worst}")
        return episode

    def _extra(self, config: Config) -> Mapping[str, Any]:
        extra: Mapping[str, Any] = fill_data(self._service.request, config)
        return extra

    def _apply(self, config: Config) -> None:
        """Hand new values to the server, if it takes them while it runs."""
        reload, before = self._service.reload, self._applied
        self._applied = dict(config)
        if reload is None or before == self._applied:
            return
        url = self._url.rstrip("/") + fill(reload.path, config)
        call = Call(fill_data(reload.json_body, config))
        plan = Plan(url, (call,), api="json", method=reload.method, headers=self.dialect.headers,
                    timeout_s=self.dialect.timeout_s)  # fmt: skip
        if failure := self._client.run(plan).replies[0].answer.failure:
            raise ProgramError(f"{self._program.name} did not take the parameters: {failure}")

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The likeliest tokens after fixed prompts, if the server tells: arrays of texts and of ln p [positions, 5]."""
        import numpy as np

        self._apply(config)
        answers = self._answers(config) if self.dialect.api != "json" else []
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

    def _answers(self, config: Config) -> list[Answer]:
        """To the fixed prompts, one at a time; empty where the server refuses to say how sure it is."""
        quality, answers = self._service.quality, []
        asked = {**self._extra(config), **self._logprobs()}
        load = self._service.load.model_copy(update={"requests": max(1, quality.prompts)})
        single = replace(self.dialect, stream=False)
        for wanted in load.wanted(-1)[: quality.prompts]:
            answer = single.ask(self._client.run, single.body(wanted.prompt, quality.tokens, asked), keep=True)
            if answer.failure:
                return []
            answers.append(answer)
        return answers

    def _logprobs(self) -> Mapping[str, Any]:
        return {"logprobs": True, "top_logprobs": _TOP} if self.dialect.api == "chat" else {"logprobs": _TOP}

    def _labelled(self, config: Config) -> Mapping[str, float]:
        """How often the right label is the first answer, and among the first five."""
        if self._service.quality.labels is None:
            return {}
        rows = read_labels(self._service.quality.labels)
        ranked = [self._ranking(config, row) for row in rows]
        hits = [[label.strip() for label in labels[:_TOP]] for labels in ranked]
        right = [str(row["label"]).strip() for row in rows]
        pairs = list(zip(right, hits, strict=True))
        return {
            "top1_accuracy_ratio": sum(label in labels[:1] for label, labels in pairs) / len(pairs),
            "top5_accuracy_ratio": sum(label in labels for label, labels in pairs) / len(pairs),
        }

    def _ranking(self, config: Config, row: Mapping[str, Any]) -> list[str]:
        """Labels, the likeliest first."""
        if self.dialect.api == "json":
            body = {**row.get("body", {}), **self._extra(config)}
            answer = self.dialect.ask(self._client.run, body, keep=True)
            return [] if answer.failure else labels_at(json.loads(answer.text), self._service.quality.answer)
        single = replace(self.dialect, stream=False)
        asked = {**self._extra(config), **self._logprobs()}
        answer = single.ask(self._client.run, single.body(str(row["prompt"]), 1, asked), keep=True)
        if answer.failure or not answer.logprobs:
            return [answer.text]
        return sorted(answer.logprobs[0], key=lambda token: -answer.logprobs[0][token])
