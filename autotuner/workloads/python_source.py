"""Where the user's code lies, what it is, and how it is called: looked at without running it, then imported.

Three forms of an object can be stepped: a generator function that yields after each step, a function with a parameter
`report` to call after each step, and a class with a method `step`.
"""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from importlib.machinery import ModuleSpec, PathFinder
from inspect import Parameter, Signature
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from autotuner.errors import UsageError

FORMS = "a function that yields after each step, one with a parameter `report`, or a class with a method `step`"
GIVEN = ("config", "report", "device")  # what an option cannot be called


class Form(StrEnum):
    """How an object is stepped."""

    GENERATOR = "generator"
    REPORTING = "reporting"
    CLASS = "class"


@dataclass(frozen=True, slots=True)
class Definition:
    """What can be said of an object before it is called.

    Attributes:
        form: None: it cannot be stepped.
        signature: How it is called; of a class, without `self`.
        live: Each step takes the configuration, so that a parameter can change without a new object.
        sized: It has a `worst_step`.
    """

    form: Form | None
    signature: Signature
    live: bool = False
    sized: bool = False

    def keywords(self, options: Mapping[str, Any], device: str) -> dict[str, Any]:
        """What it is called with besides the configuration: the options, and the device if it asks for it."""
        return {**options, **({"device": device} if "device" in self.signature.parameters else {})}


@dataclass(frozen=True, slots=True)
class Source:
    """A name in a module.

    Attributes:
        folder: What has to be on `sys.path` for the module to be found.
        path: The module's text; None when it is not written in Python.
    """

    folder: Path
    module: str
    name: str
    path: Path | None


def locate(target: str) -> Source:
    """Find "file.py:name", or "package.module:name", without importing anything.

    Raises:
        UsageError: There is no such file or module.
    """
    where, _, name = target.rpartition(":")
    if where.endswith(".py") or "/" in where:
        path = Path(where).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"workload.object: there is no {where}", f"looked in {Path.cwd()}")
        if path.suffix != ".py" or "." in path.stem:
            raise UsageError(f"workload.object: {where} cannot be imported", "a file NAME.py without dots in NAME")
        return Source(path.parent, path.stem, name, path)
    origin = _find(where).origin
    return Source(Path.cwd(), where, name, Path(origin) if origin and origin.endswith(".py") else None)


def _find(module: str) -> ModuleSpec:
    """The module's spec; only looks into folders, so that no package's own code runs here."""
    found: ModuleSpec | None = None
    for name in accumulate(module.split("."), "{}.{}".format):
        if found is None:
            found = PathFinder.find_spec(name, [str(Path.cwd())]) or importlib.util.find_spec(name)
        else:
            found = PathFinder.find_spec(name, found.submodule_search_locations or [])
        if found is None:
            hint = "name a file (train.py:train) or an installed module (package.module:train)"
            raise UsageError(f"workload.object: there is no module {name}", hint)
    assert found is not None
    return found


def definition_in(source: Source) -> Definition | None:
    """What the text says; None where only running it could tell.

    Raises:
        UsageError: The text is no Python, or does not define the name.
    """
    if source.path is None:
        return None
    try:
        tree = ast.parse(source.path.read_bytes(), source.path.name)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"workload.object: {source.path.name}{line}: {text}") from None
    defined = {name: node for node in tree.body for name in _names(node)}
    if "*" not in defined and source.name not in defined:
        raise _no_such_name(source, list(defined))
    return _definition(defined.get(source.name))


def _names(node: ast.stmt) -> Iterator[str]:
    """Names that a statement of a module may bind: also those inside `if` and `try`."""
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name.partition(".")[0]


def _no_such_name(source: Source, names: list[str]) -> UsageError:
    near = get_close_matches(source.name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "write file.py:name, or package.module:name"
    return UsageError(f"workload.object: {source.path or source.module} has no {source.name!r}", hint)


def _definition(node: ast.stmt | None) -> Definition | None:
    """What a plain definition says; None for what is decorated, inherited, assigned or imported."""
    if isinstance(node, ast.FunctionDef) and not node.decorator_list:
        signature = _signature(node.args)
        return Definition(_form_of(signature, generator=_yields(node)), signature)
    if isinstance(node, ast.ClassDef) and not (node.decorator_list or node.bases or node.keywords):
        methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
        if any(method.decorator_list for name, method in methods.items() if name in ("__init__", "step")):
            return None
        made, step = (_own(_signature(methods[n].args)) if n in methods else None for n in ("__init__", "step"))
        live = step is not None and bool(step.parameters)
        return Definition(Form.CLASS if step is not None else None, made or Signature(), live, "worst_step" in methods)
    return None


def _form_of(signature: Signature, *, generator: bool) -> Form | None:
    if generator:
        return Form.GENERATOR
    return Form.REPORTING if "report" in signature.parameters else None


def _yields(node: ast.AST) -> bool:
    """Whether a function's own body yields; functions inside it do not count."""
    inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    children = (child for child in ast.iter_child_nodes(node) if not isinstance(child, inside))
    return any(isinstance(child, ast.Yield | ast.YieldFrom) or _yields(child) for child in children)


def _signature(arguments: ast.arguments) -> Signature:
    """The same as `inspect.signature` would give, but for the defaults' values."""
    required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    found = []
    for number, arg in enumerate([*arguments.posonlyargs, *arguments.args]):
        named = number >= len(arguments.posonlyargs)
        kind = Parameter.POSITIONAL_OR_KEYWORD if named else Parameter.POSITIONAL_ONLY
        found.append(Parameter(arg.arg, kind, default=Parameter.empty if number < required else None))
    found += [Parameter(arguments.vararg.arg, Parameter.VAR_POSITIONAL)] if arguments.vararg else []
    for arg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        empty = Parameter.empty if default is None else None
        found.append(Parameter(arg.arg, Parameter.KEYWORD_ONLY, default=empty))
    found += [Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD)] if arguments.kwarg else []
    return Signature(found)


def _own(signature: Signature) -> Signature:
    """Without `self`."""
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def definition_of(target: Any) -> Definition:
    """What an imported object is."""
    if inspect.isclass(target):
        step = getattr(target, "step", None)
        live = callable(step) and bool(_own(inspect.signature(step)).parameters)
        sized = callable(getattr(target, "worst_step", None))
        return Definition(Form.CLASS if callable(step) else None, inspect.signature(target), live, sized)
    if not callable(target):
        return Definition(None, Signature())
    signature = inspect.signature(target)
    return Definition(_form_of(signature, generator=inspect.isgeneratorfunction(inspect.unwrap(target))), signature)


def check_call(target: str, definition: Definition, options: Mapping[str, Any]) -> None:
    """Whether it can be stepped, and called with a configuration and these options.

    Raises:
        UsageError: It cannot; says what is missing or too much.
    """
    if definition.form is None:
        raise UsageError(f"workload.object: {target} cannot be stepped", f"it must be {FORMS}")
    try:
        report = {"report": None} if definition.form is Form.REPORTING else {}
        definition.signature.bind({}, **definition.keywords(options, ""), **report)
    except TypeError as error:
        takes = f"it is called as {target.rpartition(':')[2]}(config, **options); its signature is {_short(definition)}"
        raise UsageError(f"workload.object: {target}: {error}", takes) from None


def _short(definition: Definition) -> str:
    return "(" + ", ".join(map(str, definition.signature.parameters)) + ")"


@contextmanager
def imported(source: Source) -> Iterator[Any]:
    """The object, of a module that is imported afresh and forgotten afterwards.

    The module has the name that `import` would give it, so that processes started by the user's code find its classes.

    Raises:
        UsageError: The module has no such name, or another module is called as it is.
    """
    fresh = source.module not in sys.modules
    sys.path.insert(0, str(source.folder))
    importlib.invalidate_caches()
    try:
        yield _object(importlib.import_module(source.module), source)
    finally:
        if str(source.folder) in sys.path:  # the user's code may have changed it
            sys.path.remove(str(source.folder))
        if fresh:
            sys.modules.pop(source.module, None)


def _object(module: ModuleType, source: Source) -> Any:
    if source.path is not None and Path(module.__file__ or "").resolve() != source.path.resolve():
        raise UsageError(f"workload.object: another module is called {source.module}", f"rename {source.path.name}")
    if not hasattr(module, source.name):
        raise _no_such_name(source, list(vars(module)))
    return getattr(module, source.name)
