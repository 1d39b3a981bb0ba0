"""By gRPC to a real collector, which hands everything on by HTTP to where it can be looked at."""

import logging

import pytest

from autotuner import telemetry


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_all_three_signals_arrive_by_grpc(monkeypatch, collector, until, attributes, compression):
    with collector() as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
        with telemetry.session() as delivery, telemetry.span("tune", {"autotune.study": "s"}):
            with telemetry.span("trial"):
                logging.getLogger("autotuner.executors").warning("the worker is %s", "slow")
            telemetry.count("autotune.trials", 2, {"autotune.outcome": "measured"}, "{trial}")
        until(lambda: len(got.spans) == 2 and got.metrics and got.logs)
    assert delivery == telemetry.Delivery(spans_sent=2, metrics_sent=1 + 3, logs_sent=1), (
        "with three counters of failures"
    )
    tune, trial = got.span("tune"), got.span("trial")
    assert got.under(tune) == ["trial"]
    assert attributes(tune) == {"autotune.study": "s"}
    assert got.points("autotune.trials") == [({"autotune.outcome": "measured"}, 2)]
    (record,) = got.logs
    assert record.body.string_value == "the worker is slow"
    assert (record.trace_id, record.span_id) == (trial.trace_id, trial.span_id)
    assert {resource["service.name"] for resource in got.resources} == {"autotune"}


def test_one_signal_by_grpc_the_others_by_http(monkeypatch, collector, server, until):
    with collector() as by_grpc, server(200) as by_http:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", by_http.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", by_grpc.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
        with telemetry.session() as delivery, telemetry.span("tune"):
            telemetry.count("autotune.trials")
        until(lambda: by_grpc.spans)
    assert delivery == telemetry.Delivery(spans_sent=1, metrics_sent=1 + 3)
    assert (len(by_grpc.spans), len(by_http.spans), len(by_http.metrics)) == (1, 0, 2)
