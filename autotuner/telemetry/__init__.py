"""Spans, metrics and logs of the loop, to whoever wants them: the only door to OpenTelemetry.

The standard variables configure it: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_METRICS_EXPORTER=prometheus and so on (see
`routes`). Where none is set, or with OTEL_SDK_DISABLED=true, nothing of OpenTelemetry is imported and every function
returns at once.

Telemetry never fails a study and never holds it up: what is recorded leaves on the SDK's threads through bounded
queues, a request is given up after `REQUEST_LIMIT_S`, the last flush after `FLUSH_LIMIT_S`. The SDK's own `force_flush`
answers True on a dead port (opentelemetry-python #5020) and may hang at exit (#2284), so what a receiver has
acknowledged is counted here.
"""

from autotuner.telemetry.delivery import Delivery
from autotuner.telemetry.instruments import count, gauge, level, observe
from autotuner.telemetry.live import (
    FLUSH_LIMIT_S,
    REQUEST_LIMIT_S,
    Attributes,
    AttributeValue,
    enabled,
    log,
    session,
)
from autotuner.telemetry.spans import Span, annotate, record_span, span, trace_parent, traced

__all__ = [
    "FLUSH_LIMIT_S",
    "REQUEST_LIMIT_S",
    "AttributeValue",
    "Attributes",
    "Delivery",
    "Span",
    "annotate",
    "count",
    "enabled",
    "gauge",
    "level",
    "log",
    "observe",
    "record_span",
    "session",
    "span",
    "trace_parent",
    "traced",
]
