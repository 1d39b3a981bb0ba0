"""Whether the daemon lives: when its last turn ended, whether anything moves since, and whether turns only fail."""

import time
from collections.abc import Callable

from autotuner.daemon.spec import ServiceSpec

_ANSWER_S = 5.0  # for one question to the user's Prometheus


class Pulse:
    """Of one daemon.

    Args:
        patience_s: Longer without a sign is too long, but for a study; and so are turns that failed for longer.
        clock: Monotonic seconds.

    Attributes:
        error: Of the newest turn, empty for none.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s, self._clock, self.error = patience_s, clock, ""
        self._turned_s = self._moved_s = self._well_s = clock()

    def beat(self, error: str = "") -> None:
        """A turn is over, or has failed."""
        self._turned_s = self._moved_s = self._clock()
        self._well_s = self._well_s if error else self._turned_s
        self.error = error

    def move(self) -> None:
        """Within a turn something has come to its end."""
        self._moved_s = self._clock()

    @property
    def age_s(self) -> float:
        """Since the last turn."""
        return self._clock() - self._turned_s

    @property
    def hangs(self) -> bool:
        """Whether nothing moves."""
        return self._clock() - self._moved_s > self.patience_s

    @property
    def fails(self) -> bool:
        """Whether turns have only failed for too long."""
        return bool(self.error) and self._clock() - self._well_s > self.patience_s


def patience_of(spec: ServiceSpec) -> float:
    """Seconds after which a turn without end is a failure: three times what one may take, a study left aside.

    That is its pause, the hooks' deadline, a canary's window, and for every signal the time in which Prometheus may
    answer for both arms, with the age of the number. To that comes the longest that an episode of load may take: each
    that ends is a sign of life.
    """
    questions = 4 * len(spec.signals)
    turn_s = spec.watch.interval + spec.hooks.deadline + spec.canary.window + questions * _ANSWER_S
    return 3 * turn_s + (spec.load.longest_s() if spec.load else 0.0)
