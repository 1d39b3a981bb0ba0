"""The client: sends what is due when it is due, and takes the time of every part that comes back.

Nothing is parsed and no garbage is collected while an episode lasts. Bodies are encoded before it; answers are read
after it.
"""

import asyncio
import gc
import json
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from autotuner.load.answers import Parts, read_answer
from autotuner.load.plan import Answer, Episode, Plan, Reply

_CONNECT_S = 10.0
_BEAT_S = 0.01
_LEAST_STALL_S = 0.03  # what a busy machine keeps everybody waiting for now and then
_WORLD_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine is suspended


@dataclass(slots=True)
class _Raw:
    """A response as it came."""

    due_s: float
    sent_s: float = 0.0
    ended_s: float = 0.0
    status: int = 0
    content_type: str = ""
    parts: list[tuple[float, bytes]] = field(default_factory=list)
    failure: str = ""
    reused: bool = False  # the connection, from an earlier request

    def reply(self, plan: Plan) -> Reply:
        """What it said."""
        parts: Parts = self.parts or [(self.ended_s, b"")]
        try:
            answer = Answer(self.failure) if self.failure else read_answer(
                plan.api, self.status, self.content_type, parts, keep=plan.keeps_answers
            )  # fmt: skip
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            answer = Answer(f"the answer has a form that nobody knows: {_words(error)}")
        return Reply(self.due_s, self.sent_s, self.ended_s, answer)


class _Gauge:
    """How many requests are on their way, averaged over time."""

    def __init__(self) -> None:
        self._count = 0
        self._area = 0.0
        self._since_s = 0.0

    def change(self, by: int, now_s: float) -> None:
        """One more, or one less."""
        self._area += self._count * (now_s - self._since_s)
        self._count, self._since_s = self._count + by, now_s

    def mean(self, duration_s: float) -> float:
        """Over the whole episode."""
        return self._area / duration_s if duration_s > 0 else 0.0


class _Pulse:
    """Beats as long as the event loop runs: who was stopped sees every answer late, and blames the server."""

    def __init__(self) -> None:
        self.stalls: list[tuple[float, float]] = []
        self._last_s = time.clock_gettime(_WORLD_CLOCK)

    async def go_on(self, start_s: float) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_BEAT_S)
            self.beat(time.perf_counter() - start_s)

    def beat(self, at_s: float) -> None:
        """Once, at this time of the episode."""
        now_s = time.clock_gettime(_WORLD_CLOCK)
        if (stood_s := now_s - self._last_s - _BEAT_S) > _LEAST_STALL_S:
            self.stalls.append((at_s, stood_s))
        self._last_s = now_s


class Client:
    """Runs episodes one after the other over kept-alive connections; use it within `async with`.

    Proxies of the environment are not heeded: they would be measured instead of the server.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> "Client":
        traced = aiohttp.TraceConfig()
        traced.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            trace_configs=[traced],
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=None), trust_env=False, auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),  # one client stands for many: none may stick to a replica
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def run(self, plan: Plan) -> Episode:
        """One episode, until the last response has come or has failed."""
        bodies = [json.dumps(call.body).encode() for call in plan.calls]
        raws = [_Raw(call.due_s) for call in plan.calls]
        gauge, tasks = _Gauge(), []
        places = asyncio.Semaphore(plan.places) if plan.places else None
        with _without_garbage_collection():
            cpu_s, start_s, pulse = time.process_time(), time.perf_counter(), _Pulse()
            beating = asyncio.create_task(pulse.go_on(start_s))
            for raw, body in zip(raws, bodies, strict=True):
                if plan.paced:
                    await asyncio.sleep(max(0.0, start_s + raw.due_s - time.perf_counter()))
                elif places is not None:
                    await places.acquire()
                    raw.due_s = time.perf_counter() - start_s
                gauge.change(1, time.perf_counter() - start_s)
                tasks.append(asyncio.create_task(self._send(plan, raw, body, start_s, places, gauge)))
            await asyncio.gather(*tasks)
            ended_s = time.perf_counter() - start_s
            beating.cancel()
            pulse.beat(ended_s)
            busy_s = time.process_time() - cpu_s
        replies = tuple(raw.reply(plan) for raw in raws)
        return Episode(replies, busy_s / max(ended_s, 1e-9), gauge.mean(ended_s), tuple(pulse.stalls))

    async def _send(
        self, plan: Plan, raw: _Raw, body: bytes, start_s: float, places: asyncio.Semaphore | None, gauge: _Gauge
    ) -> None:
        waits: AbstractAsyncContextManager[Any] = places if plan.paced and places is not None else nullcontext()
        try:
            async with waits:
                await self._exchange(plan, raw, body, start_s)
        finally:
            if not plan.paced and places is not None:
                places.release()
            gauge.change(-1, raw.ended_s)

    async def _exchange(self, plan: Plan, raw: _Raw, body: bytes, start_s: float) -> None:
        """Send one request and keep whatever comes, with its time."""
        raw.sent_s = time.perf_counter() - start_s
        try:
            while True:
                try:
                    await self._ask(plan, raw, body, start_s)
                    break
                except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                    if raw.status or not raw.reused:  # else it had closed a kept-alive connection, as servers may
                        raise
        except TimeoutError:
            raw.failure = f"no complete answer within {plan.timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            raw.failure = f"the connection failed: {_words(error)}"
        raw.ended_s = time.perf_counter() - start_s

    async def _ask(self, plan: Plan, raw: _Raw, body: bytes, start_s: float) -> None:
        headers = {"Content-Type": "application/json", **plan.headers}
        timeout = aiohttp.ClientTimeout(total=plan.timeout_s, sock_connect=min(_CONNECT_S, plan.timeout_s))
        raw.reused = False
        async with self._session.request(
            plan.method,
            plan.url,
            data=body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            trace_request_ctx=raw,
        ) as response:
            raw.status, raw.content_type = response.status, response.headers.get("Content-Type", "")
            async for part in response.content.iter_any():
                raw.parts.append((time.perf_counter() - start_s, part))


async def _note_reuse(
    session: aiohttp.ClientSession, context: Any, found: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.reused = True


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """A collection would stop the clock of every request that is on its way."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
