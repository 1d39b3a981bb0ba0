"""The lock that gives a GPU to one study at a time, whoever runs it."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotuner.errors import MachineError
from autotuner.executors import devices

NOBODY = 65534


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of locks, in a folder that every user may enter; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", root)
        yield Path(root) / "autotune-locks"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_nobody(check: Callable[[], bool]) -> bool:
    """What a check says in a process of another user."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def can_lock() -> bool:
    with devices._lock_file("x") as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def is_refused() -> bool:
    try:
        return not can_lock()
    except MachineError as error:
        return "cannot open" in str(error)


def test_everybody_may_lock_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with devices._lock_file("x") as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            assert (mode(folder), mode(folder / "gpu-x.lock")) == (0o1777, 0o666)
            assert not as_nobody(can_lock)
    finally:
        os.umask(before)
    assert as_nobody(can_lock)


def test_lock_file_that_may_only_be_read_is_enough(folder: Path) -> None:
    assert can_lock()
    (folder / "gpu-x.lock").chmod(0o644)
    assert as_nobody(can_lock)


def test_lock_file_that_may_not_be_read_is_the_machines_fault(folder: Path) -> None:
    assert can_lock()
    (folder / "gpu-x.lock").chmod(0o600)
    assert as_nobody(is_refused)


def test_folder_that_is_none_is_the_machines_fault(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(MachineError, match="cannot open"):
        can_lock()


def test_lock_file_is_not_followed_elsewhere(folder: Path) -> None:
    assert can_lock()
    (folder / "gpu-x.lock").unlink()
    (folder / "gpu-x.lock").symlink_to(folder / "elsewhere")
    with pytest.raises(MachineError, match="cannot open"):
        can_lock()
    assert not (folder / "elsewhere").exists()
