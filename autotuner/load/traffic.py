"""The traffic that a server is put under, as a file or a command line describes it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from autotuner.errors import UsageError
from autotuner.load.arrivals import due_times_s
from autotuner.load.dialect import Dialect
from autotuner.load.plan import Call, Plan
from autotuner.load.prompts import Recorded, made_prompt, read_requests
from autotuner.load.results import ServiceLevel
from autotuner.metrics import parse_quantity

LEAST_PROBE_S = 3.0  # of an episode at a rate that is tried: requests must have the time to pile up


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request that is to be sent."""

    prompt: str
    output_tokens: int
    body: Mapping[str, Any] | None


class Traffic(BaseModel):
    """Requests of one episode: how many, when, and what they ask."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arrivals: Literal["closed", "poisson", "constant", "trace"] = Field(
        "closed",
        description="closed: `concurrency` clients, each asks again when it has its answer. poisson, constant: at "
        "`rate_per_s`, whatever becomes of earlier requests. trace: at the times of the file `prompts`.",
    )
    rate_per_s: float | None = Field(None, gt=0, description="Mean requests in a second, of poisson and constant.")
    concurrency: int = Field(8, ge=1, description="Clients of a closed loop.")
    requests: int = Field(64, ge=1, description="Of one episode.")
    max_in_flight: int | None = Field(
        None, ge=1, description="Of open arrivals: who waits for a place waits on the clock. None: no end."
    )
    prompts: Path | None = Field(None, description="JSON lines; see docs/servers.md. Without it prompts are made.")
    prompt_words: int = Field(64, ge=1, description="Of a made prompt.")
    shared_words: int = Field(
        0, ge=0, description="Of a made prompt's, the same at the beginning of all, as a system prompt: may be cached."
    )
    output_tokens: int = Field(32, ge=1, description="Of an answer, where the file does not say.")
    time_scale: float = Field(1.0, gt=0, description="Of a trace: 0.5 sends it twice as fast.")
    seed: int = Field(0, ge=0, description="Of prompts and arrivals.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.arrivals in ("poisson", "constant") and self.rate_per_s is None:
            raise ValueError(f"{self.arrivals} arrivals need rate_per_s")
        if self.arrivals == "trace" and self.prompts is None:
            raise ValueError("arrivals: trace needs a file with times: prompts: requests.jsonl")
        if self.shared_words >= self.prompt_words:
            raise ValueError(f"shared_words: {self.shared_words} must be fewer than prompt_words: {self.prompt_words}")
        if self.arrivals not in ("poisson", "constant") and self.rate_per_s is not None:
            raise ValueError(f"rate_per_s has no meaning for {self.arrivals} arrivals: write arrivals: poisson")
        return self

    def wanted(self, episode: int, salt: str = "") -> list[Wanted]:
        """What is asked in an episode; another one asks for other things, the same one always for the same.

        But in episode 0 prompts of a file are preceded by a number and the salt: else a server that keeps what it has
        seen would find every one of them there when the file is asked again.
        """
        if self.prompts is None:
            return [
                Wanted(self._made(f"{episode}{salt}", number, self.prompt_words), self.output_tokens, None)
                for number in range(self.requests)
            ]
        recorded = read_requests(self.prompts)
        count = len(recorded) if self.arrivals == "trace" else self.requests
        first = 0 if self.arrivals == "trace" else episode * count
        return [self._of(recorded[(first + n) % len(recorded)], f"{episode}{salt}", n) for n in range(count)]

    def _made(self, salt: str, number: int, words: int) -> str:
        return made_prompt(self.seed, salt, number, words, min(self.shared_words, words - 1))

    def _of(self, request: Recorded, salt: str, number: int) -> Wanted:
        if request.prompt or request.body:
            prompt = request.prompt if salt == "0" else f"{salt} {request.prompt}"
        else:
            prompt = self._made(salt, number, request.prompt_words or self.prompt_words)
        return Wanted(prompt, request.output_tokens or self.output_tokens, request.body)

    def due_s(self, episode: int, rate_per_s: float | None = None) -> Iterator[float]:
        """When each is due; in a closed loop at once."""
        rate = rate_per_s or self.rate_per_s
        if self.arrivals == "trace" and self.prompts is not None:
            yield from (self.time_scale * request.at_s for request in read_requests(self.prompts))
        elif rate is not None:
            kind: Literal["poisson", "constant"] = "constant" if self.arrivals == "constant" else "poisson"
            yield from due_times_s(kind, rate, self.requests, self.seed * 1_000_003 + episode)
        else:
            yield from (0.0 for _ in range(self.requests))

    def plan(
        self,
        dialect: Dialect,
        episode: int,
        extra: Mapping[str, Any] | None = None,
        rate_per_s: float | None = None,
        salt: str = "",
    ) -> Plan:
        """One episode for a server.

        Args:
            dialect: How it wants to be asked.
            episode: Which, from 0.
            extra: Fields of every request.
            rate_per_s: Poisson arrivals at this rate, whatever the description says; as many requests more as it
                takes to see them pile up.
            salt: Asks for other things at the same times.
        """
        if rate_per_s is not None and self.requests < (needed := math.ceil(LEAST_PROBE_S * rate_per_s)):
            return self.model_copy(update={"requests": needed}).plan(dialect, episode, extra, rate_per_s, salt)
        open_loop = rate_per_s is not None or self.arrivals != "closed"
        bodies = (
            {**one.body, **(extra or {})} if one.body is not None
            else dict(extra or {}) if dialect.api == "json"
            else dialect.body(one.prompt, one.output_tokens, extra)
            for one in self.wanted(episode, salt)
        )  # fmt: skip
        calls = tuple(Call(body, due) for body, due in zip(bodies, self.due_s(episode, rate_per_s), strict=True))
        return Plan(
            dialect.url, calls, paced=open_loop, places=self.max_in_flight if open_loop else self.concurrency,
            api=dialect.api, headers=dialect.headers, timeout_s=dialect.timeout_s,
        )  # fmt: skip


ModelT = TypeVar("ModelT", bound=BaseModel)


def checked(kind: type[ModelT], options: Mapping[str, Any]) -> ModelT:
    """A section from a command line's options.

    Raises:
        UsageError: An option is wrong, or contradicts another.
    """
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        text = str(first["msg"]).removeprefix("Value error, ")
        raise UsageError(f"{where}: {text}" if where else text) from None


def _seconds(value: object) -> float:
    try:
        return parse_quantity(str(value), "s")
    except UsageError as error:  # pydantic knows where it stands
        raise ValueError(f"{error.message} ({error.hint})") from None


_WITH_UNIT = BeforeValidator(_seconds, json_schema_input_type=float | str)
Seconds = Annotated[float, _WITH_UNIT, Field(gt=0)]


class Level(BaseModel):
    """The service level: what a request must keep to be good, and how many must."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_s: Seconds | None = Field(None, description="Most, from when it was due to its end: 0.2, or 200 ms.")
    ttft_s: Seconds | None = Field(None, description="Most, to the first token.")
    tpot_s: Seconds | None = Field(None, description="Most, for each further token.")
    share: float = Field(0.95, gt=0, le=1, description="Of the requests that must be good: 0.95 for a p95.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.latency_s is None and self.ttft_s is None and self.tpot_s is None:
            raise ValueError("give at least one of latency_s, ttft_s, tpot_s")
        return self

    def bounds(self) -> ServiceLevel:
        """Open where nothing is asked."""
        given = {"latency_s": self.latency_s, "ttft_s": self.ttft_s, "tpot_s": self.tpot_s}
        return ServiceLevel(**{name: value for name, value in given.items() if value is not None}, share=self.share)
