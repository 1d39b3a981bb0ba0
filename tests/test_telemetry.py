"""Against real receivers on loopback: what arrives, what is counted as lost, and how long leaving may take."""

import asyncio
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from autotuner import telemetry

LEAVING_LIMIT_S = 2 * telemetry.FLUSH_LIMIT_S  # generous: the machine may be busy, a hanging server answers after 30 s


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OTEL_") or name == "TRACEPARENT"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def tap() -> Iterator[tuple[str, list, list]]:
    """A real OTLP receiver: its address, and the spans and metrics that have arrived when the block has ended."""
    port, spans, metrics = free_port(), [], []
    ready, done = threading.Event(), threading.Event()

    async def collect(stream, into):
        async for message in stream:
            into.append(message)

    async def receive():
        async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver:
            readers = [
                asyncio.create_task(collect(receiver.stream_traces(), spans)),
                asyncio.create_task(collect(receiver.stream_metrics(), metrics)),
            ]
            await asyncio.sleep(0.1)  # both have subscribed
            ready.set()
            await asyncio.to_thread(done.wait)
            await asyncio.sleep(0.6)  # the receiver polls its core every quarter of a second
        await asyncio.gather(*readers)

    thread = threading.Thread(target=asyncio.run, args=(receive(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield f"http://127.0.0.1:{port}", spans, metrics
    finally:
        done.set()
        thread.join(20)


@contextmanager
def server(status: int | None, headers: dict[str, str] | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """An HTTP server that answers `status` to everything; None does not answer before the block has ended."""
    bodies, released = [], threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            if status is None:
                released.wait(30)
                return
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", bodies
    finally:
        released.set()
        httpd.shutdown()
        httpd.server_close()


def attributes(span) -> dict:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def send_something() -> telemetry.Delivery:
    with telemetry.session() as delivery, telemetry.span("autotune.tune"):
        for number in range(3):
            with telemetry.span("autotune.trial", {"autotune.trial": number}):
                telemetry.count("autotune.trials")
    return delivery


def test_spans_and_metrics_arrive_with_their_family_and_attributes(monkeypatch):
    with tap() as (address, spans, metrics):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        with telemetry.session() as delivery, telemetry.span("autotune.tune", {"autotune.study": "s"}) as tune:
            parent = telemetry.trace_parent()
            with telemetry.span("autotune.trial", {"autotune.trial": 3, "autotune.gone": None}) as trial:
                trial.set({"autotune.gain_ratio": 1.5, "autotune.kept": True})
                telemetry.record_span("autotune.measure", 1000.0, 1002.5, {"autotune.blocks": 7})
            tune.set({"autotune.decision": "BETTER"})
            telemetry.count("autotune.trials", 2, {"autotune.outcome": "measurement"})
            telemetry.observe("autotune.trial.duration", 1.7, "s")
            telemetry.gauge("hw.power", 350.0, "W", {"hw.id": "GPU-1", "hw.type": "gpu"})
    assert delivery == telemetry.Delivery(spans_sent=3, spans_lost=0, metrics_sent=3, metrics_lost=0)
    by_name = {span.name: span for span in spans}
    tune_, trial_, measure = (by_name[f"autotune.{name}"] for name in ("tune", "trial", "measure"))
    assert trial_.parent_span_id == tune_.span_id
    assert measure.parent_span_id == trial_.span_id
    assert tune_.parent_span_id == b""
    assert {span.trace_id for span in spans} == {tune_.trace_id}
    assert parent == f"00-{tune_.trace_id.hex()}-{tune_.span_id.hex()}-{parent[-2:]}"
    assert attributes(tune_) == {"autotune.study": "s", "autotune.decision": "BETTER"}
    assert attributes(trial_) == {"autotune.trial": 3, "autotune.gain_ratio": 1.5, "autotune.kept": True}
    assert (measure.start_time_unix_nano, measure.end_time_unix_nano) == (1000 * 10**9, 1002_500_000_000)
    named = {metric.name: metric for metric in metrics}
    assert named["autotune.trials"].sum.data_points[0].as_int == 2
    histogram = named["autotune.trial.duration"]
    assert (histogram.unit, histogram.histogram.data_points[0].sum) == ("s", 1.7)
    assert max(histogram.histogram.data_points[0].explicit_bounds) == 50_000
    assert named["hw.power"].gauge.data_points[0].as_double == 350.0


def test_only_the_signal_with_an_endpoint_is_sent_and_the_resource_names_us(monkeypatch):
    with server(200) as (address, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{address}/v1/traces")
        delivery = send_something()
    assert delivery == telemetry.Delivery(spans_sent=4)
    request = ExportTraceServiceRequest.FromString(bodies[0])
    resource = {item.key: item.value.string_value for item in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "autotune"
    assert resource["service.version"]
    assert "host.name" not in resource


def test_a_worker_or_a_pipeline_continues_the_trace_of_its_environment(monkeypatch):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with tap() as (address, spans, _):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("TRACEPARENT", f"00-{trace}-{span}-01")
        send_something()
    tune = next(span for span in spans if span.name == "autotune.tune")
    assert (tune.trace_id.hex(), tune.parent_span_id.hex()) == (trace, span)


def test_an_exception_passes_through_and_marks_its_span_with_its_class_only(monkeypatch):
    def fail():
        with telemetry.session(), telemetry.span("autotune.tune"):
            raise KeyError("a secret")

    with server(200) as (address, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", address)
        with pytest.raises(KeyError):
            fail()
    span = ExportTraceServiceRequest.FromString(bodies[0]).resource_spans[0].scope_spans[0].spans[0]
    assert (span.status.code, span.status.message) == (2, "KeyError")
    assert b"a secret" not in bodies[0]


@pytest.mark.parametrize("kind", ["dead port", "404", "503", "hangs"])
def test_what_nobody_acknowledges_is_counted_as_lost_and_holds_nobody_up(kind, monkeypatch, caplog, capfd):
    answers = {"dead port": 404, "404": 404, "503": 503, "hangs": None}
    with server(answers[kind], {"Retry-After": "30"}) as (address, _):
        dead = f"http://127.0.0.1:{free_port()}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", dead if kind == "dead port" else address)
        began_s = time.monotonic()
        delivery = send_something()
        took_s = time.monotonic() - began_s
    assert took_s < LEAVING_LIMIT_S
    assert (delivery.spans_sent, delivery.spans_lost) == (0, 4)
    assert (delivery.metrics_sent, delivery.metrics_lost) == (0, 1)
    assert [record.name for record in caplog.records if record.levelno >= logging.WARNING] == ["autotuner.telemetry"]
    assert "4 of 4 spans" in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_many_batches_for_a_server_that_hangs_are_given_up_together(monkeypatch):
    """And a full queue drops spans instead of holding up who makes them; all are counted."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64")
    with server(None) as (address, _):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", address)
        began_s = time.monotonic()
        with telemetry.session() as delivery:
            for _ in range(1000):
                with telemetry.span("autotune.trial"):
                    pass
        took_s = time.monotonic() - began_s
    assert took_s < LEAVING_LIMIT_S
    assert (delivery.spans_sent, delivery.spans_lost) == (0, 1000)


def test_settings_that_cannot_be_meant_turn_telemetry_off_and_fail_nothing(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "-1")
    assert send_something() == telemetry.Delivery()
    assert "telemetry is off" in caplog.text


def test_a_session_within_a_session_is_part_of_it(monkeypatch):
    with server(200) as (address, _):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", address)
        with telemetry.session() as outer:
            send_something()
            with telemetry.span("autotune.tune"):
                assert telemetry.trace_parent()
    assert outer.spans_sent == 5


def test_a_forked_child_does_not_send_for_its_parent(monkeypatch):
    with server(200) as (address, _):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", address)
        with telemetry.session() as delivery, telemetry.span("autotune.tune"):
            child = os.fork()
            if child == 0:
                with telemetry.span("autotune.trial"):
                    os._exit(7 if telemetry.trace_parent() else 0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert delivery.spans_sent == 1


def test_trace_ids_do_not_come_from_the_studys_random_state(monkeypatch):
    with server(200) as (address, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", address)
        ids = set()
        for _ in range(2):
            random.seed(0)
            state = random.getstate()
            with telemetry.session(), telemetry.span("autotune.tune"):
                ids.add(telemetry.trace_parent())
                assert random.getstate() == state
    assert len(ids) == 2
    assert len(bodies) == 2


@pytest.mark.parametrize("setting", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1", "OTEL_SDK_DISABLED": "true"}])
def test_nothing_configured_imports_nothing_and_costs_nothing(setting):
    program = """
import sys, time
from autotuner import telemetry
with telemetry.session() as delivery:
    best = 1.0
    for _ in range(200):
        began = time.perf_counter()
        for _ in range(100):
            with telemetry.span("autotune.trial", {"a": 1}) as span:
                span.set({"b": 2})
        best = min(best, (time.perf_counter() - began) / 100)
    telemetry.count("a"); telemetry.observe("b", 1, "s"); telemetry.record_span("c", 0, 1); telemetry.gauge("d", 1, "W")
    assert telemetry.trace_parent() == ""
assert delivery == telemetry.Delivery()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
print(best)
"""
    run = subprocess.run([sys.executable, "-c", program], env=os.environ | setting, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 20e-6  # about 1 us; the best of many, so that a busy machine does not matter
