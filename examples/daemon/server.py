#!/usr/bin/env python3
"""A small service that can be tuned: an answer is read from storage in blocks, and the storage says which size is best.

    AUTOTUNE_BLOCK_KIB=8 ./server.py --port 8001
    curl http://127.0.0.1:8001/          /health and /metrics as well
    AUTOTUNE_BLOCK_KIB=8 ./server.py --measure 4      says how long an answer takes, for a study

The storage is made up, by environment.json: each block costs a round trip, and a part of it is read for nothing. Near
storage wants small blocks, storage behind a network large ones. Times are slept, so nothing depends on the machine.
"""

import argparse
import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ANSWER_KIB = 64
BLOCK_KIB = int(os.environ.get("AUTOTUNE_BLOCK_KIB", "8"))  # as the bundle's .env file names it
ENVIRONMENT = Path(__file__).resolve().with_name("environment.json")


def work_s(storage: Mapping[str, float]) -> float:
    """How long an answer takes."""
    return math.ceil(ANSWER_KIB / BLOCK_KIB) * storage["round_trip_s"] + BLOCK_KIB * storage["waste_s_per_kib"]


def answer() -> str:
    """What everybody gets."""
    time.sleep(work_s(json.loads(ENVIRONMENT.read_text())))
    return "x" * 16


class Counts:
    """What /metrics says."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answers, self.seconds, self.codes = 0, 0.0, {200: 0}

    def add(self, code: int, seconds: float) -> None:
        """One more."""
        with self.lock:
            self.codes[code] = self.codes.get(code, 0) + 1
            if code == 200:
                self.answers, self.seconds = self.answers + 1, self.seconds + seconds

    def lines(self) -> Iterator[str]:
        """The page."""
        with self.lock:
            yield "# TYPE request_seconds summary"
            yield f"request_seconds_sum {self.seconds}"
            yield f"request_seconds_count {self.answers}"
            yield "# TYPE requests_total counter"
            for code, count in self.codes.items():
                yield f'requests_total{{code="{code}"}} {count}'


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True  # else every answer waits for an acknowledgement
    wbufsize = -1  # head and body in one packet
    counts = Counts()

    def do_POST(self) -> None:
        """Whatever is asked, the answer is the same."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.work()

    def do_GET(self) -> None:
        """Likewise, but for two pages."""
        if self.path == "/metrics":
            self.send(200, "\n".join(self.counts.lines()) + "\n", "text/plain; version=0.0.4")
        elif self.path == "/health":
            self.send(200, json.dumps({"block_kib": BLOCK_KIB}))
        else:
            self.work()

    def work(self) -> None:
        """Answer, and count it."""
        begun_s = time.perf_counter()
        code, text = self.reply()
        self.counts.add(code, time.perf_counter() - begun_s)
        self.send(code, text)

    def reply(self) -> tuple[int, str]:
        """Status and body."""
        return 200, json.dumps({"answer": answer()})

    def send(self, code: int, text: str, kind: str = "application/json") -> None:
        """A whole answer."""
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a line a request is too much."""


class Server(ThreadingHTTPServer):
    """A thread a connection."""

    request_queue_size = 256
    daemon_threads = True


def measure(count: int) -> float:
    """Mean seconds of so many answers."""
    begun_s = time.perf_counter()
    for _ in range(count):
        answer()
    return (time.perf_counter() - begun_s) / count


def main(handler: type[Handler] = Handler) -> None:
    """Serve, or measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--measure", type=int)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps({"answer_s": measure(asked.measure)}))
        return
    server = Server(("127.0.0.1", asked.port), handler)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # the hooks have drained it before they end it
    server.serve_forever()


if __name__ == "__main__":
    main()
