"""From a study file to a `StudySpec` that everything else can trust.

The steps: read, override, put the machine's own numbers in, build the plugins, validate, and look whether the rules
can be decided and the baseline is legal. Whatever fails is one line that names the file, the line and the key.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autotuner.errors import AutotuneError, MachineError
from autotuner.metrics import goal
from autotuner.plugins import Executor, Plugin, Probe, Workload, load_class, names
from autotuner.spec.checks import check_expressions, check_limits, check_protocol, check_suggestions
from autotuner.spec.draft import Draft, override, read
from autotuner.spec.model import StudySpec
from autotuner.spec.problems import FACTS, explain, find_converted
from autotuner.spec.yaml import KeyPath

MAX_VALUES = 100_000  # of all parameters together

ModelT = TypeVar("ModelT", bound=BaseModel)
PluginT = TypeVar("PluginT", bound=Plugin)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Machine:
    """What a study file may depend on.

    Attributes:
        gpus: How many can be used.
        cpu_cores: How many this process may use, at least 1.
    """

    gpus: int = 0
    cpu_cores: int = field(default_factory=_usable_cores)


def load(path: Path, overrides: Sequence[str] = (), machine: Machine | None = None) -> StudySpec:
    """The study that a file describes.

    Args:
        path: A YAML file.
        overrides: "dotted.key=value", the value in YAML: "budget.trials=5", "parameters.batch_size.default=2".
        machine: What it will run on; None: this process' cores and no GPU.

    Raises:
        UsageError: The file, or an override, is wrong.
        MachineError: It asks for a GPU and there is none.
    """
    machine = machine or Machine()
    draft = read(path)
    override(draft, overrides)
    _refuse_facts(draft)
    _fill_in_cores(draft.data, machine.cpu_cores)
    workload = _workload(draft)
    device = _device(workload, draft, machine)
    facts = {
        "device": device,
        "cpu_cores": machine.cpu_cores,
        "devices": machine.gpus if device == "cuda" else machine.cpu_cores,
        "source": str(path),
    }
    if draft.data.get("name") is None:
        draft.data["name"] = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-")[:64] or "study"
    return _build(draft, workload, facts)


def restore(data: Mapping[str, Any]) -> StudySpec:
    """The study that `StudySpec.dump` wrote.

    Raises:
        UsageError: A plugin is no longer installed, or the record is from an incompatible version.
    """
    draft = Draft(dict(data), {(): "the recorded study"})
    return _build(draft, _workload(draft), {})


def _build(draft: Draft, workload: Workload, facts: Mapping[str, Any]) -> StudySpec:
    """Validate everything, and check what types cannot say."""
    _check_parameters(draft)
    _check_objectives(draft, workload)
    plugins = {"workload": workload, "executor": _executor(draft), "probes": _probes(draft)}
    given = {key: value for key, value in draft.data.items() if value is not None}
    spec = _validated(StudySpec, {**given, **plugins, **facts}, draft, ())
    check_limits(spec, draft)
    check_protocol(spec, draft)
    check_expressions(spec, draft)
    check_suggestions(spec, draft)
    return spec


def _validated(kind: type[ModelT], data: Mapping[str, Any], draft: Draft, at: KeyPath) -> ModelT:
    """Build a section, or say in one line why not."""
    try:
        made = kind.model_validate(data)
    except ValidationError as error:
        raise explain(error, kind, data, draft, at) from None
    except AutotuneError as error:  # from a plugin's own validator
        raise draft.error(at, error.message, error.hint) from None
    converted = find_converted(dict(data), made.model_dump(mode="json", by_alias=True))
    if converted is not None:
        path, problem, hint = converted
        raise draft.error(at + path, problem, hint)
    return made


def _refuse_facts(draft: Draft) -> None:
    for fact in FACTS:
        if fact in draft.data:
            hint = "write it below `workload:`" if fact == "device" else "leave it out"
            raise draft.error((fact,), "unknown key: the machine and the file's name say this", hint)


def _fill_in_cores(data: Mapping[str, Any], cores: int) -> None:
    """Replace the word `cpu_cores` in what a parameter may be."""
    parameters = data.get("parameters")
    for parameter in parameters.values() if isinstance(parameters, dict) else ():
        if not isinstance(parameter, dict):
            continue
        if parameter.get("default") == "cpu_cores":
            parameter["default"] = cores
        for key, number in (("int", cores), ("powers_of_two", 2 ** (cores.bit_length() - 1)), ("choices", cores)):
            if isinstance(values := parameter.get(key), list) and "cpu_cores" in values:
                numbers = [number if value == "cpu_cores" else value for value in values]
                parameter[key] = _without_repeats(numbers) if key == "choices" else numbers


def _without_repeats(values: list[Any]) -> list[Any]:
    """[1, 2, 4, cpu_cores] on a machine with 2 cores or with 3; sorted if these are all numbers."""
    distinct = list({(type(value), repr(value)): value for value in values}.values())
    return sorted(distinct) if all(type(value) in (int, float) for value in distinct) else distinct


def _check_parameters(draft: Draft) -> None:
    """Ranges are two whole numbers and not too many values; the model would try to list them."""
    parameters = draft.data.get("parameters")
    total = 0
    for name, parameter in parameters.items() if isinstance(parameters, dict) else ():
        for key in ("int", "powers_of_two"):
            values = parameter.get(key) if isinstance(parameter, dict) else None
            if values is None:
                continue
            if not isinstance(values, list) or len(values) != 2 or any(type(value) is not int for value in values):
                raise draft.error(("parameters", name, key), "expected two whole numbers: [from, to]")
            step = parameter.get("step", 1)
            if key == "int":
                total += max(0, values[1] - values[0]) // (step if type(step) is int and step > 0 else 1) + 1
            if total > MAX_VALUES:
                problem, hint = f"more than {MAX_VALUES:,} values", "give a larger step, or powers_of_two"
                raise draft.error(("parameters", name, key), problem, hint)


def _check_objectives(draft: Draft, workload: Workload) -> None:
    """Every objective is a metric of the table or of the workload; said here, where its line is known."""
    objectives, seen = draft.data.get("objectives"), set[str]()
    for index, objective in enumerate(objectives if isinstance(objectives, list) else ()):
        for key in ("maximize", "minimize"):
            name = objective.get(key) if isinstance(objective, dict) else None
            if isinstance(name, str):
                try:
                    goal(name, workload.reports())
                except AutotuneError as error:
                    raise draft.error(("objectives", index, key), error.message, error.hint) from None
                if lacking := workload.lacks(name):
                    raise draft.error(("objectives", index, key), f"{name} is not known without {lacking}", "")
                if name in seen:
                    raise draft.error(("objectives", index, key), f"{name} is named twice", "give it a weight instead")
                seen.add(name)


def _workload(draft: Draft) -> Workload:
    section = draft.data.get("workload")
    if section is None:
        raise draft.error(("workload",), "is missing", "installed: " + ", ".join(sorted(names("workloads"))))
    return _plugin("workloads", Workload, section, draft, ("workload",))


def _executor(draft: Draft) -> Executor:
    section = draft.data.get("executor") or {}
    options = {"kind": "process", **section} if isinstance(section, dict) else section
    return _plugin("executors", Executor, options, draft, ("executor",))


def _probes(draft: Draft) -> tuple[Probe, ...]:
    """The probes that the file names; without `probes:`, every installed one that needs no options."""
    sections = draft.data.get("probes")
    if sections is None:
        classes = [load_class("probes", name, Probe) for name in sorted(names("probes"))]
        ready = (kind for kind in classes if not any(row.is_required() for row in kind.model_fields.values()))
        return tuple(kind.model_validate({}) for kind in ready)
    if not isinstance(sections, list):
        raise draft.error(("probes",), "expected a list", "write probes: [host, gpu], or [] for none")
    return tuple(_plugin("probes", Probe, section, draft, ("probes", i)) for i, section in enumerate(sections))


def _plugin(group: str, base: type[PluginT], section: Any, draft: Draft, at: KeyPath) -> PluginT:
    """Build a plugin from `kind: NAME` and its options, or from its name alone."""
    options = {"kind": section} if isinstance(section, str) else section
    if not isinstance(options, dict):
        raise draft.error(at, "expected a section with `kind: NAME`", "installed: " + ", ".join(sorted(names(group))))
    name = options.get("kind")
    if not isinstance(name, str):
        hint = "installed: " + ", ".join(sorted(names(group)))
        raise draft.error((*at, "kind"), "is missing" if name is None else "expected a name", hint)
    try:
        kind = load_class(group, name, base)
    except AutotuneError as error:
        raise draft.error((*at, "kind"), error.message, error.hint) from None
    return _validated(kind, options, draft, at)


def _device(workload: Workload, draft: Draft, machine: Machine) -> str:
    """The workload's own wish, or what the machine has."""
    wanted = getattr(workload, "device", "auto")
    if wanted == "cuda" and not machine.gpus:
        message = draft.locate(("workload", "device"), "cuda is asked for, but there is no GPU that can be used")
        raise MachineError(message, "write device: auto or cpu")
    return str(wanted) if wanted in ("cpu", "cuda") else ("cuda" if machine.gpus else "cpu")
