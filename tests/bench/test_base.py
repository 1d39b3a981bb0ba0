"""What makes the base: git, a worktree that never stays, its file, and where its processes look for modules."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotuner.bench.base import base_side, today
from autotuner.bench.git import checked_out, repository_of
from autotuner.errors import MachineError, UsageError
from autotuner.reading import read_spec

STUDY = """
workload: {kind: python, object: "OBJECT", imports: [], device: cpu}
executor: {kind: inline}
parameters:
  count: {int: [1, 2], default: DEFAULT}
objectives:
  - maximize: throughput_samples_per_s
probes: []
"""
LOOP = "def loop(config):\n    while True:\n        yield {'samples': 1}\n"


def git(folder, *words):
    argv = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com", *words]
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def study(target="loop.py:loop", default=1):
    return STUDY.replace("OBJECT", target).replace("DEFAULT", str(default))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A repository whose working directory is a folder below its top."""
    place = tmp_path / "project" / "below"
    place.mkdir(parents=True)
    git(place.parent, "init", "-q", "-b", "main")
    (place / "bench.yaml").write_text(study())
    (place / "loop.py").write_text(LOOP)
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "one")
    monkeypatch.chdir(place)
    return place


def worktrees(folder):
    return git(folder, "worktree", "list", "--porcelain").count("worktree ") - 1


def made(folder, name="bench.yaml"):
    path, repository = folder / name, repository_of(folder / name)
    return base_side(repository, path, repository.commit("HEAD"), today(read_spec(path)), ())


def test_the_base_stands_in_its_worktree_as_we_stand_here(folder):
    with made(folder) as base:
        assert base.folder.name == "below"
        assert base.folder != folder
        assert (base.folder / "loop.py").read_text() == LOOP
        assert worktrees(folder) == 1
        with base.entered():
            assert base.spec.workload.sources() == (base.folder / "loop.py",)
        assert Path.cwd() == folder
        assert base.spec.executor.kind == "process"
        assert not base.spec.equivalence.guard
    assert worktrees(folder) == 0
    assert not base.folder.parent.exists()


def test_what_is_imported_from_the_checkout_is_imported_from_the_worktree(folder, monkeypatch):
    package = folder.parent / "src"
    package.mkdir()
    (package / "part.py").write_text("")
    git(folder, "add", "-A", ":/")
    git(folder, "commit", "-q", "-m", "two")
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    with made(folder) as base:
        places = base.python_path.split(os.pathsep)
        assert places[0] == str(base.folder.parent / "src")
        assert places[-1] == "elsewhere"
        with base.entered():
            assert os.environ["PYTHONPATH"] == base.python_path
        assert os.environ["PYTHONPATH"] == "elsewhere"
    assert str(package) in sys.path


def test_a_file_that_differs_makes_a_difference_whatever_it_runs(folder, tmp_path):
    (tmp_path / "elsewhere.py").write_text(LOOP)
    (folder / "bench.yaml").write_text(study(f"{tmp_path}/elsewhere.py:loop"))
    git(folder, "commit", "-q", "-a", "-m", "two")
    with pytest.raises(UsageError, match="does not lie in its repository"), made(folder):
        pass
    (folder / "bench.yaml").write_text(study(f"{tmp_path}/elsewhere.py:loop", default=2))
    with made(folder) as base:
        assert dict(base.spec.baseline) == {"count": 1}
    assert worktrees(folder) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_the_worktree_goes_however_it_ends(folder, error):
    repository, trees = repository_of(folder / "x"), []

    def work():
        with checked_out(repository, repository.commit("HEAD")) as tree:
            trees.append(tree)
            (tree / "below" / "left").mkdir()
            raise error

    with pytest.raises(error):
        work()
    assert worktrees(folder) == 0
    assert not trees[0].parent.exists()


def test_a_file_that_is_not_there_yet_cannot_be_compared(folder):
    (folder / "new.yaml").write_text(study())
    with pytest.raises(UsageError, match=r"new.yaml does not exist at [0-9a-f]{12}"), made(folder, "new.yaml"):
        pass
    assert worktrees(folder) == 0


def test_what_cannot_be_checked_out_leaves_nothing(folder):
    before = set(Path(os.environ.get("TMPDIR", "/tmp")).glob("autotune-bench-*"))
    with pytest.raises(MachineError, match="cannot be checked out"), checked_out(repository_of(folder / "x"), "0" * 40):
        pass
    assert set(Path(os.environ.get("TMPDIR", "/tmp")).glob("autotune-bench-*")) <= before


def test_a_revision_says_whether_files_were_changed(folder, monkeypatch):
    repository = repository_of(folder / "bench.yaml")
    assert repository.revision == git(folder, "rev-parse", "--short=12", "HEAD")
    (folder / "new").write_text("")
    assert not repository.revision.endswith("+")
    (folder / "loop.py").write_text("# changed")
    assert repository.revision.endswith("+")
    assert repository.branch == "main"
    git(folder, "checkout", "-q", "--detach")
    for name in ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BRANCH_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert repository.branch == "detached"
    monkeypatch.setenv("GITHUB_REF_NAME", "feature")
    assert repository.branch == "feature"


def test_a_hook_of_git_does_not_lead_us_astray(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert repository_of(folder / "bench.yaml").top == folder.parent
    assert repository_of(tmp_path / "x") is None
