"""Ctrl-C and SIGTERM: both end a command in the same way, and none is lost."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_AGAIN_S = 0.01  # by then the callback that dropped it has returned; if not, it comes again


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def insistent() -> Iterator[None]:
    """Send an interruption again that the interpreter has dropped.

    A KeyboardInterrupt that happens to be raised inside a destructor or a weak reference's callback, of an import
    for example, is printed ("Exception ignored in ...") and forgotten: the command would go on for hours.
    """
    before = sys.unraisablehook

    def hook(dropped: "UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        main = threading.main_thread().ident
        if main is not None:
            again = threading.Timer(_AGAIN_S, signal.pthread_kill, (main, signal.SIGINT))
            again.daemon = True
            again.start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
