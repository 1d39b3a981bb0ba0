"""What the user's loader does between steps: by usual names of parameters, and by the processes below this one."""

from collections.abc import Iterator
from contextlib import suppress

import psutil

from autotuner.types import Config

WORKERS = ("num_workers", "workers", "dataloader_num_workers")


def loader_workers(config: Config) -> int:
    """Processes that load; 0 when no parameter has a usual name for it."""
    return next((value for name in WORKERS if type(value := config.get(name)) is int), 0)


class Children:
    """The processes below this one that were started since this was made: the user's loader, as a rule.

    They prepare batches ahead for as long as they may. Stopped between two windows, they neither take the cores from
    somebody else's window nor fill a queue from which the next one would look faster than it is.
    """

    def __init__(self) -> None:
        self._others = set(_below())
        self._stopped: list[psutil.Process] = []

    def stop(self) -> None:
        """Let none of them run."""
        for child in _below():
            if child not in self._others and child not in self._stopped:
                with suppress(psutil.Error):  # it has just ended
                    child.suspend()
                    self._stopped.append(child)

    def go_on(self) -> None:
        """Let them run again."""
        while self._stopped:
            with suppress(psutil.Error):
                self._stopped.pop().resume()


def _below() -> Iterator[psutil.Process]:
    yield from psutil.Process().children(recursive=True)
