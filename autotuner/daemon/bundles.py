"""Bundles by the hash of their files: what was good is kept as it was, byte by byte, and looked at again before use."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from autotuner.errors import MachineError

_DIGITS = 16


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
            if not (self._folder / name).exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                beside = Path(tempfile.mkdtemp(dir=self._folder, prefix=f".{name}."))
                shutil.copytree(source, beside / "bundle")
                _sync(beside / "bundle")
                (beside / "bundle").rename(self._folder / name)
                beside.rmdir()
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
            raise MachineError(f"the bundle {name} is not in {self._folder}", "put it back, or clear the service")
        if hash_of(path) != name:
            raise MachineError(f"the files of {path} were changed", "put them back: only what was proven is used")
        return path

    def forget(self, needed: Collection[str]) -> None:
        """Drop all that nobody needs any more."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name not in needed:
                    shutil.rmtree(path, ignore_errors=True)


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
