"""The little that we ask of git: where a file lies, what is checked out, and another revision beside it for a while."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import MachineError, UsageError

_BRANCH_VARIABLES = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME")
_GUARD_S = 30.0
# Reads until whoever holds the other end of its stdin lets go of it, also by dying; then nothing of the tree stays.
_GUARD = """
read -r _
for _ in 1 2 3 4 5; do
    git -C "$1" worktree remove --force "$2/$3"
    rm -rf "$2" && break
    sleep 0.2
done
git -C "$1" worktree prune
"""


@dataclass(frozen=True, slots=True)
class Repository:
    """A checkout.

    Attributes:
        top: Its uppermost folder.
    """

    top: Path

    @property
    def revision(self) -> str:
        """The commit that is checked out, twelve digits, with "+" when tracked files differ; empty before the first."""
        commit = self._says("rev-parse", "--verify", "--quiet", "--short=12", "HEAD")
        changed = bool(commit) and bool(self._says("status", "--porcelain", "--untracked-files=no"))
        return commit + "+" * changed

    @property
    def branch(self) -> str:
        """The branch; where a commit is checked out as CI does it, what CI calls it; "detached" where it does not."""
        name = self._says("symbolic-ref", "--quiet", "--short", "HEAD")
        return name or next(filter(None, map(os.environ.get, _BRANCH_VARIABLES)), "detached")

    def commit(self, revision: str) -> str:
        """The full hash of what a person calls a revision.

        Raises:
            UsageError: There is none.
        """
        found = self._says("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if not found:
            hint = "a shallow clone lacks it: git fetch, or fetch-depth: 0 in a workflow"
            raise UsageError(f"--base: there is no revision {revision!r} here", hint)
        return found.splitlines()[-1]  # older versions of git print the option too

    def _says(self, *words: str) -> str:
        return _git(self.top, *words).stdout.strip()


def repository_of(path: Path) -> Repository | None:
    """The repository in which a file lies; None for none, or when git is not installed."""
    done = _git(path.resolve().parent, "rev-parse", "--show-toplevel")
    return Repository(Path(done.stdout.rstrip("\n")).resolve()) if done.returncode == 0 else None


def complaint(path: Path) -> str:
    """Why git finds no repository there, in its own words."""
    said = _git(path.resolve().parent, "rev-parse", "--show-toplevel").stderr.strip().splitlines()
    return said[0].removeprefix("fatal: ") if said else "git says nothing"


@contextmanager
def checked_out(repository: Repository, commit: str) -> Iterator[Path]:
    """A revision in a folder of its own, gone afterwards: also after an interruption, or when this process is killed.

    A guard process waits for the end of this one and removes the folder; it belongs to no terminal, so that Ctrl-C
    does not reach it.

    Raises:
        MachineError: git cannot check it out.
    """
    folder = Path(tempfile.mkdtemp(prefix="autotune-bench-")).resolve()
    with _guarded(repository.top, folder) as leash:
        tree = folder / repository.top.name
        words = ["-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--quiet", "--detach", str(tree), commit]
        done = _git(repository.top, *words, holds=(leash,))  # should we die, the guard waits for it as well
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["git worktree failed"])[-1]
            raise MachineError(f"{commit[:12]} cannot be checked out: {said}")
        yield tree


@contextmanager
def _guarded(top: Path, folder: Path) -> Iterator[int]:
    """Yields what keeps the guard from acting: a descriptor that has to be closed everywhere."""
    ours, theirs = None, None
    try:
        theirs, ours = os.pipe()  # no child of ours inherits our end: it closes when we end, however that is
        with subprocess.Popen(
            ["sh", "-c", _GUARD, "autotune-bench-guard", str(top), str(folder), top.name], stdin=theirs, cwd="/",
            env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        ) as guard:  # fmt: skip
            os.close(theirs)
            theirs = None
            try:
                yield ours
            finally:
                os.close(ours)
                ours = None
                with suppress(subprocess.TimeoutExpired):
                    guard.wait(_GUARD_S)
    finally:
        for end in (ours, theirs):
            if end is not None:
                os.close(end)
        shutil.rmtree(folder, ignore_errors=True)


def _git(folder: Path, *words: str, holds: Sequence[int] = ()) -> "subprocess.CompletedProcess[str]":
    argv = ["git", "-C", str(folder), *words]
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=_environment(),
            check=False, pass_fds=holds,
        )  # fmt: skip
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, "", "git is not installed")


def _environment() -> Mapping[str, str]:
    """Ours without what a hook of git sets: it would speak of another repository, or of another index."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")
    }
