"""A study of the record as the reports want it: the reports do not know the store, nor the store them."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from autotuner.report.study import Portrait
    from autotuner.store import Study
    from autotuner.types import Trial


def paint(study: "Study", most: int) -> "Portrait":
    """Read what there is to show: the `most` best and the `most` last trials, everything else once."""
    from autotuner.analyze.front import pareto_front
    from autotuner.metrics import SCORE
    from autotuner.report.study import Portrait
    from autotuner.report.text import value_of
    from autotuner.spec.model import Goal, Objective
    from autotuner.types import Measurement

    spec = study.spec()
    signs = {one["maximize"] or one["minimize"]: 1 if one["maximize"] else -1 for one in spec["objectives"]}
    metric, sign = (SCORE, 1) if len(signs) > 1 else next(iter(signs.items()))
    first, best = _first(study), study.best(max(most, 1), sign > 0)
    outcome = first.outcome if first else None
    return Portrait(
        name=study.name,
        created_at=study.created_at,
        metric=metric,
        maximize=sign > 0,
        goal=Goal(tuple(map(Objective.model_validate, spec["objectives"]))).text,
        objectives={name: sign > 0 for name, sign in signs.items()},
        count=study.count(),
        failures=study.failures(),
        values=tuple(study.values()),
        baseline={name: parameter["default"] for name, parameter in spec["parameters"].items()},
        baseline_value=value_of(first, metric) if first else math.nan,
        baseline_diagnosis=first.verdict.diagnosis if first and first.verdict else None,
        best=tuple(best),
        winner=_winner(study, best),
        front=tuple(pareto_front(study.trials(samples=False), signs)) if len(signs) > 1 else (),
        last=tuple(study.last(most)) if most else (),
        verifications=tuple(study.verifications()),
        environment=outcome.environment if isinstance(outcome, Measurement) else {},
    )


def _first(study: "Study") -> "Trial | None":
    """Trial 0, the baseline."""
    return study.trial(0) if study.count() else None


def _winner(study: "Study", best: "Sequence[Trial]") -> "Trial | None":
    """The trial whose configuration was verified BETTER: among the best as a rule, else looked for."""
    from autotuner.types import Decision, config_key

    found = study.verifications()
    if not found or found[-1][1].decision is not Decision.BETTER:
        return None
    key = config_key(found[-1][1].config)

    def everyone() -> "Iterator[Trial]":
        yield from best
        yield from study.trials(samples=False)

    return next((trial for trial in everyone() if config_key(trial.config) == key), None)
