"""Plugins by name, and what a worker must import to run them."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from autotuner.errors import UsageError
from autotuner.plugins.seams import Plugin, Preload, Probe, Workload


def modules_of(workload: Workload, probes: Sequence[Probe]) -> Preload:
    """What a worker imports to run this: the workload's libraries, and the plugins' own modules."""
    plugins: tuple[Plugin, ...] = (workload, *probes)
    return tuple(dict.fromkeys([*workload.preload(), *(type(plugin).__module__ for plugin in plugins)]))


PluginT = TypeVar("PluginT", bound=Plugin)


def names(group: str) -> Mapping[str, EntryPoint]:
    """Every installed plugin of a group ("workloads", "probes", "executors", "exporters") by name."""
    return {entry.name: entry for entry in entry_points(group=f"autotuner.{group}")}


def load_class(group: str, name: str, base: type[PluginT]) -> type[PluginT]:
    """The class of a plugin.

    Raises:
        UsageError: No plugin of this name; the hint names the nearest.
    """
    installed = names(group)
    if name not in installed:
        near = get_close_matches(name.lower(), installed, n=1)
        hint = f"did you mean {near[0]}?" if near else "installed: " + ", ".join(sorted(installed))
        kind = "export target" if group == "exporters" else group.removesuffix("s")
        raise UsageError(f"unknown {kind} {name!r}", hint)
    loaded = installed[name].load()
    assert isinstance(loaded, type), loaded
    assert issubclass(loaded, base), f"{loaded} is no {base}"
    return loaded
