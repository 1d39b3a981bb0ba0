"""The client alone: put a server that runs already under load, and say what came of it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from autotuner.errors import MachineError, UnsupportedError, UsageError
from autotuner.load import results
from autotuner.load.capacity import highest_rate, throughput_per_s
from autotuner.load.dialect import Dialect, learn
from autotuner.load.plan import Api, Episode, Plan
from autotuner.load.process import LoadClient
from autotuner.load.results import ServiceLevel
from autotuner.load.traffic import Traffic

_ATTEMPTS = 3  # at an episode that cannot be believed
_GUESS_SHARE = 0.7  # of what a closed loop gets through


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What one session of load found.

    Attributes:
        url: That was asked.
        api: How.
        arrivals: As the traffic names them.
        offered_per_s: Requests that were due in a second; NaN in a closed loop.
        requests: That were sent.
        duration_s: From the first that was due to the last answer.
        tokens: That the server counted; None when it does not count them.
        samples: Every latency, time to first token and time of a token, in the order in which they were due.
        failures: What went wrong, and how often.
        attainment_ratio: Share of the requests that kept the service level; NaN without one.
        highest_rate_per_s: Where that was looked for; 0 when no rate kept the level.
        saturated: Requests piled up: latencies say only how long that lasted.
        doubts: Why the client itself cannot be believed; empty when it can.
        lag_s: How late 99 % of the requests were sent at most.
        client_busy_ratio: Of one core.
    """

    url: str
    api: Api
    arrivals: str
    offered_per_s: float
    requests: int
    duration_s: float
    tokens: int | None
    samples: Mapping[str, Sequence[float]]
    failures: Mapping[str, int]
    attainment_ratio: float
    highest_rate_per_s: float | None
    saturated: bool
    doubts: str
    lag_s: float
    client_busy_ratio: float

    @property
    def answered(self) -> int:
        """Requests with an answer."""
        return self.requests - sum(self.failures.values())


@dataclass(frozen=True, slots=True)
class Target:
    """A server that runs.

    Attributes:
        url: Of the endpoint, or of the server.
        api: How it is asked.
        model: That has to be named; empty when it need not.
        stream: Answers come in parts.
        headers: Of every request.
        timeout_s: Of every request.
    """

    url: str
    api: Api = "chat"
    model: str = ""
    stream: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0

    def dialect(self) -> Dialect:
        """How it would like to be asked, as far as that is known before asking.

        Raises:
            UsageError: The URL is none.
        """
        try:
            parts = urlsplit(self.url)
        except ValueError:  # half of an IPv6 address
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{self.url!r} is no URL of a server", "write http://127.0.0.1:8000")
        paths = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "json": ""}
        path = "" if parts.path.strip("/") else paths[self.api]
        url = self.url.rstrip("/") + path
        return Dialect(url, self.api, self.model, self.stream, headers=self.headers, timeout_s=self.timeout_s)


def load_server(target: Target, traffic: Traffic, level: ServiceLevel | None, *, find_rate: bool) -> LoadReport:
    """One episode after a short warm-up, or as many as it takes to find the highest rate.

    Args:
        target: The server.
        traffic: What it is asked, and when.
        level: What a good request keeps.
        find_rate: Look for the highest rate that keeps `level`.

    Raises:
        UsageError: The rate is to be found without a level, or the server refuses a plain request.
        MachineError: Nobody answers.
    """
    if find_rate and level is None:
        hint = "give one, as --slo latency_s=200ms"
        raise UsageError("the highest rate is that which keeps a service level", hint)
    if find_rate and traffic.arrivals == "trace":
        raise UsageError("a trace has its own rate", "leave the trace out, or do not look for the highest rate")
    traffic.wanted(0)  # a file that cannot be read is said before anybody is asked
    with LoadClient() as client:
        dialect = understand(client, target, traffic)
        closed = traffic.model_copy(update={"arrivals": "closed", "rate_per_s": None})
        warm = closed.model_copy(update={"requests": min(traffic.requests, 2 * traffic.concurrency)})
        warmed = client.run(warm.plan(dialect, -1))
        if not find_rate or level is None:
            plan = traffic.plan(dialect, 0)
            return _report(target, traffic, plan, client.run(plan), level, None)
        probes = _Probes(client, dialect, traffic, closed)
        found = highest_rate(probes.at, probes.alone, level, _GUESS_SHARE * throughput_per_s(warmed))
        plan, last = probes.last
        return _report(target, traffic, plan, found.episode or last, level, found.rate_per_s)


class _Probes:
    """Episodes at rates that are tried; the last one is remembered."""

    last: tuple[Plan, Episode]

    def __init__(self, client: LoadClient, dialect: Dialect, traffic: Traffic, closed: Traffic) -> None:
        self._client, self._dialect = client, dialect
        self._traffic, self._alone = traffic, closed.model_copy(update={"concurrency": 1})
        self._numbers = itertools.count(1)

    def at(self, rate_per_s: float) -> Episode:
        """At a rate; once more where the client itself was in the way."""
        for _ in range(_ATTEMPTS):
            episode = self._run(self._traffic.plan(self._dialect, next(self._numbers), rate_per_s=rate_per_s))
            if not results.doubts(episode, True, self._traffic.max_in_flight):
                break
        return episode

    def alone(self) -> Episode:
        """One request after the other."""
        return self._run(self._alone.plan(self._dialect, next(self._numbers)))

    def _run(self, plan: Plan) -> Episode:
        self.last = plan, self._client.run(plan)
        return self.last[1]


def understand(client: LoadClient, target: Target, traffic: Traffic) -> Dialect:
    """How a server that runs wants to be asked, after a request or a few.

    Raises:
        UsageError: It refuses a plain request.
        MachineError: Nobody answers.
    """
    dialect = target.dialect()
    if target.api == "json":
        answer = dialect.ask(client.run, traffic.plan(dialect, 0).calls[0].body)
    else:
        dialect, answer = learn(client.run, dialect, {})
    if answer.failure.startswith("HTTP 4"):
        raise UsageError(f"{dialect.url}: {answer.failure}", "is it the right --api, path and --model?")
    if answer.failure:
        unanswered = answer.failure.startswith(("the connection", "no complete answer"))
        hint = "is the server running?" if unanswered else "is it the right --api and path?"
        raise MachineError(f"{dialect.url}: {answer.failure}", hint)
    return dialect


def _refuse_unknown(episode: Episode, level: ServiceLevel) -> None:
    """A level that no answer can break is not kept.

    Raises:
        UsageError: It bounds a time that these answers do not tell.
    """
    try:
        results.check_measurable(episode, level)
    except UnsupportedError as error:
        raise UsageError(f"--slo: {error.message}", f"{error.hint}; bound latency_s otherwise") from error


def _report(
    target: Target, traffic: Traffic, plan: Plan, episode: Episode, level: ServiceLevel | None, rate: float | None
) -> LoadReport:
    if level is not None:
        _refuse_unknown(episode, level)
    replies = episode.replies
    paced = plan.paced
    due_s = replies[-1].due_s - replies[0].due_s
    return LoadReport(
        url=plan.url,
        api=target.api,
        arrivals="closed" if not paced else "poisson" if rate is not None else traffic.arrivals,
        offered_per_s=(len(replies) - 1) / due_s if paced and due_s > 0 else math.nan,
        requests=len(replies),
        duration_s=results.duration_s(episode),
        tokens=results.tokens(episode),
        samples=results.samples_of(episode),
        failures=dict(results.failures(replies)),
        attainment_ratio=results.attainment_ratio(episode, level) if level else math.nan,
        highest_rate_per_s=rate,
        saturated=paced and results.is_saturated(replies),
        doubts=results.doubts(episode, paced, plan.places),
        lag_s=results.dispatch_lag_s(episode, paced, plan.places),
        client_busy_ratio=episode.client_busy_ratio,
    )
