"""Collectors that are dead, wrong, overloaded, slow or dying: counted, told in one line, and never waited for."""

import logging
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from autotuner import telemetry

LEAVING_LIMIT_S = 2 * telemetry.FLUSH_LIMIT_S  # generous: the machine may be busy, a hanging server answers after 30 s
OTHERS_LOGS = ("opentelemetry", "urllib3", "requests", "grpc", "concurrent", "asyncio")


def send_something() -> telemetry.Delivery:
    with telemetry.session() as delivery, telemetry.span("tune"):
        for number in range(3):
            with telemetry.span("trial", {"autotune.trial": number}):
                telemetry.count("autotune.trials")
        telemetry.log("hello")
        telemetry.log("again")
    return delivery


@contextmanager
def no_answer():
    """A port that accepts connections and says nothing at all, whatever the protocol."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def broken(server, free_port):
    """The address of a collector that does not take anything, by the kind of its trouble."""

    @contextmanager
    def run(kind):
        match kind:
            case "dead port":
                yield f"http://127.0.0.1:{free_port()}"
            case "accepts and says nothing":
                with no_answer() as address:
                    yield address
            case _:
                status = {"404": 404, "503, retry in 30 s": 503, "answers after 30 s": None, "hangs up": 0}[kind]
                with server(status, headers={"Retry-After": "30"}) as got:
                    yield got.address

    return run


KINDS = ["dead port", "404", "503, retry in 30 s", "answers after 30 s", "hangs up", "accepts and says nothing"]
BY_GRPC = ["dead port", "404", "accepts and says nothing"]


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        *(("http/protobuf", kind) for kind in KINDS),
        *(pytest.param("grpc", kind, marks=pytest.mark.slow) for kind in BY_GRPC),
    ],
)
def test_what_nobody_acknowledges_is_counted_as_lost_and_holds_nobody_up(
    protocol, kind, broken, monkeypatch, caplog, capfd
):
    with broken(kind) as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        began_s = time.monotonic()
        delivery = send_something()
        took_s = time.monotonic() - began_s
    assert took_s < LEAVING_LIMIT_S
    assert delivery == telemetry.Delivery(spans_lost=4, metrics_lost=1 + 3, logs_lost=2), (
        "with three counters of failures"
    )
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name.partition(".")[0] for record in told] == ["autotuner"]
    assert "4 of 4 spans" in caplog.text
    assert "2 of 2 log records could not be delivered" in caplog.text
    errors = capfd.readouterr().err
    assert "Traceback" not in errors
    assert not [name for name in OTHERS_LOGS if name in errors]


@pytest.mark.slow
def test_many_batches_for_a_server_that_hangs_are_given_up_together(monkeypatch, server):
    """And a full queue drops spans instead of holding up who makes them; all are counted."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64")
    with server(None) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{got.address}/v1/traces")
        began_s = time.monotonic()
        with telemetry.session() as delivery:
            for _ in range(1000):
                with telemetry.span("trial"):
                    pass
        took_s = time.monotonic() - began_s
    assert took_s < LEAVING_LIMIT_S
    assert (delivery.spans_sent, delivery.spans_lost) == (0, 1000)


def test_a_collector_that_comes_back_in_time_gets_everything(monkeypatch, server):
    with server(503, 200, headers={"Retry-After": "0"}) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{got.address}/v1/traces")
        delivery = send_something()
    assert delivery == telemetry.Delivery(spans_sent=4)
    assert len(got.spans) == 4


def test_a_collector_that_dies_in_the_middle_leaves_a_true_count(monkeypatch, server, until):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with server(200) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{got.address}/v1/traces")
        dying = threading.Event()

        def study():
            with telemetry.session() as delivery:
                for number in range(20):
                    if number == 10:
                        until(lambda: len(got.spans) == 10)
                        dying.set()
                        until(lambda: not dying.is_set())
                    with telemetry.span("trial", {"autotune.trial": number}):
                        pass
            deliveries.append(delivery)

        deliveries: list[telemetry.Delivery] = []
        thread = threading.Thread(target=study)
        thread.start()
        assert dying.wait(20)
    dying.clear()  # the server is gone
    thread.join(20)
    assert deliveries == [telemetry.Delivery(spans_sent=10, spans_lost=10)]
    assert deliveries[0].loss == "10 of 20 spans could not be delivered"


def test_failed_exports_are_a_metric_where_somebody_still_listens(monkeypatch, server, until):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with server(404) as refusing, server(200) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{refusing.address}/v1/traces")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{got.address}/v1/metrics")
        with telemetry.session() as delivery:
            with telemetry.span("tune"):
                pass
            expected = [({"autotune.signal": "traces"}, 1), ({"autotune.signal": "metrics"}, 0)]
            until(lambda: got.points("autotune.telemetry.export.failures") == expected)
    assert got.points("autotune.telemetry.export.failures") == expected
    assert delivery.spans_lost == 1
    assert delivery.metrics_lost == 0


STUDY = """
import sys, time
from autotuner import telemetry

def study():
    began_s = time.perf_counter()
    with telemetry.span("tune"):
        for number in range(60):
            with telemetry.span("trial", {"autotune.trial": number}):
                end_s = time.perf_counter() + 0.002
                while time.perf_counter() < end_s:
                    pass
            telemetry.count("autotune.trials")
            telemetry.observe("autotune.trial.duration", 0.002, "s")
            telemetry.log("a trial has ended")
    return time.perf_counter() - began_s

with telemetry.session():
    study()  # the first use of an instrument makes it
    print(min(study() for _ in range(3)))
"""


@pytest.mark.slow
def test_a_dead_collector_costs_a_study_nothing(free_port):
    """120 ms of work in 60 trials, with exporters that fail all the time, against none at all, taking turns."""
    dead = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_METRIC_EXPORT_INTERVAL": "10", "OTEL_BLRP_SCHEDULE_DELAY": "10",
    }  # fmt: skip

    def measured_s(setting: dict[str, str]) -> float:
        run = subprocess.run(
            [sys.executable, "-c", STUDY], env=os.environ | setting, capture_output=True, text=True, check=True
        )
        return float(run.stdout)

    ratios = []
    for _ in range(3):
        none_s, dead_s = measured_s({}), measured_s(dead)
        ratios.append(dead_s / none_s)
    assert statistics.median(ratios) < 1.5, "1.17 when nothing else runs: 0.3 ms a trial"
