"""Receivers on loopback: a real OTLP receiver, a real collector, Debian's Prometheus, and servers that misbehave."""

import asyncio
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

START_LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("OTEL_", "ROTEL_")) or name == "TRACEPARENT"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def free_port() -> Callable[[], int]:
    return unused_port


def wait_until(what: Callable[[], Any], limit_s: float = START_LIMIT_S) -> Any:
    """What `what` returns, as soon as it is true."""
    ends_s = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < ends_s, "nothing happened"
        time.sleep(0.02)
    return found


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Received:
    """What a receiver got: spans, metrics and log records, as their protocol buffers say it."""

    address: str
    spans: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    logs: list[Any] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def span(self, name: str) -> Any:
        """The only span of that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def under(self, parent: Any) -> list[str]:
        """Names of the spans right below one, in order of their start."""
        below = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return [span.name for span in sorted(below, key=lambda span: span.start_time_unix_nano)]

    def points(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """Attributes and value of a metric's points, the latest of each; a histogram's value is its count."""
        latest: dict[str, tuple[dict[str, Any], float]] = {}
        for metric in self.metrics:
            if metric.name == name:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    about = attributes_of(point)
                    value = point.count if kind == "histogram" else getattr(point, point.WhichOneof("value"))
                    latest[json.dumps(about, sort_keys=True)] = (about, value)
        return list(latest.values())

    def decode(self, path: str, body: bytes) -> None:
        """Take one OTLP request in."""
        self.bodies.append(body)
        if path.endswith("/traces"):
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(attributes_of(of_resource.resource))
                self.spans += [span for scope in of_resource.scope_spans for span in scope.spans]
        elif path.endswith("/metrics"):
            for of_resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics += [metric for scope in of_resource.scope_metrics for metric in scope.metrics]
        elif path.endswith("/logs"):
            for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                self.logs += [record for scope in of_resource.scope_logs for record in scope.log_records]


def attributes_of(message: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in message.attributes}


@pytest.fixture
def attributes() -> Callable[[Any], dict[str, Any]]:
    return attributes_of


@contextmanager
def run_tap() -> Iterator[Received]:
    """A real OTLP/HTTP receiver; everything has arrived when the block has ended."""
    port = unused_port()
    got = Received(f"http://127.0.0.1:{port}")
    ready, done = threading.Event(), threading.Event()

    async def collect(stream, into):
        async for message in stream:
            into.append(message)

    async def receive():
        async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver:
            streams = (
                (receiver.stream_traces(), got.spans),
                (receiver.stream_metrics(), got.metrics),
                (receiver.stream_logs(), got.logs),
            )
            readers = [asyncio.create_task(collect(stream, into)) for stream, into in streams]
            await asyncio.sleep(0.1)  # all have subscribed
            ready.set()
            await asyncio.to_thread(done.wait)
            await asyncio.sleep(0.6)  # the receiver polls its core every quarter of a second
        await asyncio.gather(*readers)

    thread = threading.Thread(target=asyncio.run, args=(receive(),))
    thread.start()
    try:
        assert ready.wait(START_LIMIT_S)
        yield got
    finally:
        done.set()
        thread.join(START_LIMIT_S)


@pytest.fixture
def tap() -> Callable[[], Any]:
    return run_tap


@contextmanager
def run_server(*statuses: int | None, headers: dict[str, str] | None = None) -> Iterator[Received]:
    """An HTTP server that answers the statuses in turn, the last one for ever.

    0 hangs up without an answer; None does not answer before the block has ended, or half a minute.
    """
    released, answers, lock = threading.Event(), list(statuses), threading.Lock()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                status = answers.pop(0) if len(answers) > 1 else answers[0]
                if status == 200:
                    got.decode(self.path, gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            if status is None:
                released.wait(30)
            if not status:
                return
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    got = Received(f"http://127.0.0.1:{httpd.server_port}")
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield got
    finally:
        released.set()
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def server() -> Callable[..., Any]:
    return run_server


@contextmanager
def running(argv: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, up when the block begins and gone when it ends."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as process:
        try:
            wait_until(lambda: process.poll() is not None or is_open(port))
            assert process.poll() is None, f"{argv[0]} does not start"
            yield process
        finally:
            process.kill()


@pytest.fixture
def collector() -> Callable[[], Any]:
    """Rotel, a real collector: gRPC in, and on by HTTP to where the test looks."""

    @contextmanager
    def run() -> Iterator[Received]:
        spec = find_spec("rotel")
        assert spec is not None
        assert spec.origin is not None
        grpc, http = unused_port(), unused_port()
        with run_server(200) as sink:
            argv = [
                str(Path(spec.origin).with_name("rotel-agent")), "start",
                "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}",
                "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", sink.address,
                "--batch-timeout", "50ms",
            ]  # fmt: skip
            with running(argv, grpc):
                yield Received(
                    f"http://127.0.0.1:{grpc}", sink.spans, sink.metrics, sink.logs, sink.resources, sink.bodies
                )

    return run


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def query(self, text: str) -> list[dict[str, Any]]:
        """The result of a PromQL query: labels and value."""
        url = f"{self.address}/api/v1/query?query={urllib.parse.quote(text)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def value(self, text: str) -> float:
        """The value of the query's only series, as soon as there is one."""
        (series,) = wait_until(lambda: self.query(text))
        return float(series["value"][1])

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/-/ready", timeout=10) as answer:
                return answer.status == 200
        except urllib.error.URLError:
            return False


@pytest.fixture
def prometheus(tmp_path) -> Callable[[int], Any]:
    """Debian's Prometheus, which scrapes a port five times a second."""
    beside = Path(sys.executable).with_name("prometheus")
    binary = str(beside) if beside.exists() else shutil.which("prometheus")
    if binary is None:
        pytest.skip("there is no prometheus here: `make prometheus` unpacks Debian's")

    @contextmanager
    def run(target: int) -> Iterator[Prometheus]:
        (tmp_path / "prometheus.yml").write_text(
            "scrape_configs: [{job_name: autotune, scrape_interval: 200ms, scrape_timeout: 200ms, "
            f"static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        port = unused_port()
        argv = [
            binary, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        found = Prometheus(f"http://127.0.0.1:{port}")
        with running(argv, port):
            wait_until(found.is_ready)
            yield found

    return run
