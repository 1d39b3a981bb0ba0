"""What the types of a `StudySpec` cannot say: rules that can be decided, a legal baseline, a sensible protocol."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from autotuner.errors import UsageError
from autotuner.metrics import goal
from autotuner.spec.draft import Draft
from autotuner.spec.expressions import Expression
from autotuner.spec.model import StudySpec
from autotuner.spec.problems import suggest
from autotuner.spec.yaml import KeyPath
from autotuner.types import Value

_MAX_COMBINATIONS = 1000
_MAY_BE_ZERO = frozenset(("warmup_min_steps", "warmup_min_s", "warmup_max_s", "contended_retries"))


def check_limits(spec: StudySpec, draft: Draft) -> None:
    """Every limit is on a metric of the table or of the workload.

    Raises:
        UsageError: One is not.
    """
    for index, limit in enumerate(spec.limits):
        try:
            goal(limit.metric, spec.workload.reports())
        except UsageError as error:
            raise draft.error(("limits", index), error.message, error.hint) from None


def check_protocol(spec: StudySpec, draft: Draft) -> None:
    """Every number of the protocol is positive, and no minimum is above its maximum.

    Raises:
        UsageError: One is not.
    """
    protocol = spec.protocol
    for row in dataclasses.fields(protocol):
        value = getattr(protocol, row.name)
        if value < 0 or (value == 0 and row.name not in _MAY_BE_ZERO):
            least = "at least 0" if row.name in _MAY_BE_ZERO else "above 0"
            raise draft.error(("protocol", row.name), f"should be {least}, found {value}")
    if protocol.block_s < 1e-3:
        raise draft.error(("protocol", "block_s"), f"should be at least 0.001, found {protocol.block_s}")
    for low, high in (("warmup_min_s", "warmup_max_s"), ("min_measure_s", "max_measure_s"),
                      ("block_s", "max_measure_s"), ("max_measure_s", "time_limit_s")):  # fmt: skip
        if getattr(protocol, low) > getattr(protocol, high):
            problem = f"{getattr(protocol, low)} is more than {high}, {getattr(protocol, high)}"
            raise draft.error(("protocol", low if ("protocol", low) in draft.places else high), f"{low} = {problem}")


def check_expressions(spec: StudySpec, draft: Draft) -> None:
    """Every expression can be read, knows its names and can be decided; the baseline is legal.

    Raises:
        UsageError: One cannot, or one does.
    """
    for index, rule in enumerate(spec.rules):
        expression = _decidable(rule.forbid, list(spec.parameters), spec, draft, ("rules", index, "forbid"))
        if expression.evaluate({**spec.facts, **spec.baseline}):
            used = [name for name in spec.baseline if name in expression.names]
            given = ", ".join(f"{name} = {spec.baseline[name]!r}" for name in used)
            problem = f"{rule.forbid!r} forbids the baseline ({given or 'on this machine'})"
            raise draft.error(("rules", index, "forbid"), problem, "change the rule, or a default")
    if refusal := spec.refusal(spec.baseline):
        in_text = "is no parameter" in refusal or "is used nowhere" in refusal
        at, hint = (("workload",), "") if in_text else (("parameters",), "change a default")
        raise draft.error(at, f"the baseline cannot run: {refusal}", hint)
    for name, parameter in spec.parameters.items():
        if parameter.when is not None:
            others = [other for other in spec.parameters if other != name]
            _decidable(parameter.when, others, spec, draft, ("parameters", name, "when"))


def check_suggestions(spec: StudySpec, draft: Draft) -> None:
    """What is to be tried first names parameters and values of the file, and is allowed.

    Raises:
        UsageError: It is not.
    """
    for index, suggestion in enumerate(spec.try_first):
        at = ("try_first", index, "change")
        for name, value in suggestion.change.items():
            if name not in spec.parameters:
                raise draft.error((*at, name), f"there is no parameter {name}", suggest(name, list(spec.parameters)))
            if not spec.parameters[name].allows(value):
                known = ", ".join(map(repr, spec.parameters[name].values[:8]))
                raise draft.error((*at, name), f"{value!r} is not one of its values", f"it may be {known}")
        config = spec.canonical({**spec.baseline, **suggestion.change})
        if not spec.legal(config):
            raise draft.error(at, "this is not allowed", spec.refusal(config) or "a rule forbids it")


def _decidable(text: str, parameters: Sequence[str], spec: StudySpec, draft: Draft, path: KeyPath) -> Expression:
    known = [*parameters, *spec.facts]
    try:
        expression = Expression(text)
        unknown = sorted(expression.names.difference(known))
        if not unknown:
            for combination in _combinations(expression, spec):
                expression.evaluate(combination)
    except ValueError as error:
        raise draft.error(path, str(error)) from None
    if unknown:
        hint = suggest(unknown[0], [*known, "True", "False", "None"])
        raise draft.error(path, f"{unknown[0]!r} is no other parameter, nor device, devices or cpu_cores", hint)
    return expression


def _combinations(expression: Expression, spec: StudySpec) -> Iterator[dict[str, Value]]:
    """What its names can be together: all of it if that is little, else one value of each kind."""
    names = sorted(expression.names)
    domains = [spec.parameters[name].values if name in spec.parameters else (spec.facts[name],) for name in names]
    if math.prod(map(len, domains)) > _MAX_COMBINATIONS:
        domains = [tuple({(type(value), not value): value for value in domain}.values()) for domain in domains]
    for values in itertools.islice(itertools.product(*domains), _MAX_COMBINATIONS):
        yield dict(zip(names, values, strict=True))
