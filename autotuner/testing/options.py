"""What every plugin must keep, whichever seam it fills: its fields are its options, and it travels."""

import pickle
from collections.abc import Callable

from autotuner.plugins import Plugin, names


def check_options(plugin: Plugin, group: str) -> None:
    """Check a plugin's name and options.

    Args:
        plugin: With any options.
        group: "workloads", "probes", "executors" or "exporters".

    Raises:
        AssertionError: It breaks the contract; says how.
    """
    installed = names(group)
    assert plugin.kind in installed, f"no entry point autotuner.{group} is called {plugin.kind!r}"
    loaded = installed[plugin.kind].load()
    assert loaded is type(plugin), f"the entry point {plugin.kind!r} is {loaded}, not {type(plugin)}"
    assert (plugin.__doc__ or "").strip(), "a plugin's first line of documentation is shown in lists"
    assert type(plugin).model_validate(plugin.model_dump(mode="json")) == plugin, "options must survive JSON"
    assert pickle.loads(pickle.dumps(plugin)) == plugin, "options must survive pickling"
    _check_refusal(plugin)
    _check_frozen(plugin)


def complaint(expected: type[Exception], call: Callable[[], object]) -> str:
    """What an expected error says; empty if the call went through."""
    try:
        call()
    except expected as error:
        return str(error) or type(error).__name__
    return ""


def _check_refusal(plugin: Plugin) -> None:
    options = {**plugin.model_dump(mode="json"), "no_such_option": 1}
    said = complaint(ValueError, lambda: type(plugin).model_validate(options))
    assert said, 'an unknown option must be refused: keep extra="forbid"'
    assert "no_such_option" in said, "the error must name the unknown option"


def _check_frozen(plugin: Plugin) -> None:
    assert complaint(ValueError, lambda: setattr(plugin, "kind", plugin.kind)), "a plugin must be frozen"
