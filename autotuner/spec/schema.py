"""A JSON schema of study files, for editors: the same types that load them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from autotuner.plugins import Executor, Plugin, Probe, Workload, load_class, names
from autotuner.spec.load import PluginT
from autotuner.spec.model import StudySpec
from autotuner.spec.problems import FACTS

_TEMPLATE = "#/$defs/{model}"
_CORES = {"const": "cpu_cores", "description": "The number of cores that may be used."}


def json_schema() -> dict[str, Any]:
    """The schema of a study file with the plugins that come with `autotune`.

    What is filled in when a file is loaded is left out; `cpu_cores` may stand for a number in ranges.
    """
    groups = {
        "workloads": _built_in("workloads", Workload),
        "executors": _built_in("executors", Executor),
        "probes": _built_in("probes", Probe),
    }
    classes: list[type[BaseModel]] = [StudySpec, *(kind for group in groups.values() for kind in group.values())]
    refs, definitions = models_json_schema([(kind, "validation") for kind in classes], ref_template=_TEMPLATE)
    sections = definitions["$defs"]
    options = {
        group: [_section(kind, name, refs[kind, "validation"]["$ref"], sections) for name, kind in found.items()]
        for group, found in groups.items()
    }
    return _study(sections, options)


def _built_in(group: str, base: type[PluginT]) -> Mapping[str, type[Plugin]]:
    found = {name: entry for name, entry in sorted(names(group).items()) if entry.value.startswith("autotuner.")}
    return {name: load_class(group, name, base) for name in found}


def _section(kind: type[Plugin], name: str, ref: str, sections: dict[str, Any]) -> dict[str, Any]:
    """Where a plugin is described; its `kind` is its name, and must be given where there is no default."""
    section = sections[ref.rpartition("/")[2]]
    section["properties"]["kind"] = {"const": name, "description": section.get("description", "")}
    if not issubclass(kind, Executor):  # theirs is process unless the file says otherwise
        section["required"] = sorted({"kind", *section.get("required", ())})
    return {"$ref": ref}


def _study(sections: dict[str, Any], options: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    study = sections.pop("StudySpec")
    for base in ("Workload", "Executor", "Probe"):
        sections.pop(base, None)
    properties = study["properties"]
    for fact in FACTS:
        del properties[fact]
    kinds = {group: {"enum": [sections[o["$ref"].rpartition("/")[2]]["properties"]["kind"]["const"] for o in found]}
             for group, found in options.items()}  # fmt: skip
    properties["workload"] = {"anyOf": [kinds["workloads"], *options["workloads"]]}
    properties["executor"] = {"anyOf": [kinds["executors"], *options["executors"]]}
    properties["probes"] = {"type": "array", "items": {"anyOf": [kinds["probes"], *options["probes"]]}}
    for key in ("int", "powers_of_two"):
        _allow_cores(sections["Parameter"]["properties"][key])
    required = ["workload", "parameters", "objectives"]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A study file of autotune"}
    return {**head, **study, **head, "required": required, "$defs": sections}


def _allow_cores(schema: dict[str, Any]) -> None:
    """Let the word `cpu_cores` stand in a range."""
    pair = next(option for option in schema["anyOf"] if option.get("type") == "array")
    pair["prefixItems"] = [{"anyOf": [end, _CORES]} for end in pair["prefixItems"]]
