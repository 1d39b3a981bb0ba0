"""Debian's Prometheus scrapes us and answers PromQL; the endpoint is at loopback, and there only while we run."""

import socket
import urllib.error
import urllib.request

import psutil
import pytest

from autotuner import telemetry


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


@pytest.fixture
def endpoint(monkeypatch, free_port):
    port = free_port()
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(port))
    return port


@pytest.mark.slow  # it looks at its targets after five seconds only
def test_prometheus_scrapes_and_answers(endpoint, prometheus):
    with telemetry.session() as delivery:
        for duration_s in (0.3, 0.3, 0.3, 4.0):
            telemetry.count("autotune.trials", 1, {"autotune.outcome": "measured"}, "{trial}")
            telemetry.observe("autotune.trial.duration", duration_s, "s")
        telemetry.gauge("hw.power", 350.0, "W", {"hw.id": "GPU-1", "hw.type": "gpu"})
        telemetry.count("hw.energy", 700.5, {"hw.id": "GPU-1"}, "J")
        telemetry.level("hw.gpu.memory.usage", 2**30, "By", {"hw.id": "GPU-1"})
        with prometheus(endpoint) as found:
            assert found.value("autotune_trials_total") == 4
            assert found.value('hw_power_watts{hw_id="GPU-1",hw_type="gpu"}') == 350
            assert found.value("hw_energy_joules_total") == 700.5
            assert found.value("hw_gpu_memory_usage_bytes") == 2**30
            assert 0.2 < found.value("histogram_quantile(0.5, autotune_trial_duration_seconds_bucket)") < 0.5
            assert 2 < found.value("histogram_quantile(0.95, autotune_trial_duration_seconds_bucket)") <= 5
            assert found.value('target_info{service_name="autotune"}') == 1
    assert delivery == telemetry.Delivery(), "what is scraped is not counted"


def test_the_endpoint_is_at_loopback_says_nothing_of_this_process_and_ends_with_the_session(endpoint):
    with telemetry.session():
        telemetry.count("autotune.trials")
        text = scrape(endpoint)
        listening = [it.laddr for it in psutil.Process().net_connections("tcp") if it.status == psutil.CONN_LISTEN]
        assert [address.ip for address in listening if address.port == endpoint] == ["127.0.0.1"]
    assert "autotune_trials_total" in text
    assert "process_" not in text
    with pytest.raises(urllib.error.URLError):
        scrape(endpoint)


def test_several_exporters_at_once_and_failures_of_one_are_told_by_the_other(monkeypatch, endpoint, server, until):
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp,prometheus")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    with server(404, 200) as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{got.address}/v1/metrics")
        with telemetry.session() as delivery:
            telemetry.count("autotune.trials", 2)
            until(lambda: 'failures_total{autotune_signal="metrics"} 1.0' in scrape(endpoint))
            assert "autotune_trials_total 2.0" in scrape(endpoint)
            until(lambda: got.points("autotune.trials"))
    assert got.points("autotune.trials") == [({}, 2)]
    assert delivery.metrics_lost == 2, "of the first request: the counter, and the one of failures"
    assert delivery.metrics_sent >= 1


def test_a_port_that_is_taken_is_told_and_fails_nothing(monkeypatch, caplog, server):
    with socket.create_server(("127.0.0.1", 0)) as taken, server(200) as got:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
        monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{got.address}/v1/traces")
        with telemetry.session() as delivery, telemetry.span("tune"):
            telemetry.count("autotune.trials")
    assert "no metrics by prometheus" in caplog.text
    assert delivery == telemetry.Delivery(spans_sent=1)


def test_a_second_session_may_use_the_port_again(endpoint):
    for _ in range(2):
        with telemetry.session():
            telemetry.count("autotune.trials")
            assert "autotune_trials_total 1.0" in scrape(endpoint)
