"""Guards the design page: layers, doors, plugins, sizes, import time, and nothing of a developer's machine."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotuner import plugins

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "autotuner"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(), str(path)) for path in SOURCES}
GROUPS = {
    "workloads": plugins.Workload, "probes": plugins.Probe, "executors": plugins.Executor,
    "exporters": plugins.Exporter,
}  # fmt: skip
ENTRIES = [entry for group in GROUPS for entry in plugins.names(group).values()]
LONGEST_FILE_LINES, LONGEST_FUNCTION_LINES, LONGEST_LOOP_LINES = 300, 40, 100

# Who may import a library from outside; a path or a folder. An empty list is a door that nobody has built yet.
DOORS = {
    "optuna": ["adjust", "exporters/optuna_storage.py"],
    "sqlalchemy": ["store"],
    "alembic": ["store"],
    "opentelemetry": ["telemetry"],
    "grpc": ["telemetry"],
    "prometheus_client": ["telemetry", "daemon/exposition.py"],
    "pynvml": ["monitor/gpu"],
    "PIL": ["workloads"],
    "pyarrow": ["workloads"],
    "greenlet": ["workloads"],
    "torch": ["workloads", "monitor/torch"],
    "transformers": ["workloads"],
    "typer": ["cli"],
    "click": ["cli"],
    "rich": ["cli/report", "cli/report.py", "report"],
    "yaml": ["spec", "exporters"],
    "aiohttp": ["load", "dashboard", "daemon/http_api.py"],
    "ray": [],
    "scipy": ["adjust"],
    "threadpoolctl": ["adjust"],
}
ONLY_IN_FUNCTIONS = {"torch", "transformers"}
HEAVY = {"torch", "transformers", "optuna", "sqlalchemy", "alembic", "scipy", "numpy", "pydantic"}


def name_of(path: Path) -> str:
    """`monitor/gpu.py`, whatever the machine."""
    return path.relative_to(PACKAGE).as_posix()


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the module is imported, or that a type checker sees as if it did."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


def imports(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, str, int]]:
    """(module, name imported from it or "", line) of every absolute import; relative ones are banned below."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name, node.lineno) for alias in node.names)


def offences(check: Callable[[Path, ast.Module], Iterator[str]]) -> list[str]:
    return [f"autotuner/{name_of(path)}: {text}" for path, tree in TREES.items() for text in check(path, tree)]


def test_layers_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_library_one_door() -> None:
    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        for module, _, line in imports(ast.walk(tree)):
            allowed = DOORS.get(module.partition(".")[0])
            here = name_of(path)
            if allowed is not None and not any(here == door or here.startswith(f"{door}/") for door in allowed):
                yield f"line {line} imports {module}; its door is {' or '.join(allowed) or 'not built'}"

    assert offences(check) == []


def test_torch_is_imported_only_where_it_is_used() -> None:
    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        for module, _, line in imports(at_import(tree)):
            if module.partition(".")[0] in ONLY_IN_FUNCTIONS:
                yield f"line {line} imports {module} at module level"

    assert offences(check) == []


def test_imports_are_absolute_and_never_of_the_package_root() -> None:
    modules = {module_of(path) for path in SOURCES}

    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield f"line {node.lineno} imports relatively"
        for module, name, line in imports(ast.walk(tree)):
            if module == "autotuner" and f"autotuner.{name}" not in modules:
                yield f"line {line} imports the package root"

    assert offences(check) == []


def test_plugins_are_found_by_name_only() -> None:
    """Nobody imports a plugin's class; nor its module, but the monitor's, which are doors to the machine as well."""
    classes = {(entry.module, entry.attr) for entry in ENTRIES}
    names = {entry.attr for entry in ENTRIES}
    closed = {entry.module for entry in ENTRIES if not entry.module.startswith("autotuner.monitor.")}

    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        if path.name == "__init__.py":
            return
        for module, name, line in imports(ast.walk(tree)):
            if (module, name) in classes or module in closed or f"{module}.{name}" in closed:
                yield f"line {line} imports the plugin {module}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in names:
                yield f"line {node.lineno} uses the plugin {node.attr}"

    assert ENTRIES, "the package is installed with its entry points"
    assert offences(check) == []


def test_only_the_command_line_and_reports_print() -> None:
    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        if name_of(path).startswith(("cli/", "report/")):
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                yield f"line {node.lineno} prints"

    assert offences(check) == []


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Catches everything, and does not raise it again as its last word."""
    caught = "BaseException" if handler.type is None else ast.unparse(handler.type)
    last = handler.body[-1]
    passes_on = isinstance(last, ast.Raise) and last.exc is None
    return bool(re.search(r"\b(Base)?Exception\b", caught)) and not passes_on


def test_one_broad_except_in_the_recorder() -> None:
    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and is_broad(node):
                yield "swallows everything"
            if isinstance(node, ast.Call) and re.fullmatch(
                r"(contextlib\.)?suppress\(.*\b(Base)?Exception\b.*\)", ast.unparse(node)
            ):
                yield "swallows everything"

    assert offences(check) == ["autotuner/monitor/recorder.py: swallows everything"]


def test_files_and_functions_stay_small() -> None:
    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        lines = len(path.read_text().splitlines())
        if lines > LONGEST_FILE_LINES:
            yield f"{lines} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST_FUNCTION_LINES:
                    yield f"{node.name} has {lines} lines"

    assert offences(check) == []


def test_the_loop_is_read_first_and_in_one_go() -> None:
    assert len((PACKAGE / "loop.py").read_text().splitlines()) < LONGEST_LOOP_LINES


def test_no_exit_hooks_and_no_finalisers() -> None:
    def check(path: Path, tree: ast.Module) -> Iterator[str]:
        yield from (f"line {line} imports atexit" for module, _, line in imports(ast.walk(tree)) if module == "atexit")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "__del__":
                yield f"line {node.lineno} defines __del__"

    assert offences(check) == []


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after a statement."""
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["autotuner", "autotuner.cli.main"])
def test_import_pulls_in_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") & HEAVY == set()


def test_the_parent_never_imports_torch() -> None:
    assert loaded_by("import autotuner.api") & ONLY_IN_FUNCTIONS == set()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.group}:{entry.name}")
def test_entry_point_loads_and_is_named_as_its_kind(entry) -> None:
    group = entry.group.removeprefix("autotuner.")
    loaded = plugins.load_class(group, entry.name, GROUPS[group])
    assert loaded.model_fields["kind"].default == entry.name
    assert (loaded.__doc__ or "").strip(), "a list of plugins shows the first line"


def test_every_entry_point_is_in_the_conformance_tests() -> None:
    """The suites run there, a case a plugin; its `test_no_builtin_is_forgotten` holds the list against ours."""
    text = (ROOT / "tests" / "testing" / "test_conformance.py").read_text()
    assert "def test_no_builtin_is_forgotten" in text
    assert [entry.attr for entry in ENTRIES if entry.module.startswith("autotuner.") and entry.attr not in text] == []


def project_files() -> Iterator[tuple[str, str]]:
    """Everything that git has or would take, as text."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    for name in done.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            yield name, (ROOT / name).read_text(errors="replace")


PRIVATE = {
    "a path of somebody's machine": r"(?<![\w.$}/])/(?:home/(?!user\b)\w+|Users/\w+|root|work|mnt|scratch|data)/\w",
    "a registry's host or option": (
        r"(?i)(?:https?|file)://[\w.:/-]*(?:py[p]i|pythonhosted|simple/|artifactory|nexus|whl/)"
        r"|(?:--(?:extra-)?index|trusted)-(?:url|host)|/opt/(?:wheels|pypi)"
    ),
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_nothing_of_a_developers_machine(kind: str) -> None:
    found = [
        f"{name}: {match.group(0)}"
        for name, text in project_files()
        if name != "tests/test_architecture.py"
        for match in re.finditer(PRIVATE[kind], text)
    ]
    assert found == []
