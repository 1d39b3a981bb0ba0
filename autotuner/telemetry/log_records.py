"""Our `logging` records as OpenTelemetry's, with the ids of the current span. Imported only when logs are sent.

The SDK's own `LoggingHandler` is deprecated, and its successor is a beta that wraps more of `logging` than is wanted.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context, get_current

from autotuner.telemetry.live import Attributes, AttributeValue, current, present

_OURS = logging.getLogger("autotuner")


def log_record(context: Context | None, at_s: float, level: int, text: str, attributes: Attributes) -> LogRecord:
    """A record to send; `level` is one of `logging`'s, `context` None means the current one."""
    severity = SeverityNumber(min(24, max(1, 4 * (level // 10) + 1)))  # DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21
    return LogRecord(
        timestamp=int(at_s * 1e9),
        context=get_current() if context is None else context,
        severity_number=severity,
        severity_text=severity.name,
        body=text,
        attributes=present(attributes),
    )


class SendingHandler(logging.Handler):
    """Sends what the project logs.

    `logging` writes a record to stderr by its last resort when nobody else takes it; sending it is no reason to stop
    that, so this handler passes it on when it is alone.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; of an exception only its class, for its text may hold anything."""
        if (live := current()) and live.logger is not None:
            attributes: dict[str, AttributeValue] = {
                "autotune.logger": record.name,
                "code.function.name": record.funcName,
                "code.line.number": record.lineno,
                "exception.type": record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None,
            }
            text = record.getMessage()
            live.logger.emit(log_record(live.context(), record.created, record.levelno, text, attributes))
            live.tally.make("logs")
        self._pass_on(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        last_resort, logger = logging.lastResort, logging.getLogger(record.name)
        if last_resort is not None and list(_handlers(logger)) == [self] and record.levelno >= last_resort.level:
            last_resort.handle(record)


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Every handler that a record of this logger reaches."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


@contextmanager
def sending() -> Iterator[None]:
    """Attach the handler to the project's loggers, not to anybody else's."""
    handler = SendingHandler()
    _OURS.addHandler(handler)
    try:
        yield
    finally:
        _OURS.removeHandler(handler)
