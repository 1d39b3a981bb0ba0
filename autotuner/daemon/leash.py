"""A program of the user's on a leash: in a group of its own, for so long and no longer, and it dies with us.

Of what it prints, the beginning and the end are kept: a program that never stops printing costs no memory.
"""

import errno
import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from signal import SIGKILL

END_BYTES = 1 << 16  # of what a program prints, so much is kept of the beginning, and so much of the end
_PART_BYTES = 1 << 16
# Runs a program with its arguments. The other end of stdin is ours alone: when we die, all of the program's group dies
# too, lest it puts something old in place after the next daemon has put something newer there.
_LEASHED = """
exec 3<&0
(read -r _ <&3; kill -9 0) & leash=$!
"$@" </dev/null 3<&-
status=$?
kill -9 $leash
exit $status
"""


def run_leashed(argv: Sequence[str], limit_s: float) -> tuple[int, str]:
    """Run a program and return how it ended and what it printed, on stdout and stderr together; no shell looks at it.

    It is over when it has ended and nobody holds its stdout any more: what it leaves running then goes on.

    Args:
        argv: The program and its arguments.
        limit_s: When it takes longer, or we die, all of its group dies.

    Returns:
        Its exit status (128 and the signal's number, where one ended it), and what it printed. Where that is longer
        than twice `END_BYTES`, a line of its own says in the middle how much is left out: such a text is no JSON.

    Raises:
        OSError, ValueError: It cannot be started: there is none, no more processes, words that are too long, or hold
            a NUL.
        TimeoutError: It did not end in time.
    """
    ends_s = time.monotonic() + limit_s
    if shutil.which(argv[0]) is None:
        raise FileNotFoundError(errno.ENOENT, "No such file that may be run")
    with _leash() as end:
        process = subprocess.Popen(
            ["sh", "-c", _LEASHED, argv[0], *argv], stdin=end, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        with process:
            try:
                printed = _ends(process.stdout.fileno(), ends_s)  # type: ignore[union-attr]  # is a pipe
                return process.wait(max(0.0, ends_s - time.monotonic())), printed.decode(errors="replace")
            except (TimeoutError, subprocess.TimeoutExpired):
                os.killpg(process.pid, SIGKILL)
                raise TimeoutError(errno.ETIMEDOUT, f"did not end within {limit_s:.3g} s") from None


def _ends(pipe: int, ends_s: float) -> bytes:
    """All that comes through a pipe until nobody holds its other end; its beginning and its end, where it is long.

    Raises:
        TimeoutError: Somebody holds it still.
    """
    kept, left_out = bytearray(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if (left_s := ends_s - time.monotonic()) <= 0:
                raise TimeoutError
            if not selector.select(left_s):
                continue
            if not (part := os.read(pipe, _PART_BYTES)):
                break
            kept += part
            if (more := len(kept) - 2 * END_BYTES) > 0:
                del kept[END_BYTES : END_BYTES + more]
                left_out += more
    if left_out:
        kept[END_BYTES:END_BYTES] = f"\n... {left_out} bytes are left out ...\n".encode()
    return bytes(kept)


@contextmanager
def _leash() -> Iterator[int]:
    """Yields an end of a pipe that reaches its end when we do, however that is."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)
