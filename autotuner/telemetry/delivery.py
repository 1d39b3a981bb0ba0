"""What was made, and what of it a receiver has acknowledged."""

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Delivery:
    """What receivers have acknowledged, and what not; zeros until its session has ended.

    Attributes:
        spans_sent: Acknowledged spans.
        spans_lost: Refused, unanswered or dropped spans.
        metrics_sent: Acknowledged data points; a long session sends the same instruments many times. What Prometheus
            fetches is not counted.
        metrics_lost: Refused or unanswered data points.
        logs_sent: Acknowledged log records.
        logs_lost: Refused, unanswered or dropped log records.
    """

    spans_sent: int = 0
    spans_lost: int = 0
    metrics_sent: int = 0
    metrics_lost: int = 0
    logs_sent: int = 0
    logs_lost: int = 0

    @property
    def loss(self) -> str:
        """What did not arrive, for a person; empty when everything did.

        >>> Delivery(spans_sent=3, spans_lost=1).loss
        '1 of 4 spans could not be delivered'
        """
        kinds = (
            ("spans", self.spans_lost, self.spans_sent),
            ("metric points", self.metrics_lost, self.metrics_sent),
            ("log records", self.logs_lost, self.logs_sent),
        )
        parts = [f"{lost} of {lost + sent} {name}" for name, lost, sent in kinds if lost]
        return f"{', '.join(parts)} could not be delivered" if parts else ""


@dataclass(slots=True)
class Tally:
    """Counts by signal from several threads; exporters that hang may still count when nobody reads them any more."""

    made: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    failed_exports: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, signal: str, amount: int = 1) -> None:
        """Items that ought to arrive."""
        with self.lock:
            self.made[signal] += amount

    def export(self, signal: str, amount: int, *, acknowledged: bool) -> None:
        """One request with `amount` items has been answered, or given up."""
        with self.lock:
            self.sent[signal] += amount if acknowledged else 0
            self.failed_exports[signal] += int(not acknowledged)

    def watch(self, signal: str) -> None:
        """Count failures of a signal from 0 on: an alert needs a beginning."""
        with self.lock:
            self.failed_exports[signal] += 0

    def failures(self) -> dict[str, int]:
        """Requests that failed, by watched signal."""
        with self.lock:
            return dict(self.failed_exports)

    def fill(self, delivery: Delivery) -> None:
        """Write the final counts."""
        with self.lock:
            sent, lost = self.sent, self.made - self.sent
            delivery.spans_sent, delivery.spans_lost = sent["traces"], lost["traces"]
            delivery.metrics_sent, delivery.metrics_lost = sent["metrics"], lost["metrics"]
            delivery.logs_sent, delivery.logs_lost = sent["logs"], lost["logs"]
