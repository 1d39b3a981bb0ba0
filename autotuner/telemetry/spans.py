"""Spans: stretches of time, one inside the other."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from autotuner.telemetry.live import NO_ATTRIBUTES, Attributes, Live, current, present

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time, for as long as its block runs."""

    recorded: "trace.Span | None" = None

    def set(self, attributes: Attributes) -> None:
        """Add or replace attributes; those that are None are left out."""
        if self.recorded is not None:
            self.recorded.set_attributes(present(attributes))


_UNRECORDED = nullcontext(Span())


def span(name: str, attributes: Attributes = NO_ATTRIBUTES) -> AbstractContextManager[Span]:
    """A span around a block, under the current one; attributes are `autotune.*`. Under 2 us when unrecorded."""
    live = current()
    return _UNRECORDED if live is None else _recorded(live, name, attributes)


def traced(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: a span around every call of the function."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with span(name):
                return function(*args, **kwargs)

        return call

    return decorate


@contextmanager
def _recorded(live: Live, name: str, attributes: Attributes) -> Iterator[Span]:
    """An exception marks the span with its class only, for its text may hold anything."""
    from opentelemetry.context import attach, detach
    from opentelemetry.trace import StatusCode, set_span_in_context

    recorded = live.start_span(name, attributes)

    def mark(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            recorded.set_status(StatusCode.ERROR, kind.__name__)

    with ExitStack() as ending:
        ending.callback(live.end_span, recorded)
        ending.callback(detach, attach(set_span_in_context(recorded)))
        ending.push(mark)
        yield Span(recorded)


def annotate(attributes: Attributes) -> None:
    """Add attributes to the current span, whoever opened it."""
    if current():
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(present(attributes))


def record_span(
    name: str, start_s: float, end_s: float, attributes: Attributes = NO_ATTRIBUTES, under: str = "", error: str = ""
) -> str:
    """Add a span for what has already happened, in a worker for instance.

    Args:
        name: Of the span.
        start_s: Seconds since the epoch, as `time.time` counts them.
        end_s: The same of its end.
        attributes: `autotune.*`.
        under: The `traceparent` of the span that it belongs under; default the current one.
        error: Why it failed, in a word; empty if it did not.

    Returns:
        Its own `traceparent`, for what belongs under it; empty when nothing is recorded.
    """
    if (live := current()) is None:
        return ""
    from opentelemetry.trace import StatusCode, set_span_in_context

    above = _context_of(under) if under else None
    recorded = live.start_span(name, attributes, int(start_s * 1e9), above)
    if error:
        recorded.set_status(StatusCode.ERROR, error)
    live.end_span(recorded, int(max(start_s, end_s) * 1e9))
    return _traceparent(set_span_in_context(recorded))


def trace_parent() -> str:
    """The W3C `traceparent` of the current span, for a worker's TRACEPARENT; empty outside of a recorded span."""
    return _traceparent(None) if current() else ""


def _context_of(traceparent: str) -> "Context":
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _traceparent(context: "Context | None") -> str:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, context)
    return carrier.get("traceparent", "")
