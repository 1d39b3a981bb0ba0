"""The standard variables: what they switch on, and what becomes of settings that cannot be meant."""

import subprocess
import sys

import pytest

from autotuner import telemetry
from autotuner.telemetry.routes import Route, routes

TRACES, METRICS, LOGS = (Route(signal, "otlp", "http/protobuf") for signal in ("traces", "metrics", "logs"))
SCRAPED = Route("metrics", "prometheus")
HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({}, ()),
        (HERE, (TRACES, METRICS, LOGS)),
        ({**HERE, "OTEL_SDK_DISABLED": " TRUE "}, ()),
        ({**HERE, "OTEL_METRICS_EXPORTER": "none"}, (TRACES, LOGS)),
        ({**HERE, "OTEL_METRICS_EXPORTER": "otlp, prometheus,otlp"}, (TRACES, METRICS, SCRAPED, LOGS)),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, (SCRAPED,)),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, (LOGS,)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, (TRACES,)),
        (
            {**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf"},
            (Route("traces", "otlp", "grpc"), Route("metrics", "otlp", "grpc"), LOGS),
        ),
    ],
)
def test_which_signal_goes_where(monkeypatch, setting, expected):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    assert routes() == expected


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin is not known here; it takes otlp or none"),
        ({"OTEL_TRACES_EXPORTER": "prometheus"}, "it takes otlp or none"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json", **HERE}, "it takes http/protobuf or grpc. No logs are sent"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "-1", **HERE}, "no metrics by http/protobuf: interval value -1"),
        ({"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": "many"}, "no metrics by prometheus"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "zip", **HERE},
            "no traces by grpc: compression 'zip' is unknown to gRPC; use gzip or none",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_and_fails_nothing(monkeypatch, caplog, setting, said):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    with telemetry.session(), telemetry.span("tune"):
        pass
    assert said in " ".join(caplog.text.split())


@pytest.mark.parametrize(
    ("module", "setting", "hint"),
    [
        ("grpc", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **HERE}, "pip install 'autotune-loop[otlp-grpc]'"),
        ("prometheus_client", {"OTEL_METRICS_EXPORTER": "prometheus"}, "pip install 'autotune-loop[prometheus]'"),
    ],
)
def test_what_is_not_installed_is_told_with_its_mend(module, setting, hint):
    program = f"""
import sys
sys.modules[{module!r}] = None  # as if it were not installed
from autotuner import telemetry
with telemetry.session() as delivery, telemetry.span("tune"):
    telemetry.count("autotune.trials")
    assert not telemetry.enabled()
assert delivery == telemetry.Delivery()
"""
    run = subprocess.run([sys.executable, "-c", program], env=setting, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert hint in run.stderr
    assert "Traceback" not in run.stderr


def test_one_way_out_that_is_shut_leaves_the_others_open(monkeypatch, caplog, server):
    with server(200) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")
        with telemetry.session() as delivery, telemetry.span("tune"):
            telemetry.count("autotune.trials")
    assert delivery == telemetry.Delivery(spans_sent=1)
    assert "No metrics are sent" in caplog.text
