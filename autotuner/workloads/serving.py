"""A server that runs: when it is ready, an episode of load as a step, and what it answers to fixed questions."""

import itertools
import logging
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
from autotuner.workloads.examining import Examiner
from autotuner.workloads.labels import Quality
from autotuner.workloads.programs import Program, ProgramError, wait_until
from autotuner.workloads.templates import fill, fill_data

_POLL_S = 0.02
_REFUSED_S = 10.0  # a server that answers "no" for so long means it
_ATTEMPTS = 3  # at an episode that cannot be believed: a neighbour may have held the client up
_ATTEMPTS_S = 20.0  # for which short episodes are tried more often: a busy machine spoils many of them
_WARM_REQUESTS_PER_PLACE = 2
_WARM_MAX_S = 10.0
_GUESS_SHARE = 0.7  # of what a closed loop gets through: where queues are still short
_PROBES = 1000  # more than a step ever needs

logger = logging.getLogger(__name__)


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
        refused = answer.failure.startswith(("HTTP 4", "the answer is"))
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
        self._configs = self._steps = 0  # so many were in force; so many steps were taken of this one
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
        few = {"arrivals": "closed", "rate_per_s": None, "requests": _WARM_REQUESTS_PER_PLACE * places}
        load = self._service.load.model_copy(update=few)
        begun_s, before_s = time.monotonic(), math.inf
        for number in range(1, 6):
            episode = self._run(load.plan(self.dialect, -number, self._extra(config), salt=str(self._configs)))
            self._refuse_failures(episode)
            took_s = results.duration_s(episode)
            if took_s > 0.9 * before_s or time.monotonic() - begun_s > _WARM_MAX_S:
                break
            before_s = took_s
        self._accuracy = self._examiner(config).labelled()

    def step(self, config: Config) -> Step:
        """One episode, or as many as it takes to find the highest rate.

        The n-th step of every configuration has the same arrivals, and prompts of the same lengths.
        """
        self._apply(config)
        self._steps += 1
        if self._service.find_rate:
            return self._rate_step(config)
        episode = self._believable(config)
        if self._service.load.arrivals != "closed" and results.is_saturated(episode.replies):
            return self._late(self._told(episode, {}))
        return self._told(episode, {})

    def _late(self, step: Step) -> Step:
        """More comes than it serves: its latencies only say how long the episode was, and would grow with it."""
        rate = self._service.load.rate_per_s
        logger.warning("saturated by %s: latencies are infinite", f"{rate:g} requests/s" if rate else "the trace")
        return replace(step, samples={name: (math.inf,) * len(values) for name, values in step.samples.items()})

    def processes(self) -> Sequence[int]:
        """Of the server: what it needs is the workload's."""
        return self._program.pids

    def _told(self, episode: Episode, more: Mapping[str, float]) -> Step:
        replies, duration_s = episode.replies, results.duration_s(episode)
        answered = sum(not reply.answer.failure for reply in replies)
        tokens = results.tokens(episode)
        metrics = {"error_ratio": 1 - answered / len(replies), **self._accuracy, **more}
        if self._service.level:
            results.check_measurable(episode, self._level)
            attained = results.attainment_ratio(episode, self._level)
            metrics["slo_attainment_ratio"] = attained
            metrics["goodput_requests_per_s"] = attained * len(replies) / duration_s
        if tokens:
            metrics["output_tokens_mean"] = tokens / answered
            if price := self._service.price_per_hour:
                metrics["cost_per_million_tokens"] = price / 3600 * duration_s / tokens * 1e6
        work = {"requests": float(answered)} | ({"tokens": float(tokens)} if tokens else {})
        return Step(work, metrics, results.samples_of(episode), duration_s)

    def _rate_step(self, config: Config) -> Step:
        """Samples are those of the highest rate that was kept."""
        probes = itertools.count(1)

        def probe(rate_per_s: float | None, clients: int = 0) -> Episode:
            return self._believable(config, next(probes), rate_per_s, clients)

        guess = self._rate_per_s or _GUESS_SHARE * throughput_per_s(probe(None, self._service.load.concurrency))
        most = self._service.max_error_ratio
        found: Capacity = highest_rate(probe, lambda: probe(None, 1), self._level, guess, most)
        if found.episode is None:
            raise ProgramError(f"no rate keeps the service level: {found.reason}")
        self._rate_per_s = found.rate_per_s
        return self._told(found.episode, {"slo_rate_per_s": found.rate_per_s})

    def _believable(self, config: Config, probe: int = 0, rate_per_s: float | None = None, clients: int = 0) -> Episode:
        """An episode; those in which the client itself was in the way do not count.

        Args:
            config: What is in force.
            probe: Which of this step's, so that each has arrivals of its own.
            rate_per_s: Poisson arrivals at this rate instead of the load's.
            clients: So many in a closed loop instead.

        Raises:
            UnbelievableError: The client was in the way each time.
            ProgramError: Too many requests failed; only of the load itself, not of probes beyond what is served.
        """
        load = self._service.load
        if clients:
            load = load.model_copy(update={"arrivals": "closed", "rate_per_s": None, "concurrency": clients})
        begun_s, attempts = time.monotonic(), 0
        while True:
            salt = f"{self._configs}.{attempts}"  # asked for anew: a cache must not know it
            plan = load.plan(self.dialect, _PROBES * self._steps + probe, self._extra(config), rate_per_s, salt=salt)
            episode = self._run(plan)
            if not probe:
                self._refuse_failures(episode)
            attempts += 1
            if not (doubts := results.doubts(episode, plan.paced, plan.places)):
                return episode
            if attempts >= _ATTEMPTS and time.monotonic() - begun_s > _ATTEMPTS_S:
                raise UnbelievableError(doubts)

    def _run(self, plan: Plan) -> Episode:
        episode = self._client.run(plan)
        if results.failures(episode.replies) and not self._program.running:
            raise self._program.death()
        return episode

    def _refuse_failures(self, episode: Episode) -> None:
        failed, asked = results.failures(episode.replies), len(episode.replies)
        if failed.total() > self._service.max_error_ratio * asked:
            (worst, count), total = failed.most_common(1)[0], failed.total()
            raise ProgramError(f"{total} of {asked} requests failed, {count} of them: {worst}")

    def _extra(self, config: Config) -> Mapping[str, Any]:
        extra: Mapping[str, Any] = fill_data(self._service.request, config)
        return extra

    def _apply(self, config: Config) -> None:
        """Hand new values to the server, if it takes them while it runs."""
        reload, before = self._service.reload, self._applied
        self._applied = dict(config)
        if before != self._applied:
            self._configs, self._steps = self._configs + 1, 0
        if reload is None or before == self._applied:
            return
        url = self._url.rstrip("/") + fill(reload.path, config)
        call = Call(fill_data(reload.json_body, config))
        plan = Plan(url, (call,), api="json", method=reload.method, headers=self.dialect.headers,
                    timeout_s=self.dialect.timeout_s)  # fmt: skip
        if failure := self._client.run(plan).replies[0].answer.failure:
            raise ProgramError(f"{self._program.name} did not take the parameters: {failure}")

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """What it answers to fixed prompts; see `Examiner.outputs`."""
        self._apply(config)
        return self._examiner(config).outputs()

    def _examiner(self, config: Config) -> Examiner:
        service = self._service
        load = service.load
        return Examiner(self._client, self.dialect, service.quality, load.seed, load.prompt_words, self._extra(config))
