"""A fake of a server, to inject what real ones do at bad moments: `python faulty.py PORT BEHAVIOUR`.

It speaks the completions of OpenAI, one word a token, and plain JSON at /predict. With --service-s an answer takes
exactly so long, and --places requests are served at a time.
"""

import argparse
import asyncio
import json
import os
import signal

from aiohttp import web

BEHAVIOURS = (
    "good", "never-ready", "refuses", "dies", "error-body", "error-event", "empty", "wrong-type", "half-closed",
    "ignores-sigterm", "strict", "leaks", "unsure", "slow-parts", "sheds", "odd", "mute",
)  # fmt: skip
KNOWN = {"model", "prompt", "messages", "max_tokens", "stream", "temperature"}


class Server:
    def __init__(self, behaviour: str, service_s: float, places: int, dies_after: int) -> None:
        self.behaviour, self.service_s, self.dies_after = behaviour, service_s, dies_after
        self.places = asyncio.Semaphore(places)
        self.count = self.waiting = 0
        self.kept: list[bytes] = []
        self.taken: dict[str, object] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.count += 1
        if self.behaviour == "refuses":
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        if self.behaviour == "dies" and self.count > self.dies_after:
            os._exit(3)
        if self.behaviour == "leaks":
            self.kept.append(os.urandom(1) * 64 * 2**20)
        body = await request.json()
        if self.behaviour == "strict" and (unknown := body.keys() - KNOWN):
            return web.json_response({"detail": f"unexpected {sorted(unknown)}"}, status=422)
        bad = self.behaviour if self.count > 1 else "good"  # ready first
        if bad == "sheds" and self.waiting >= 8:
            return web.json_response({"error": "overloaded"}, status=503)
        if bad == "odd" or (bad == "mute" and body.get("logprobs")):
            return web.json_response({"choices": [{"message": 7, "logprobs": {"content": [7]}}], "usage": 3})
        self.waiting += 1
        try:
            return await self.serve(request, body, bad)
        finally:
            self.waiting -= 1

    async def serve(self, request: web.Request, body: dict[str, object], bad: str) -> web.StreamResponse:
        async with self.places:
            await asyncio.sleep(self.service_s)
            if bad == "error-body":
                return web.json_response({"error": {"message": "the engine is dead"}})
            if bad == "wrong-type":
                return web.Response(text="<html>a proxy's login</html>", content_type="text/html")
            if body.get("stream"):
                return await self.stream(request, body, bad)
            return web.json_response(self.whole(body))

    def words(self, body: dict[str, object]) -> list[str]:
        return [f"w{number} " for number in range(int(str(body.get("max_tokens", 4))))]

    def whole(self, body: dict[str, object]) -> dict[str, object]:
        words = self.words(body)
        text = "" if self.behaviour == "empty" else "".join(words)
        choice: dict[str, object] = {"text": text, "finish_reason": "length", "message": {"content": text}}
        if body.get("logprobs"):
            flips = self.behaviour == "unsure"
            top = [{word: -0.6 if flips else -0.1, "other ": -0.5 if flips else -3.0} for word in words]
            choice["logprobs"] = {"tokens": ["other "] * len(words) if flips else words, "top_logprobs": top}
        return {"choices": [choice], "usage": {"completion_tokens": len(words), "prompt_tokens": 3}}

    async def stream(self, request: web.Request, body: dict[str, object], bad: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        words = [] if bad == "empty" else self.words(body)
        for number, word in enumerate(words):
            if bad == "error-event" and number == 1:
                await self.event(response, {"error": "out of blocks"})
                return response
            if bad == "half-closed" and number == 1:
                assert request.transport is not None
                request.transport.close()
                return response
            if bad == "slow-parts" and number:
                await asyncio.sleep(0.01)
            choice = {"text": word, "delta": {"content": word}, "finish_reason": None}
            await self.event(response, {"object": "text_completion", "choices": [choice]})
        await self.event(response, {"choices": [{"text": "", "delta": {}, "finish_reason": "length"}]})
        await self.event(response, {"choices": [], "usage": {"completion_tokens": len(words), "prompt_tokens": 3}})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def event(self, response: web.StreamResponse, data: object) -> None:
        await response.write(f"data: {json.dumps(data)}\n\n".encode())

    async def predict(self, request: web.Request) -> web.Response:
        self.count += 1
        body = await request.json()
        async with self.places:
            await asyncio.sleep(self.service_s)
        return web.json_response({"labels": [{"label": f"class{int(body.get('x', 0)) % 3}", "score": 0.9}, "class9"]})

    async def tune(self, request: web.Request) -> web.Response:
        self.taken |= await request.json()
        if "service_s" in self.taken:
            self.service_s = float(str(self.taken["service_s"]))
        return web.json_response({"taken": self.taken})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("behaviour", choices=BEHAVIOURS)
    parser.add_argument("--service-s", type=float, default=0.01)
    parser.add_argument("--places", type=int, default=1000)
    parser.add_argument("--dies-after", type=int, default=1)
    given = parser.parse_args()
    if given.behaviour == "ignores-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if given.behaviour == "never-ready":
        while True:
            signal.pause()
    server = Server(given.behaviour, given.service_s, given.places, given.dies_after)
    app = web.Application()
    for path in ("/v1/completions", "/v1/chat/completions"):
        app.router.add_post(path, server.answer)
    app.router.add_post("/predict", server.predict)
    app.router.add_post("/tune", server.tune)
    web.run_app(app, host="127.0.0.1", port=given.port, print=None, handle_signals=given.behaviour != "ignores-sigterm")


if __name__ == "__main__":
    main()
