"""Bundles by the hash of their files: what was good is kept as it was, byte by byte, and looked at again before use."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from autotuner.errors import MachineError

_DIGITS = 16
_YOUNG_S = 60.0  # what was made or asked for since may be what another daemon is just keeping
_PUT_BACK = "put them back, or say clear in the alarm: then another good one serves"


class Bundles:
    """A folder of bundles.

    Args:
        folder: Is made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, source: Path) -> str:
        """Copy a folder's files, for good; their hash, by which the bundle is named from now on.

        Raises:
            MachineError: They cannot be read or written.
        """
        try:
            name = hash_of(source)
            with suppress(FileNotFoundError):
                os.utime(self._folder / name)  # it is needed: nobody who tidies up just now drops it
            if self.damage(name):
                self._folder.mkdir(parents=True, exist_ok=True)
                for left in self._folder.glob(f".{name}.*"):  # by a daemon that died here
                    _drop_old(left)
                beside = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{name}."))
                shutil.copytree(source, beside / "bundle")
                os.utime(beside / "bundle")  # not the time of its source
                _sync(beside / "bundle")
                if (self._folder / name).exists():  # damaged
                    (self._folder / name).rename(beside / "damaged")
                (beside / "bundle").rename(self._folder / name)
                shutil.rmtree(beside, ignore_errors=True)
                _sync_folder(self._folder)
        except OSError as error:
            raise MachineError(f"cannot keep {source}: {error.strerror or error}", "make room") from error
        return name

    def path(self, name: str) -> Path:
        """Where its files lie.

        Raises:
            MachineError: It is not there, or no longer what it was.
        """
        path = self._folder / name
        if not path.is_dir():
            raise MachineError(f"the bundle {name} is not in {self._folder}", _PUT_BACK)
        try:
            found = hash_of(path)
        except OSError as error:
            raise MachineError(f"the files of {path} cannot be read: {error.strerror or error}", _PUT_BACK) from error
        if found != name:
            raise MachineError(f"the files of {path} were changed", _PUT_BACK)
        return path

    def damage(self, name: str) -> str:
        """Why a bundle cannot be used; empty when it can."""
        try:
            self.path(name)
        except MachineError as error:
            return error.message
        return ""

    def forget(self, needed: Collection[str]) -> None:
        """Drop all that nobody needs any more; what is younger than a minute another time."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in needed:
                    _drop_old(path)


def _drop_old(folder: Path) -> None:
    with suppress(FileNotFoundError):  # another one has dropped it
        if abs(time.time() - folder.stat().st_mtime) >= _YOUNG_S:
            shutil.rmtree(folder, ignore_errors=True)


def hash_of(folder: Path) -> str:
    """Of the names and bytes of all its files; 16 hexadecimal digits of SHA-256.

    Raises:
        OSError: Something cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix().encode()
        digest.update(f"{len(name)} {len(content)} ".encode() + name + content)
    return digest.hexdigest()[:_DIGITS]


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
