"""The base revision, made ready to be measured: its file, its code, and processes that find them."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

from autotuner.bench.git import Repository, checked_out
from autotuner.errors import UsageError
from autotuner.plugins import Executor, load_class
from autotuner.reading import read_spec
from autotuner.spec.model import EquivalenceRules, StudySpec

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared.

    Attributes:
        spec: What it runs.
        folder: Its working directory.
        python_path: What PYTHONPATH must be for its processes; None: what it is.
    """

    spec: StudySpec
    folder: Path
    python_path: str | None = None

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be where its paths and its code are found."""
        with chdir(self.folder), ExitStack() as stack:
            if self.python_path is not None:
                stack.enter_context(_variable("PYTHONPATH", self.python_path))
            yield


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def today(spec: StudySpec) -> Side:
    """What is here now, in fresh processes. Outputs are not compared: a revision may change them on purpose."""
    update: dict[str, object] = {"equivalence": EquivalenceRules(guard=False)}
    if spec.executor.kind == "inline":  # nor can two revisions of one module live in one process
        update["executor"] = load_class("executors", "process", Executor).model_validate({"kind": "process"})
    return Side(spec.model_copy(update=update), Path.cwd())


@contextmanager
def base_side(repository: Repository, path: Path, commit: str, now: Side, overrides: Sequence[str]) -> Iterator[Side]:
    """The base revision's side, in a worktree that goes with it.

    Its file says what runs; how it is measured is today's: protocol, objectives, limits, probes.

    Raises:
        UsageError: It cannot be compared: no such file there, it is wrong there, or nothing that it runs is there.
    """
    if now.spec.executor.kind != "process":  # others start their processes where they please
        raise UsageError(f"the executor {now.spec.executor.kind} cannot run another revision's code")
    with checked_out(repository, commit) as tree:
        side = Side(now.spec, _moved(now.folder, repository.top, tree) or tree, _python_path(repository.top, tree))
        there = tree / path.resolve().relative_to(repository.top)
        if not there.is_file():
            raise UsageError(f"{path} does not exist at {commit[:12]}")
        with side.entered():
            found = read_spec(there, overrides)
            _check_place(found, now.spec, tree, path)
        ours = ("executor", "probes", "protocol", "objectives", "limits", "equivalence", "budget", "seed", "name")
        spec = found.model_copy(update={name: getattr(now.spec, name) for name in ours})
        yield Side(spec, side.folder, side.python_path)


def _check_place(found: StudySpec, now: StudySpec, tree: Path, path: Path) -> None:
    """Whether the two can differ at all.

    Raises:
        UsageError: They run the same code with the same options.
    """
    inside = any(source.resolve().is_relative_to(tree) for source in found.workload.sources())
    if not inside and found.workload == now.workload and found.baseline == now.baseline:
        raise UsageError(f"what {path} runs does not lie in its repository, and the file says the same at the base")


def _moved(folder: Path, top: Path, tree: Path) -> Path | None:
    """The folder of the worktree that stands for one of the checkout; None when there is none."""
    resolved = folder.resolve()
    moved = tree / resolved.relative_to(top) if resolved.is_relative_to(top) else None
    return moved if moved is not None and moved.is_dir() else None


def _python_path(top: Path, tree: Path) -> str:
    """Where the base's processes look for modules first: its own copy of whatever is imported from the checkout here.

    Also what is installed as editable; but never this program, which must be one on both sides of a pipe.
    """
    places = [*map(Path, filter(None, sys.path)), *_editable()]
    moved = [_moved(place, top, tree) for place in places]
    own = [place for place in moved if place is not None and not (place / _PACKAGE.name).is_dir()]
    before = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([*dict.fromkeys(map(str, own)), *([before] if before else [])])


def _editable() -> Iterator[Path]:
    """Folders of packages that setuptools installed as editable by a finder and not by a path."""
    for finder in sys.meta_path:
        module = sys.modules.get(getattr(finder, "__module__", ""))
        mapping = getattr(module, "MAPPING", None)
        if isinstance(mapping, dict):
            yield from (Path(place).parent for place in mapping.values())
