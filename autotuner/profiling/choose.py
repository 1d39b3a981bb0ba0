"""Which configuration to profile: the baseline, with the values that the user chose."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from autotuner.errors import UsageError
from autotuner.spec import StudySpec
from autotuner.spec.draft import read
from autotuner.spec.expressions import Expression
from autotuner.spec.yaml import parse
from autotuner.types import Config, Value


def split(path: Path, settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """What belongs to the file, and what chooses values of parameters: `batch_size=8` names a parameter.

    Raises:
        UsageError: The file is none.
    """
    parameters = read(path).data.get("parameters")
    names = set(parameters) if isinstance(parameters, dict) else set()
    chosen = [text for text in settings if text.partition("=")[0].strip() in names]
    return [text for text in settings if text not in chosen], chosen


def choose(spec: StudySpec, base: Config, settings: Sequence[str]) -> Config:
    """`base` with the values that "parameter=value" texts choose.

    Raises:
        UsageError: No such parameter or value, or the study forbids the combination.
    """
    config = dict(base)
    for text in settings:
        name, equals, written = text.partition("=")
        name = name.strip()
        if name not in spec.parameters:
            near = get_close_matches(name, spec.parameters, n=1)
            hint = f"did you mean {near[0]}?" if near else "it has " + ", ".join(spec.parameters)
            raise UsageError(f"--set {text}: {spec.name} has no parameter {name!r}", hint)
        if not equals or not written.strip():
            raise UsageError(f"--set {text}: give a value", f"write --set {name}={_spell(spec.baseline[name])}")
        config[name] = _value(spec, name, parse(written, f"--set {text}").data, text)
    return _checked(spec, config, settings)


def _value(spec: StudySpec, name: str, value: object, text: str) -> Value:
    for known in spec.parameters[name].values:
        if type(known) is type(value) and known == value:
            return known
    values = [_spell(known) for known in spec.parameters[name].values]
    shown = ", ".join(values if len(values) <= 12 else [*values[:6], "…", values[-1]])
    raise UsageError(f"--set {text}: not a value of {name} in this study", f"it may be {shown}")


def _checked(spec: StudySpec, config: Config, settings: Sequence[str]) -> Config:
    settled = spec.canonical(config)
    for name, value in config.items():
        if settled[name] != value:
            raise UsageError(
                f"--set {name}={_spell(value)} has no effect: its `when` is false here",
                f"when: {spec.parameters[name].when}",
            )
    if not spec.legal(config):
        raise UsageError(f"the study forbids {' '.join(settings)}", _rule(spec, config))
    return config


def _rule(spec: StudySpec, config: Config) -> str:
    """The first rule that forbids it, as the file says it."""
    names = {**spec.facts, **config}
    broken = next(rule for rule in spec.rules if Expression(rule.forbid).evaluate(names))
    return f"forbid: {broken.forbid}" + (f", because {broken.because}" if broken.because else "")


def _spell(value: Value) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
