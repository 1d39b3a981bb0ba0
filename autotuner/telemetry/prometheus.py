"""The endpoint that Prometheus scrapes while a session lasts. Imported only when it is asked for."""

import os
from typing import Any

try:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, start_http_server
except ImportError as error:
    raise ImportError(f"pip install 'autotune-loop[prometheus]' first ({error})") from error

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 9464


class PrometheusEndpoint(PrometheusMetricReader):
    """Serves `/metrics` at OTEL_EXPORTER_PROMETHEUS_HOST and _PORT, by default at loopback only.

    Raises:
        OSError: The port is taken, by another study perhaps, or the host is not ours.
        ValueError: The port is no number.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()  # the library's own one tells of this process, which is nobody's business
        super().__init__(scope_info_enabled=False, registry=registry)
        host = os.environ.get("OTEL_EXPORTER_PROMETHEUS_HOST") or DEFAULT_HOST
        port = int(os.environ.get("OTEL_EXPORTER_PROMETHEUS_PORT") or DEFAULT_PORT)
        self._server, self._thread = start_http_server(port, host, registry)

    def shutdown(self, timeout_millis: float = 30_000, **others: Any) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout_millis / 1e3)
        super().shutdown(timeout_millis, **others)
