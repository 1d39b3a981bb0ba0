"""OTLP exporters that count what was acknowledged. Imported only when telemetry is on, gRPC only when asked for."""

from collections.abc import Sized
from importlib import import_module
from typing import Any

from autotuner.telemetry.delivery import Tally
from autotuner.telemetry.live import REQUEST_LIMIT_S
from autotuner.telemetry.routes import GRPC, Route, Signal, setting

_CLASSES: dict[Signal, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}


def open_exporter(route: Route, tally: Tally) -> Any:
    """The SDK's exporter for a signal and protocol.

    Raises:
        ImportError: gRPC is not installed; the message says what to do.
        OSError: A certificate cannot be read.
        ValueError: A setting that the exporter does not know.
    """
    package = "grpc" if route.protocol == GRPC else "http"
    module, name = _CLASSES[route.signal]
    try:
        exporters = import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}")
    except ImportError as error:
        raise ImportError(f"pip install 'autotune-loop[otlp-grpc]' first ({error})") from error
    exporter = counting(getattr(exporters, name), route.signal, tally)
    settings = {"compression": _grpc_compression(route.signal)} if route.protocol == GRPC else {}
    try:
        opened = exporter(timeout=REQUEST_LIMIT_S, **settings)
    except RuntimeError as error:  # a credential provider that is not there
        raise ValueError(str(error)) from error
    tally.watch(route.signal)
    return opened


def _grpc_compression(signal: Signal) -> Any:
    """OTEL_EXPORTER_OTLP_COMPRESSION for gRPC, whose exporter does not know "none" and raises a bare Exception."""
    import grpc

    name = setting(signal, "COMPRESSION").strip().lower() or "none"
    known = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
    if name not in known:
        raise ValueError(f"compression {name!r} is unknown to gRPC; use gzip or none")
    return known[name]


def counting(exporter: Any, signal: Signal, tally: Tally) -> Any:
    """The exporter's class, but what `export` sends is put into the tally.

    Spans and log records were counted when they were made, for a full queue drops some; data points are made here.
    """

    class Counting(exporter):  # type: ignore[misc]
        def export(self, batch: Any, *limits: Any, **others: Any) -> Any:
            amount, acknowledged = _points(batch) if signal == "metrics" else len(batch), False
            if signal == "metrics":
                tally.make(signal, amount)
            try:
                result = super().export(batch, *limits, **others)
                acknowledged = result.name == "SUCCESS"
            finally:
                tally.export(signal, amount, acknowledged=acknowledged)
            return result

    return Counting


def _points(metrics_data: Any) -> int:
    scopes = [scope for of_resource in metrics_data.resource_metrics for scope in of_resource.scope_metrics]
    points: list[Sized] = [metric.data.data_points for scope in scopes for metric in scope.metrics]
    return sum(map(len, points))
