"""Spans and metrics of the loop over OTLP/HTTP: the only door to OpenTelemetry.

The standard variables configure it: OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ and _METRICS_ forms), headers,
certificates, sampler and so on. Without an endpoint, or with OTEL_SDK_DISABLED=true, nothing of OpenTelemetry is
imported and every function returns at once.

Telemetry never fails a study and never holds it up: spans leave on the SDK's thread, a request is given up after
`REQUEST_LIMIT_S`, the last flush after `FLUSH_LIMIT_S`. The SDK's own `force_flush` answers True on a dead port
(opentelemetry-python #5020) and may hang at exit (#2284), so what a receiver has acknowledged is counted here.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.resources import Resource

AttributeValue: TypeAlias = bool | int | float | str | None
Attributes: TypeAlias = Mapping[str, AttributeValue]

_NONE: Attributes = MappingProxyType({})
REQUEST_LIMIT_S = 2.0
FLUSH_LIMIT_S = 3.0
_BOUNDARIES = tuple(digit * 10.0**exponent for exponent in range(-5, 5) for digit in (1, 2, 5))

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivery:
    """What receivers have acknowledged, and what not; zeros until its session has ended.

    Attributes:
        spans_sent: Acknowledged spans.
        spans_lost: Refused, unanswered or dropped spans.
        metrics_sent: Acknowledged data points; a long session sends the same instruments many times.
        metrics_lost: Refused or unanswered data points.
    """

    spans_sent: int = 0
    spans_lost: int = 0
    metrics_sent: int = 0
    metrics_lost: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, for as long as its block runs."""

    recorded: "trace.Span | None" = None

    def set(self, attributes: Attributes) -> None:
        """Add or replace attributes; those that are None are left out."""
        if self.recorded is not None:
            self.recorded.set_attributes(_present(attributes))


_UNRECORDED = nullcontext(Span())


@dataclass(slots=True)
class _Tally:
    """Counts from several threads; exporters that hang may still count when nobody reads them any more."""

    spans_ended: int = 0
    spans_sent: int = 0
    points_tried: int = 0
    points_sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, amount: int = 1) -> None:
        with self.lock:
            setattr(self, name, getattr(self, name) + amount)


@dataclass(slots=True)
class _Live:
    """A session that has somewhere to send to. `pid`: a forked child must not use its parent's."""

    tracer: "trace.Tracer"
    meter: "Meter"
    root: "Context"
    tally: _Tally
    closers: Sequence[Callable[[], None]]
    pid: int = field(default_factory=os.getpid)

    def start_span(self, name: str, attributes: Attributes, start_ns: int | None = None) -> "trace.Span":
        from opentelemetry.trace import get_current_span

        under = None if get_current_span().get_span_context().is_valid else self.root
        return self.tracer.start_span(name, under, attributes=_present(attributes), start_time=start_ns)

    def end_span(self, span: "trace.Span", end_ns: int | None = None) -> None:
        span.end(end_ns)
        if span.get_span_context().trace_flags.sampled:
            self.tally.add("spans_ended")

    def close(self) -> bool:
        """Send what there is, within the limit; False if something hangs, on a thread that nobody waits for."""
        ends_s = time.monotonic() + FLUSH_LIMIT_S
        threads = [threading.Thread(target=close, name="autotune-telemetry", daemon=True) for close in self.closers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, ends_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)


_session: _Live | None = None


def _current() -> _Live | None:
    return _session if _session is not None and _session.pid == os.getpid() else None


def _wanted(signal: str) -> bool:
    """Whether "TRACES" or "METRICS" have somewhere to go."""
    named = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return bool(named) and not disabled and os.environ.get(f"OTEL_{signal}_EXPORTER") != "none"


@contextmanager
def session() -> Iterator[Delivery]:
    """Send spans and metrics while the block runs; a session within a session is part of it.

    Yields:
        What was delivered, filled in when the block has ended. Leaving takes at most `FLUSH_LIMIT_S`.
    """
    global _session
    delivery = Delivery()
    if _current() is not None or not (_wanted("TRACES") or _wanted("METRICS")):
        yield delivery
        return
    sdk, tally = logging.getLogger("opentelemetry"), _Tally()
    try:
        _session = live = _open(tally)
    except (ImportError, OSError, ValueError) as error:  # a certificate that is not there, a compression unheard of
        _logger.warning("telemetry is off: %s", error)
        yield delivery
        return
    level = sdk.level
    sdk.setLevel(logging.CRITICAL + 1)  # its complaints about failed deliveries become one of ours at the end
    try:
        yield delivery
    finally:
        _session = None
        if live.close():  # else threads that hang would still complain
            sdk.setLevel(level)
        _fill(delivery, tally)


def _fill(delivery: Delivery, tally: _Tally) -> None:
    with tally.lock:
        delivery.spans_sent, delivery.spans_lost = tally.spans_sent, tally.spans_ended - tally.spans_sent
        delivery.metrics_sent, delivery.metrics_lost = tally.points_sent, tally.points_tried - tally.points_sent
    if delivery.spans_lost or delivery.metrics_lost:
        _logger.warning(
            "telemetry: %d of %d spans and %d of %d metric points could not be delivered",
            *(delivery.spans_lost, tally.spans_ended, delivery.metrics_lost, tally.points_tried),
        )


def _open(tally: _Tally) -> _Live:
    from opentelemetry.metrics import NoOpMeter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import NoOpTracer
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    name = os.environ.get("OTEL_SERVICE_NAME") or "autotune"
    resource = Resource.create({"service.name": name, "service.version": version("autotune-loop")})
    root = TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")})
    tracer, stop_traces = _traces(resource, tally) if _wanted("TRACES") else (NoOpTracer(), None)
    meter, stop_metrics = _metrics(resource, tally) if _wanted("METRICS") else (NoOpMeter("autotune"), None)
    return _Live(tracer, meter, root, tally, [stop for stop in (stop_traces, stop_metrics) if stop])


def _traces(resource: "Resource", tally: _Tally) -> "tuple[trace.Tracer, Callable[[], None]]":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class CountingExporter(OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            tally.add("spans_sent", len(spans) if result is SpanExportResult.SUCCESS else 0)
            return result

    class OwnIds(RandomIdGenerator):
        """The SDK draws from `random`, whose state belongs to the study: a seed would repeat its ids."""

        def generate_span_id(self) -> int:
            return int.from_bytes(os.urandom(8)) or 1

        def generate_trace_id(self) -> int:
            return int.from_bytes(os.urandom(16)) or 1

    processor = BatchSpanProcessor(CountingExporter(timeout=REQUEST_LIMIT_S))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=OwnIds())
    provider.add_span_processor(processor)
    return provider.get_tracer("autotune"), processor.shutdown


def _metrics(resource: "Resource", tally: _Tally) -> "tuple[Meter, Callable[[], None]]":
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData, PeriodicExportingMetricReader

    class CountingExporter(OTLPMetricExporter):
        def export(self, metrics_data: MetricsData, *limits: Any, **others: Any) -> MetricExportResult:
            scopes = [scope for of_resource in metrics_data.resource_metrics for scope in of_resource.scope_metrics]
            points = sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)
            tally.add("points_tried", points)
            result = super().export(metrics_data, *limits, **others)
            tally.add("points_sent", points if result is MetricExportResult.SUCCESS else 0)
            return result

    reader = PeriodicExportingMetricReader(CountingExporter(timeout=REQUEST_LIMIT_S))
    provider = MeterProvider([reader], resource, shutdown_on_exit=False)
    return provider.get_meter("autotune"), reader.shutdown


def _present(attributes: Attributes) -> dict[str, bool | int | float | str]:
    return {name: value for name, value in attributes.items() if value is not None}


def span(name: str, attributes: Attributes = _NONE) -> AbstractContextManager[Span]:
    """A span around a block, under the current one; names are `autotune.*`. Costs well under 2 us when unrecorded."""
    live = _current()
    return _UNRECORDED if live is None else _recorded(live, name, attributes)


@contextmanager
def _recorded(live: _Live, name: str, attributes: Attributes) -> Iterator[Span]:
    """An exception marks the span with its class only, for its text may hold anything."""
    from opentelemetry.context import attach, detach
    from opentelemetry.trace import StatusCode, set_span_in_context

    recorded = live.start_span(name, attributes)
    token = attach(set_span_in_context(recorded))
    try:
        yield Span(recorded)
    except BaseException as error:
        recorded.set_status(StatusCode.ERROR, type(error).__name__)
        raise
    finally:
        detach(token)
        live.end_span(recorded)


def record_span(name: str, start_s: float, end_s: float, attributes: Attributes = _NONE) -> None:
    """Add a span for what has already happened, in a worker for instance, under the current one.

    `start_s` and `end_s` are seconds since the epoch, as `time.time` counts them.
    """
    if live := _current():
        live.end_span(live.start_span(name, attributes, int(start_s * 1e9)), int(end_s * 1e9))


def trace_parent() -> str:
    """The W3C `traceparent` of the current span, for a worker's TRACEPARENT; empty outside of a recorded span."""
    if _current() is None:
        return ""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent", "")


def count(name: str, amount: float = 1, attributes: Attributes = _NONE) -> None:
    """Add to a counter; `amount` must not be negative."""
    if live := _current():
        live.meter.create_counter(name).add(amount, _present(attributes))


def observe(name: str, value: float, unit: str, attributes: Attributes = _NONE) -> None:
    """Add a value to a histogram; its buckets go 1, 2, 5 from 1e-5 to 5e4 in `unit` ("s", "By", "1")."""
    if live := _current():
        histogram = live.meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=_BOUNDARIES)
        histogram.record(value, _present(attributes))


def gauge(name: str, value: float, unit: str, attributes: Attributes = _NONE) -> None:
    """Set a value that stands until it is set again, `hw.power` in "W" for instance."""
    if live := _current():
        live.meter.create_gauge(name, unit).set(value, _present(attributes))
