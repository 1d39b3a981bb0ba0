"""A configuration whose parameters a target takes one by one, so that none is dropped in silence."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from autotuner.errors import UsageError
from autotuner.types import Config, Recommendation, Value

T = TypeVar("T")


class Settings:
    """Parameters that wait to be taken.

    Args:
        config: A parameter without a value is nobody's business: its program decides.
        names: `{parameter: the name that the target knows it by}`, where the user says so.

    Raises:
        UsageError: Two parameters under one name, or a name for none.
    """

    def __init__(self, config: Config, names: Mapping[str, str] = {}) -> None:
        self._waiting: dict[str, tuple[str, Value]] = {}
        self._unknown: dict[str, str] = {}
        for name, value in config.items():
            called = names.get(name, name)
            if called in self._waiting:
                other = self._waiting[called][0]
                raise UsageError(f"{other} and {name} would both be {called}", f"--set names.{name}=ANOTHER")
            if value is not None:
                self._waiting[called] = (name, value)
        if unknown := names.keys() - config.keys():
            raise UsageError(f"names.{min(unknown)}: there is no such parameter", "known: " + ", ".join(config))

    def take(self, *names: str) -> Value:
        """The value under the first of these names that there is; None for none."""
        for name in names:
            if name in self._waiting:
                return self._waiting.pop(name)[1]
        return None

    def take_as(self, meanings: Mapping[str, T], *names: str) -> T | None:
        """What the value under the first of these names means to a target; None for none.

        A value that means nothing there is not taken, and is named with what is left out.

        >>> settings = Settings({"sharding": "zero9"})
        >>> settings.take_as({"zero3": 3}, "sharding"), settings.left_out("")
        (None, {'sharding': 'no such value there: zero3'})
        """
        for name in names:
            if name in self._waiting:
                meaning = str(self._waiting[name][1]).casefold()
                if meaning in meanings:
                    del self._waiting[name]
                    return meanings[meaning]
                self._unknown[name] = f"no such value there: {', '.join(meanings)}"
                return None
        return None

    def take_all(self, known: Iterable[str]) -> dict[str, Value]:
        """Those whose names a target knows as they are."""
        return {name: self._waiting.pop(name)[1] for name in known if name in self._waiting}

    def left_out(self, why: str, reasons: Mapping[str, str] = {}) -> dict[str, str]:
        """`{parameter: why}` of what nobody took."""
        reasons = {**reasons, **self._unknown}
        return {parameter: reasons.get(name, why) for name, (parameter, _) in self._waiting.items()}


def workload(recommendation: Recommendation) -> Mapping[str, Any]:
    """The `workload:` section of the study file; empty when it is not known."""
    found = recommendation.spec.get("workload", {})
    assert isinstance(found, Mapping), found
    return found


def mention(recommendation: Recommendation) -> str:
    """The comment at the top of a target's file: where it comes from, whether it was forced, and where the proof is."""
    forced = "".join(f"; FORCED: {reason.partition(':')[0]}" for reason in recommendation.forced)
    return f"autotune: study {recommendation.study}{forced}; see evidence.json"


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without what nobody said."""
    return {name: value for name, value in values.items() if value is not None}
