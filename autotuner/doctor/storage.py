"""Where things are kept: folders that must be written, disks that must have room, and the database's library."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from autotuner.doctor.finding import Finding, Level
from autotuner.metrics import format_quantity

LITTLE_BYTES, NOTHING_BYTES = 2**31, 2**26
_WAL_RESET_FROM, _WAL_RESET_MENDED = (3, 7, 0), (3, 51, 3)


def sqlite(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> Iterator[Finding]:
    """The WAL-reset bug (https://www.sqlite.org/wal.html, "The WAL-Reset Bug"), and why the record does not have it."""
    if _WAL_RESET_FROM <= version < _WAL_RESET_MENDED:
        text = (
            f"SQLite {'.'.join(map(str, version))} can damage a database in WAL mode that two processes write; "
            "the record is none: it keeps a rollback journal"
        )
        yield Finding(Level.INFO, "sqlite", text)


def writable(folder: Path, what: str, level: Level) -> Iterator[Finding]:
    """A folder in which nothing can be written; one that is not there yet, whose parents allow no folder."""
    existing = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        text = f"{what} cannot be written in {folder}: {error.strerror}"
        yield Finding(level, "unwritable", text, f"chown or chmod {existing}, or name another folder")


def room(folder: Path, what: str, level: Level, free_bytes: int | None = None) -> Iterator[Finding]:
    """A disk that is nearly full.

    Args:
        folder: On the disk.
        what: It is needed for.
        level: When hardly anything is left.
        free_bytes: Instead of asking.
    """
    free = shutil.disk_usage(_existing(folder)).free if free_bytes is None else free_bytes
    if free < LITTLE_BYTES:
        text = f"{format_quantity(free, 'bytes')} are free for {what} in {folder}"
        worst = level if free < NOTHING_BYTES else Level.ADVICE
        yield Finding(worst, "room", text, "delete what is not needed, or name another disk")


def _existing(folder: Path) -> Path:
    """The nearest that this user can see; `Path.exists` raises where a folder above may not be searched."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))  # noqa: PTH110


def model_cache(environ: Mapping[str, str]) -> Path:
    """Where transformers keeps what it downloads (huggingface_hub's HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)."""
    home = environ.get("HF_HOME") or os.path.join(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")  # noqa: PTH118
    return Path(environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
