"""Where a service runs, as the journal knows it: what changed there, and what was rejected there."""

from collections.abc import Mapping

from autotuner.daemon.alerts import ALERT, told_of
from autotuner.daemon.hooks import HookError
from autotuner.daemon.leading import Leadership
from autotuner.daemon.world import World
from autotuner.monitor.environment import environment_key
from autotuner.store.journal import Journal
from autotuner.types import Phase

ENVIRONMENT, QUARANTINE = "environment", "quarantine"  # kinds of entries


class Surroundings:
    """Of one service.

    Args:
        journal: Of the service.
        lease: Of the daemon.
        world: Whose environment it is.
    """

    def __init__(self, journal: Journal, lease: Leadership, world: World) -> None:
        self._journal, self._lease, self._world = journal, lease, world
        self._told = False  # that it cannot be told

    def known(self) -> Mapping[str, str] | None:
        """For which the service was tuned, or in which it was met; a new driver comes with a reboot."""
        return next((dict(entry.payload) for entry in self._journal.entries(kinds=(ENVIRONMENT,), last=1)), None)

    def look(self, phase: Phase) -> Mapping[str, str] | None:
        """The environment now; None when its program fails, which is neither a change nor another machine.

        Args:
            phase: Of the service, for who has to know that it fails.
        """
        try:
            with self._lease.during(lambda: False):
                found = self._world.environment()
        except HookError as error:
            if not self._told:
                alert = told_of(self._journal.service, phase, str(error))
                self._journal.append(self._lease.token, ALERT, alert, self._world.clock())
                self._world.alert()
            self._told = True
            return None
        self._told = False
        return found

    def where(self) -> str:
        """Where the cycle takes place, as a key; empty when nobody could ever tell."""
        known = self.known()
        return "" if known is None else environment_key(known)

    def is_rejected(self, bundle: str) -> bool:
        """Whether it was rejected here; it may be good with another driver, version or model."""
        entries = self._journal.entries(kinds=(QUARANTINE,))
        places = {entry.payload["where"] for entry in entries if entry.payload["bundle"] == bundle}
        return not places.isdisjoint({self.where(), ""})
