"""Spans and metrics of the loop over OTLP/HTTP: the only door to OpenTelemetry.

The standard variables configure it: OTEL_EXPORTER_OTLP_ENDPOINT, or its _TRACES_ and _METRICS_ forms, and whatever
else the SDK reads (headers, certificates, sampler, resource attributes). Without an endpoint, or with
OTEL_SDK_DISABLED=true, nothing of OpenTelemetry is imported and every function returns at once.

Telemetry never fails a study and never holds it up: spans leave on the SDK's thread, a request is given up after
`REQUEST_LIMIT_S`, the last flush after `FLUSH_LIMIT_S`. The SDK's own `force_flush` answers True on a dead port
(opentelemetry-python #5020) and may hang at exit (#2284), so what a receiver has acknowledged is counted here.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.metrics.export import MetricsData, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Tracer

AttributeValue: TypeAlias = bool | int | float | str | None
Attributes: TypeAlias = Mapping[str, AttributeValue]

REQUEST_LIMIT_S = 2.0
FLUSH_LIMIT_S = 3.0
_BOUNDARIES = tuple(digit * 10.0**exponent for exponent in range(-5, 5) for digit in (1, 2, 5))

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivery:
    """What receivers have acknowledged, and what not; final when its session has ended.

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


class Span:
    """A span of time that nobody records. The recorded kind is entered and left on one thread."""

    def set(self, attributes: Attributes) -> None:
        """Add or replace attributes; those that are None are left out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_SILENT = Span()


class _RecordedSpan(Span):
    """A span under the current one; an exception marks it with its class, whose text may hold anything."""

    def __init__(self, live: "_Live", name: str, attributes: Attributes) -> None:
        self._live, self._name, self._attributes = live, name, attributes

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_present(attributes))

    def __enter__(self) -> Self:
        from opentelemetry.context import attach
        from opentelemetry.trace import set_span_in_context

        self._span = self._live.start_span(self._name, self._attributes)
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from opentelemetry.context import detach
        from opentelemetry.trace import StatusCode

        detach(self._token)
        if kind is not None:
            self._span.set_status(StatusCode.ERROR, kind.__name__)
        self._live.end_span(self._span)


@dataclass(slots=True)
class _Live:
    """A session with somewhere to send to. `pid` tells a forked child that it is not the child's."""

    tracer: "Tracer"
    meter: Any
    closers: list[Callable[[], None]]
    root: "Context"
    delivery: Delivery
    pid: int = field(default_factory=os.getpid)
    instruments: dict[str, Any] = field(default_factory=dict)
    spans_ended: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start_span(self, name: str, attributes: Attributes, start_ns: int | None = None) -> Any:
        from opentelemetry.trace import get_current_span

        under = None if get_current_span().get_span_context().is_valid else self.root
        return self.tracer.start_span(name, under, attributes=_present(attributes), start_time=start_ns)

    def end_span(self, span: Any, end_ns: int | None = None) -> None:
        span.end(end_ns)
        if span.get_span_context().trace_flags.sampled:
            with self.lock:
                self.spans_ended += 1

    def instrument(self, name: str, create: Callable[[], Any]) -> Any:
        with self.lock:
            if name not in self.instruments:
                self.instruments[name] = create()
            return self.instruments[name]

    def close(self) -> bool:
        """Flush what there is within the limit; False if something still hangs, on threads that nobody waits for."""
        ends_s = time.monotonic() + FLUSH_LIMIT_S
        threads = [threading.Thread(target=closer, name="autotune-telemetry", daemon=True) for closer in self.closers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, ends_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)
