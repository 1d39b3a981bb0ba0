"""The ways out: OpenTelemetry's providers over our exporters. Imported only when telemetry is on."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from autotuner.telemetry.delivery import Tally
from autotuner.telemetry.exporters import open_exporter
from autotuner.telemetry.live import Live
from autotuner.telemetry.routes import Route, Signal

NAME = "autotune"
FAILURES = "autotune.telemetry.export.failures"

_logger = logging.getLogger(__name__)


def open_channels(routes: Iterable[Route], tally: Tally) -> Live | None:
    """Open every route that can be opened and warn of the others; None when nothing is left."""
    channels: defaultdict[Signal, list[Any]] = defaultdict(list)
    for route in routes:
        try:
            channel = _open_channel(route, tally)
        except (ImportError, OSError, ValueError) as error:  # not installed, a taken port, a setting nobody can mean
            _logger.warning("telemetry: no %s by %s: %s", route.signal, route.protocol or route.exporter, error)
        else:
            channels[route.signal].append(channel)
    if not channels:
        return None
    try:
        return _connect(channels, tally)
    except ValueError as error:  # a limit or filter that the SDK does not understand
        _logger.warning("telemetry is off: %s", error)
        for channel in [each for of_signal in channels.values() for each in of_signal]:
            channel.shutdown()
        return None


def _connect(channels: Mapping[Signal, Sequence[Any]], tally: Tally) -> Live:
    """Providers over the channels."""
    name = os.environ.get("OTEL_SERVICE_NAME") or NAME
    resource = Resource.create({"service.name": name, "service.version": version("autotune-loop")})
    meter = _meter(channels.get("metrics", ()), resource)
    _count_failures(meter, tally)
    return Live(
        tracer=_tracer(channels.get("traces", ()), resource),
        meter=meter,
        logger=_log_sink(channels.get("logs", ()), resource),
        root=TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")}),
        tally=tally,
        closers=[channel.shutdown for of_signal in channels.values() for channel in of_signal],
    )


def _open_channel(route: Route, tally: Tally) -> Any:
    """A processor or reader, with threads of its own and `shutdown`, which sends what there is."""
    if route.exporter == "prometheus":
        from autotuner.telemetry.prometheus import PrometheusEndpoint

        return PrometheusEndpoint()
    exporter = open_exporter(route, tally)
    match route.signal:
        case "traces":
            return BatchSpanProcessor(exporter)
        case "metrics":
            return PeriodicExportingMetricReader(exporter)
        case "logs":
            return BatchLogRecordProcessor(exporter)


class OwnIds(RandomIdGenerator):
    """The SDK draws from `random`, whose state belongs to the study: a seed would repeat its ids."""

    def generate_span_id(self) -> int:
        """Eight random bytes, never all zero."""
        return int.from_bytes(os.urandom(8)) or 1

    def generate_trace_id(self) -> int:
        """Sixteen random bytes, never all zero."""
        return int.from_bytes(os.urandom(16)) or 1


def _tracer(processors: Sequence[Any], resource: Resource) -> trace.Tracer:
    if not processors:
        return trace.NoOpTracer()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=OwnIds())
    for processor in processors:
        provider.add_span_processor(processor)
    return provider.get_tracer(NAME)


def _meter(readers: Sequence[Any], resource: Resource) -> metrics.Meter:
    return (
        MeterProvider(readers, resource, shutdown_on_exit=False).get_meter(NAME) if readers else metrics.NoOpMeter(NAME)
    )


def _log_sink(processors: Sequence[Any], resource: Resource) -> _logs.Logger | None:
    if not processors:
        return None
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    for processor in processors:
        provider.add_log_record_processor(processor)
    return provider.get_logger(NAME)


def _count_failures(meter: metrics.Meter, tally: Tally) -> None:
    """Requests that failed so far, by signal, whenever somebody can still hear it: Prometheus, or a later request."""

    def observe(options: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
        for signal, count in tally.failures().items():
            yield metrics.Observation(count, {"autotune.signal": signal})

    meter.create_observable_counter(FAILURES, [observe], "{request}", "requests to a collector that failed")
