"""The session: while it lasts, what is recorded has somewhere to go."""

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from autotuner.telemetry.delivery import Delivery, Tally
from autotuner.telemetry.routes import routes

if TYPE_CHECKING:
    from opentelemetry import _logs, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter

AttributeValue: TypeAlias = bool | int | float | str | None
Attributes: TypeAlias = Mapping[str, AttributeValue]

NO_ATTRIBUTES: Attributes = MappingProxyType({})
REQUEST_LIMIT_S = 2.0
FLUSH_LIMIT_S = 3.0

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Live:
    """A session that has somewhere to send to. `pid`: a forked child must not use its parent's."""

    tracer: "trace.Tracer"
    meter: "Meter"
    logger: "_logs.Logger | None"
    root: "Context"
    tally: Tally
    closers: Sequence[Callable[[], None]]
    levels: dict[tuple[str, str], float] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)

    def context(self) -> "Context | None":
        """Where a new span or log record belongs: None for under the current span."""
        from opentelemetry.trace import get_current_span

        return None if get_current_span().get_span_context().is_valid else self.root

    def start_span(
        self, name: str, attributes: Attributes, start_ns: int | None = None, under: "Context | None" = None
    ) -> "trace.Span":
        """Start a span under the current one unless another context is given."""
        above = self.context() if under is None else under
        return self.tracer.start_span(name, above, attributes=present(attributes), start_time=start_ns)

    def end_span(self, span: "trace.Span", end_ns: int | None = None) -> None:
        """End a span; from now on it ought to arrive."""
        span.end(end_ns)
        if span.get_span_context().trace_flags.sampled:
            self.tally.make("traces")

    def close(self) -> bool:
        """Send what there is, within the limit; False if something hangs, on a thread that nobody waits for."""
        ends_s = time.monotonic() + FLUSH_LIMIT_S
        threads = [threading.Thread(target=close, name="autotune-telemetry", daemon=True) for close in self.closers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, ends_s - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)


_session: Live | None = None


def current() -> Live | None:
    """The session of this process, if there is one."""
    return _session if _session is not None and _session.pid == os.getpid() else None


def enabled() -> bool:
    """Whether anybody listens: for what costs something to find out."""
    return current() is not None


def present(attributes: Attributes) -> dict[str, bool | int | float | str]:
    """Attributes without those that are None or no finite number."""
    kept = {name: value for name, value in attributes.items() if value is not None}
    return {name: value for name, value in kept.items() if not isinstance(value, float) or math.isfinite(value)}


@contextmanager
def session() -> Iterator[Delivery]:
    """Send spans, metrics and logs while the block runs; a session within a session is part of it.

    Yields:
        What was delivered, filled in when the block has ended. Leaving takes at most `FLUSH_LIMIT_S`.
    """
    delivery, tally = Delivery(), Tally()
    wanted = routes() if current() is None else ()
    live = None
    if wanted:
        try:
            from autotuner.telemetry.channels import open_channels

            live = open_channels(wanted, tally)
        except ImportError as error:
            _logger.warning("telemetry is off: %s", error)
    if live is None:
        yield delivery
        return
    try:
        with _current(live):
            yield delivery
    finally:
        tally.fill(delivery)
        if delivery.loss:
            _logger.warning("telemetry: %s", delivery.loss)


@contextmanager
def _current(live: Live) -> Iterator[None]:
    """Run with the session; the SDK's complaints about failed deliveries become one of ours at the end."""
    global _session
    from autotuner.telemetry.log_records import sending

    sdk = logging.getLogger("opentelemetry")
    level = sdk.level
    sdk.setLevel(logging.CRITICAL + 1)
    _session = live
    try:
        with sending() if live.logger else nullcontext():
            yield
    finally:
        _session = None
        if live.close():  # else threads that hang would still complain
            sdk.setLevel(level)


def log(text: str, attributes: Attributes = NO_ATTRIBUTES, level: int = logging.INFO) -> None:
    """Send a log record of the current span; nobody else sees it, unlike those of `logging`, which are sent as well."""
    if (live := current()) and live.logger is not None:
        from autotuner.telemetry.log_records import log_record

        live.logger.emit(log_record(live.context(), time.time(), level, text, attributes))
        live.tally.make("logs")
