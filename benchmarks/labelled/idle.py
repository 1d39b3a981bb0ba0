"""What is none of the resources: an honest diagnosis says that it does not know."""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from autotuner.types import Config, Metrics
from labelled.part import Part


class Odd(Part):
    """`amount` calls of something that waits, or that no ceiling describes."""

    def __init__(self, device: str, amount: int, what: str = "sleep") -> None:
        super().__init__(device, amount)
        self._what = what

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Whatever the kind holds."""
        with KINDS[self._what](self.device) as call:
            self._call = call
            yield

    def run(self, config: Config) -> Metrics:
        """Call."""
        for _ in range(self.amount):
            self._call()
        return {}


Call = Callable[[], object]


@contextmanager
def _sleep(device: str) -> Iterator[Call]:
    yield lambda: time.sleep(1e-3)


@contextmanager
def _lock(device: str) -> Iterator[Call]:
    """Another thread holds the lock most of the time."""
    lock, leaving = threading.Lock(), threading.Event()

    def hold() -> None:
        while not leaving.is_set():
            with lock:
                time.sleep(2e-3)
            time.sleep(1e-4)

    def take() -> None:
        with lock:
            pass
        time.sleep(2e-4)  # the holder comes first again

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    yield take
    leaving.set()
    thread.join()


@contextmanager
def _command(device: str) -> Iterator[Call]:
    yield lambda: subprocess.run(["true"], check=True)


@contextmanager
def _sync_to_disk(device: str) -> Iterator[Call]:
    with tempfile.TemporaryFile() as file:

        def write() -> None:
            file.seek(0)
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            time.sleep(1e-3)  # a disk's, where the file system only pretends

        yield write


def _on(make: Callable[[Any, str], Call]) -> Callable[[str], Any]:
    @contextmanager
    def opened(device: str) -> Iterator[Call]:
        import torch

        yield make(torch, device)

    return opened


def _sorting(torch: Any, device: str) -> Call:
    x = torch.rand(2**17, device=device)
    return lambda: torch.sort(x)


def _unique(torch: Any, device: str) -> Call:
    x = torch.randint(0, 2**14, (2**17,), device=device)
    return lambda: torch.unique(x)


def _search(torch: Any, device: str) -> Call:
    x, keys = torch.rand(2**20, device=device).sort().values, torch.rand(2**16, device=device)
    return lambda: torch.searchsorted(x, keys)


def _scan(torch: Any, device: str) -> Call:
    """Every element needs the one before it."""
    x = torch.rand(2**18, device=device)
    return lambda: torch.logcumsumexp(x, 0)


KINDS: Mapping[str, Callable[[str], Any]] = {
    "sleep": _sleep,
    "lock": _lock,
    "command": _command,
    "sync_to_disk": _sync_to_disk,
    "sorting": _on(_sorting),
    "unique": _on(_unique),
    "search": _on(_search),
    "scan": _on(_scan),
}
