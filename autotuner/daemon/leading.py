"""Leading a service: a lease that is renewed between turns, and on a thread of its own while something takes long."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from autotuner.errors import MachineError
from autotuner.store.journal import Journal, LeaseLostError

_END_S = 2.0  # for a renewal that waits for the record; when it comes later, it does no harm


class Leadership:
    """Of one service, by one daemon.

    Args:
        journal: Of the service.
        holder: Who asks, like nobody else.
        clock: UTC.
        lease_s: So long after its last sign of life another one may take over.

    Attributes:
        token: Grows with every new leader; 0 while another one leads.
    """

    def __init__(self, journal: Journal, holder: str, clock: Callable[[], datetime], lease_s: float) -> None:
        self._journal, self._holder, self._clock, self._lease_s = journal, holder, clock, lease_s
        self._renewed: datetime | None = None
        self.token = 0

    def take(self) -> int:
        """Become the leader, or stay it; the token."""
        self.token = self._ask() or 0
        return self.token

    def keep(self) -> None:
        """Renew the lease before it runs out; called between turns, as often as one likes."""
        since_s = (self._clock() - self._renewed).total_seconds() if self._renewed else 0.0
        if not 0 <= since_s < self._lease_s / 3:
            self._ask()

    def check(self) -> None:
        """Renew it amid something that takes long.

        Raises:
            LeaseLostError: Another one leads, or has led.
        """
        if self._ask() != self.token:
            raise LeaseLostError("another daemon leads now", "this one has nothing more to say")

    def leave(self) -> None:
        """Let another one lead at once."""
        if self.token:
            self._journal.release(self.token)

    @contextmanager
    def during(self, called: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """Renew it while something takes long; yields what says that it had better stop.

        Args:
            called: Whether somebody wants it to stop.
        """
        over, lost = threading.Event(), threading.Event()

        def renew() -> None:
            while not over.wait(self._lease_s / 3):
                with suppress(MachineError):  # the record is locked just now
                    if self._ask() != self.token:
                        lost.set()

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield lambda: lost.is_set() or called()
        finally:
            over.set()
            thread.join(_END_S)

    def _ask(self) -> int | None:
        self._renewed = self._clock()
        return self._journal.acquire(self._holder, self._renewed.timestamp(), self._lease_s)
