"""Which signal goes where: OpenTelemetry's standard variables, read without OpenTelemetry."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

Signal: TypeAlias = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
HTTP, GRPC = "http/protobuf", "grpc"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """One way out for one signal.

    Attributes:
        signal: "traces", "metrics" or "logs".
        exporter: "otlp", or "prometheus" for metrics.
        protocol: Of OTLP: "http/protobuf" or "grpc"; empty for Prometheus.
    """

    signal: Signal
    exporter: str
    protocol: str = ""


def routes() -> tuple[Route, ...]:
    """Every way out that the environment asks for; empty when telemetry is off.

    OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER name exporters, separated by commas: "otlp",
    for metrics also "prometheus", or "none". Where they are silent, OTLP is used if there is an endpoint for it:
    OTEL_EXPORTER_OTLP_ENDPOINT or its form for one signal. What cannot be meant is told in a warning, and left out.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    return tuple(route for signal in SIGNALS for route in _of(signal))


def _of(signal: Signal) -> Iterator[Route]:
    default = "otlp" if setting(signal, "ENDPOINT") else "none"
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip().lower() for name in (os.environ.get(variable) or default).split(",")]
    for name in dict.fromkeys(filter(None, names)):
        if name == "otlp":
            yield from _bysetting(signal)
        elif name == "prometheus" and signal == "metrics":
            yield Route(signal, name)
        elif name != "none":
            known = "otlp, prometheus or none" if signal == "metrics" else "otlp or none"
            _logger.warning("telemetry: %s=%s is not known here; it takes %s", variable, name, known)


def _bysetting(signal: Signal) -> Iterator[Route]:
    protocol = setting(signal, "PROTOCOL").strip().lower() or HTTP
    if protocol in (HTTP, GRPC):
        yield Route(signal, "otlp", protocol)
    else:
        text = "telemetry: OTEL_EXPORTER_OTLP_PROTOCOL=%s is not known here; it takes %s or %s. No %s are sent"
        _logger.warning(text, protocol, HTTP, GRPC, signal)


def setting(signal: Signal, name: str) -> str:
    """A setting of OTLP, "PROTOCOL" for instance; its form for one signal goes before that for all."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}")
    return own or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")
