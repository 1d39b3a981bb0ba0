"""How a daemon's file says where numbers come from: a Prometheus, the service's own page, a probe, our own client."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autotuner.daemon import exposition, probing
from autotuner.daemon.scraping import Take
from autotuner.errors import UsageError
from autotuner.load.plan import Api
from autotuner.load.prompts import read_requests
from autotuner.load.session import Target
from autotuner.load.traffic import Seconds, Traffic
from autotuner.metrics import METRICS, goal
from autotuner.spec.draft import Draft
from autotuner.statistics import required_requests

STABLE, CANDIDATE = "stable", "candidate"
ARM = "{arm}"
RATES = ("throughput_requests_per_s", "throughput_tokens_per_s")
_SAMPLES = ("latency_s", "ttft_s", "tpot_s")
LOADED = (*(row.name for row in METRICS.values() if row.samples in _SAMPLES), *RATES)  # what a client can tell
_CONFIDENCE = 0.95  # of a percentile
_KINDS: Mapping[str, tuple[str, ...]] = {  # key that tells a signal's kind: what else it may say
    "query": ("url", "age_query", "max_age"),
    "metrics": ("name", "labels", "take", "max_age"),
    "probe": ("name",),
    "load": (),
}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class Arms(_Section):
    """What {arm} becomes."""

    stable: str = Field(STABLE, min_length=1)
    candidate: str = Field(CANDIDATE, min_length=1)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.stable == self.candidate:
            raise ValueError("stable and candidate are the same")
        return self

    def fill(self, text: str, arm: str) -> str:
        """A text for one arm, STABLE or CANDIDATE."""
        return text.replace(ARM, self.stable if arm == STABLE else self.candidate)

    def check(self, url: str) -> None:
        """Whether it is a URL once {arm} is filled in.

        Raises:
            ValueError: It is none.
        """
        for filled in (self.fill(url, STABLE), self.fill(url, CANDIDATE)):
            try:
                parts = urlsplit(filled)
                good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            except ValueError:  # a port that is no number
                good = False
            if not good:
                hint = " (arms: {stable: …, candidate: …} says what {arm} becomes)" if filled != url else ""
                raise ValueError(f"{filled!r} is no URL of a server{hint}")


class Signal(_Section):
    """A number of the service; exactly one of query, metrics, probe and load says of which kind."""

    query: str | None = Field(None, min_length=1, description="PromQL that gives one number; {arm} is filled in.")
    metrics: str | None = Field(None, description="URL of the service's own /metrics; {arm} is filled in.")
    probe: Literal["gpu", "host"] | None = Field(None, description="Of this machine, wherever the service runs.")
    load: str | None = Field(None, description="A number of our own client, as latency_p95_s; see the section load:.")
    url: str | None = Field(None, description="Of the Prometheus server, where it is another one than the file's.")
    age_query: str = Field("", description="PromQL for the seconds since the last scrape.")
    name: str = Field("", description="Of the series on the page, or of the probe's signal.")
    labels: Mapping[str, str] = Field(default_factory=dict, description="That the series has; {arm} is filled in.")
    take: Take = Field("value", description="value of a gauge, rate of a counter, mean or percentile of a histogram.")
    max_age: Seconds = Field(120.0, description="Older is stale.")
    better: Literal["higher", "lower"] | None = Field(None, description="Where its name does not say it rightly.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            found = f"both {given[0]}: and {given[1]}: are there" if given else "nothing says where it is read"
            raise ValueError(f"{found}; say one of query:, metrics:, probe: and load:")
        allowed = {given[0], "better", *_KINDS[given[0]]}
        if wrong := sorted(self.model_fields_set - allowed):
            raise ValueError(f"{', '.join(wrong)}: has no meaning beside {given[0]}:")
        if "name" in allowed and not self.name:
            raise ValueError(f"{given[0]}: needs a name: of the number there")
        self._check()
        return self

    def _check(self) -> None:
        if self.metrics is not None and not exposition.is_installed():
            raise ValueError(f"metrics: needs prometheus_client: {exposition.INSTALL}")
        if self.load is not None and self.load not in LOADED:
            raise ValueError(f"the client measures no {self.load!r}; it tells {', '.join(LOADED)}")
        if self.probe is not None:
            try:
                probing.check(self.probe, self.name)
            except UsageError as error:
                raise ValueError(str(error)) from None

    @property
    def tells_arms_apart(self) -> bool:
        """Whether the two arms are read at two places; a probe never does."""
        return self.load is not None or ARM in "".join(
            (self.query or "", self.metrics or "", self.url or "", *self.labels.values())
        )

    def more_is_better(self, name: str) -> bool:
        """Which direction is better: as said, else as usual for a metric of this name.

        Raises:
            UsageError: Neither is known.
        """
        return (self.better or goal(name).better) == "higher"


def find_prompts(draft: Draft, folder: Path) -> None:
    """Let the file of prompts start at the daemon's folder, as other paths of its file do.

    Raises:
        UsageError: It is not there, or holds no requests.
    """
    load = draft.data.get("load")
    traffic = load.get("traffic") if isinstance(load, dict) else None
    named = traffic.get("prompts") if isinstance(traffic, dict) else None
    if not isinstance(traffic, dict) or not isinstance(named, str):
        return
    traffic["prompts"] = str(folder / named)
    try:
        read_requests(folder / named)
    except UsageError as error:
        raise draft.error(("load", "traffic", "prompts"), error.message, error.hint) from None


class LoadSection(_Section):
    """Requests of our own, by which both arms are measured alike."""

    url: str = Field(description="Of the server of an arm: http://127.0.0.1:{arm}; {arm} is filled in.")
    api: Api = "chat"
    model: str = Field("", description="That has to be named; {arm} is filled in.")
    stream: bool = Field(True, description="Ask for answers in parts.")
    headers: Mapping[str, str] = Field(default_factory=dict, description="Of every request; {arm} is filled in.")
    timeout: Seconds = Field(60.0, description="Of a request; then it has failed.")
    traffic: Traffic = Traffic()

    @model_validator(mode="after")
    def _two_servers(self) -> Self:
        if ARM not in "".join((self.url, self.model, *self.headers.values())):
            raise ValueError("{arm} is in neither url nor model nor headers: both arms would be the same server")
        if self.api == "json" and self.traffic.prompts is None:
            raise ValueError('api: json needs requests: traffic.prompts: a file of lines like {"body": {…}}')
        return self

    def target(self, arms: Arms, arm: str) -> Target:
        """The server of an arm."""
        headers = {name: arms.fill(value, arm) for name, value in self.headers.items()}
        url, model = arms.fill(self.url, arm), arms.fill(self.model, arm)
        return Target(url, self.api, model, self.stream, headers, self.timeout)

    def check(self, wanted: str) -> None:
        """Whether an episode can tell a number.

        Raises:
            ValueError: Too few requests stand behind it, or answers that come whole do not tell it.
        """
        row = METRICS[wanted]
        if row.samples in ("ttft_s", "tpot_s") and (self.api == "json" or not self.stream):
            raise ValueError(f"{wanted} is of answers that come in parts: stream: true, and api: chat or completions")
        share = int(row.reduction[1:]) / 100 if row.reduction in ("p95", "p99") else 0.0
        needed = required_requests(0, share, _CONFIDENCE) if share else 1
        if (count := self._count()) < needed:
            raise ValueError(f"{wanted} needs {needed} requests, and traffic has {count}")

    def longest_s(self) -> float:
        """Seconds that an episode takes at most, and the request before it that finds out how the server is asked."""
        traffic = self.traffic
        places = traffic.concurrency if traffic.arrivals == "closed" else traffic.max_in_flight or self._count()
        return max(traffic.due_s(0), default=0.0) + (1 + math.ceil(self._count() / places)) * self.timeout

    def _count(self) -> int:
        traffic = self.traffic
        if traffic.arrivals != "trace" or traffic.prompts is None:
            return traffic.requests
        return len(read_requests(traffic.prompts))
