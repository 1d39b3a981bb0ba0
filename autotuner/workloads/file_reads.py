"""What one reader gets of a file: from the disk, and from the kernel's page cache."""

import ctypes
import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import IO

from autotuner.errors import UnsupportedError
from autotuner.plugins import Step
from autotuner.types import Config
from autotuner.workloads.operation import Run

CHUNK_BYTES = 2**23


@contextmanager
def disk_read(folder: str | None, file_bytes: int) -> Iterator[Run]:
    """Reads of what the kernel has been told to forget, one large piece after the other.

    Told is not done: a file system in memory forgets nothing, and the cache of a disk, or of the host below a virtual
    one, is out of reach. The first is seen and refused; of the other nobody can know from inside.

    Raises:
        UnsupportedError: The file cannot be read cold here.
    """
    with _file(folder, file_bytes) as descriptor:
        os.fsync(descriptor)  # only pages that are on the disk can be forgotten
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if pages_in_memory(descriptor, file_bytes):
            raise UnsupportedError("the file stays in memory: no disk can be read here, try another folder")
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # nothing ahead: a step reads what it counts
        chunk, places = bytearray(CHUNK_BYTES), cycle(_places(file_bytes))

        def step(config: Config) -> Step:
            place = next(places)
            count = os.preadv(descriptor, [chunk], place)
            os.posix_fadvise(descriptor, place, CHUNK_BYTES, os.POSIX_FADV_DONTNEED)  # cold for the next round
            return Step(work={"bytes": float(count)})

        for _ in _places(file_bytes):  # a round for nothing: a device may still have what was just written
            step({})
        yield step


@contextmanager
def page_cache_read(folder: str | None, file_bytes: int) -> Iterator[Run]:
    """The same reads of a file that has just been written, and so is in memory."""
    with _file(folder, file_bytes) as descriptor:
        chunk, places = bytearray(CHUNK_BYTES), cycle(_places(file_bytes))

        def step(config: Config) -> Step:
            return Step(work={"bytes": float(os.preadv(descriptor, [chunk], next(places)))})

        yield step


@contextmanager
def _file(folder: str | None, file_bytes: int) -> Iterator[int]:
    """A file without a name, of random bytes that no file system can compress.

    Raises:
        UnsupportedError: There is no room, or no permission.
    """
    with ExitStack() as resources:
        try:
            file = resources.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
            _fill(file, file_bytes)
        except OSError as error:
            where = folder or tempfile.gettempdir()
            raise UnsupportedError(f"no file of {file_bytes >> 20} MiB in {where}: {error.strerror}") from error
        yield file.fileno()


def _fill(file: IO[bytes], file_bytes: int) -> None:
    block = os.urandom(CHUNK_BYTES)
    for _ in range(file_bytes // CHUNK_BYTES):
        if file.write(block) < CHUNK_BYTES:  # what did not fit; the next one would say so
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _places(file_bytes: int) -> range:
    return range(0, file_bytes - CHUNK_BYTES + 1, CHUNK_BYTES)


def pages_in_memory(descriptor: int, file_bytes: int) -> int:
    """How many of a file's pages are in memory now; all of them where the kernel does not tell. Reads none (mincore).

    preadv2 with RWF_NOWAIT would be simpler, but it begins to read, and a fast disk has answered before it looks.
    """
    pages = (ctypes.c_ubyte * (file_bytes // mmap.PAGESIZE))()
    with mmap.mmap(descriptor, file_bytes) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), file_bytes, pages)
        del first  # or the mapping could not be closed
    return len(pages) if failed else sum(page & 1 for page in pages)
