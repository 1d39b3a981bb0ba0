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
    """SIGTERM ends a command as Ctrl-C does, and the next one, while the command is leaving, ends it at once.

    Whatever comes out after an interruption is one: typer ends silently, extension modules wrap it into errors of
    their own, pydantic's while it builds a class for example. One that was ignored from the start (a shell's
    background job) stays so.

    Raises:
        KeyboardInterrupt: Somebody interrupted.
    """
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
        if asked:
            raise KeyboardInterrupt
    except Exception as error:
        if asked:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number in heard:
            # Once leaving, also from a scope inside, no exception may come out of the interpreter's own last acts.
            ended = asked or signal.getsignal(number) is not interrupt
            signal.signal(number, signal.SIG_DFL if ended else before[number])


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
