"""The search as a sampler for Optuna's own studies: what `propose` does, without a study file.

    sampler = AutotuneSampler({"batch": CategoricalDistribution([1, 2, 4, 8]), "threads": IntDistribution(1, 16)})
    optuna.create_study(sampler=sampler).optimize(objective, n_trials=40)

It knows the whole space beforehand, proposes only what is legal and was not tried, and learns from every trial: from
pruned and failed ones, and from violated constraints, that what is like them does not do either. Unlike Optuna's
samplers it stops the study when nothing is left. Works with Optuna 4.9 and 5.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotuner.adjust.dimensions import Dimension, Floats, Rows, Shape
from autotuner.adjust.moves import anywhere, farthest, next_to, opening_trials, steps
from autotuner.adjust.promise import Seen, promise

_MOST = 200_000  # combinations that are listed; of larger spaces some are drawn for each proposal
_DRAWN = 4_000
_STEPS = 33  # values of a continuous range
_EVENNESS = 0.05  # of several objectives: how much the sum counts beside the worst one

Params = Mapping[str, Any]


class AutotuneSampler(BaseSampler):  # type: ignore[misc]
    """Proposes by a Gaussian process over a space of values.

    Args:
        space: Every parameter's distribution; of a continuous range 33 values are tried.
        legal: Whether a combination may be tried.
        seed: Of everything that is drawn.
    """

    def __init__(
        self, space: Mapping[str, BaseDistribution], *, legal: Callable[[Params], bool] | None = None, seed: int = 0
    ) -> None:
        """Declare the space.

        Raises:
            ValueError: It has no parameters.
        """
        if not space:
            raise ValueError("a space needs a parameter")
        self._space, self._legal, self._seed = dict(space), legal or (lambda params: True), seed
        self._shape = Shape(tuple(map(_dimension, self._space.values())))
        self._independent = RandomSampler(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The declared one."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What to try next; nothing, and the end of the study, when all was tried."""
        rng = np.random.default_rng([self._seed, trial.number])
        seen = self._seen(study, rng)
        rows = self._left(seen, rng)
        if not len(rows):
            study.stop()
            return {}
        row = farthest(self._shape, seen.rows, rows, rng) if len(seen.rows) else rows[rng.integers(len(rows))]
        if len(seen.rows) >= opening_trials(len(rows)) and seen.feasible.any():
            pool = steps(seen, lambda row: next_to(rows, row))
            pool = pool if len(pool) else anywhere(seen, rows, lambda row: next_to(rows, row), rng)
            row = pool[int(np.argmax(promise(self._shape, seen, pool)))]
        return self._params(row.tolist())

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """By lot, of a parameter that was not declared."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _params(self, row: Sequence[int]) -> dict[str, Any]:
        return {name: each.values[i] for name, each, i in zip(self._space, self._shape.dimensions, row, strict=True)}

    def _left(self, seen: Seen, rng: np.random.Generator) -> Rows:
        """Legal and not tried."""
        tried = set(map(tuple, seen.rows.tolist()))
        rows = self._all if self._all is not None else self._rows(self._draws(rng))
        return _matrix((row for row in map(tuple, rows.tolist()) if row not in tried), len(self._space))

    @cached_property
    def _all(self) -> Rows | None:
        sizes = [each.size for each in self._shape.dimensions]
        return self._rows(itertools.product(*map(range, sizes))) if math.prod(sizes) <= _MOST else None

    def _draws(self, rng: np.random.Generator) -> Iterable[tuple[int, ...]]:
        drawn = np.stack([rng.integers(each.size, size=_DRAWN) for each in self._shape.dimensions], axis=1)
        return dict.fromkeys(map(tuple, drawn.tolist()))

    def _rows(self, rows: Iterable[tuple[int, ...]]) -> Rows:
        return _matrix((row for row in rows if self._legal(self._params(row))), len(self._space))

    def _seen(self, study: Study, rng: np.random.Generator) -> Seen:
        """Every trial of declared values; one that runs still counts as an ordinary one (a constant liar)."""
        trials = [each for each in study.get_trials(deepcopy=False) if self._row(each.params) is not None]
        done = [each for each in trials if each.state in (TrialState.COMPLETE, TrialState.RUNNING)]
        known = [each.values for each in trials if each.state is TrialState.COMPLETE]
        scores = dict(zip([t.number for t in trials if t.state is TrialState.COMPLETE],
                          _scores(known, study.directions, rng), strict=True))  # fmt: skip
        lie = float(np.median(list(scores.values()))) if scores else math.nan
        numbers = {each.number for each in done}
        return Seen(
            rows=_matrix((row for each in trials if (row := self._row(each.params)) is not None), len(self._space)),
            scores=np.array([scores.get(t.number, lie) if t.number in numbers else math.nan for t in trials]),
            excess=np.array([_excess(t) if t.number in numbers else math.inf for t in trials]),
        )

    def _row(self, params: Params) -> tuple[int, ...] | None:
        """None for a trial that has no values yet, or others than were declared."""
        try:
            each = zip(self._space, self._shape.dimensions, strict=True)
            return tuple(dimension.values.index(params[name]) for name, dimension in each)
        except (KeyError, ValueError):
            return None


def _excess(trial: FrozenTrial) -> float:
    """Its worst constraint: violated when > 0."""
    constraints = trial.system_attrs.get("constraints")
    return max(map(float, constraints), default=-math.inf) if constraints else -math.inf


def _scores(
    values: Sequence[Sequence[float]], directions: Sequence[StudyDirection], rng: np.random.Generator
) -> Floats:
    """Larger is better; logarithms where all are positive.

    Several objectives become one by weights that are drawn anew each time: the worst of them counts, and a little of
    their sum (Knowles, ParEGO, 2006).
    """
    if not values:
        return np.zeros(0)
    signs = np.array([-1.0 if direction is StudyDirection.MINIMIZE else 1.0 for direction in directions])
    found = np.array(values, dtype=np.float64)
    found = signs * np.where((found > 0).all(axis=0), np.log(np.maximum(found, 1e-300)), found)
    if len(signs) == 1:
        return found[:, 0]
    standard = (found - found.mean(axis=0)) / np.maximum(found.std(axis=0), 1e-12)
    behind = (standard.max(axis=0) - standard) * rng.dirichlet(np.ones(len(signs)))
    return np.asarray(-behind.max(axis=1) - _EVENNESS * behind.sum(axis=1), dtype=np.float64)


def _dimension(distribution: BaseDistribution) -> Dimension:
    match distribution:
        case CategoricalDistribution(choices=choices):
            ordered = all(isinstance(v, int | float) and not isinstance(v, bool) for v in choices)
            return Dimension(tuple(choices), ordered and list(choices) == sorted(choices))
        case IntDistribution(low=low, high=high, log=False, step=step):
            return Dimension(tuple(range(low, high + 1, step)), ordered=True)
        case IntDistribution(low=low, high=high):
            places = np.unique(np.round(np.geomspace(low, high, min(_STEPS, high - low + 1))).astype(int))
            return Dimension(tuple(map(int, places)), ordered=True)
        case FloatDistribution(low=low, high=high, log=log, step=step):
            count = _STEPS if step is None else round((high - low) / step) + 1
            return Dimension(tuple(map(float, (np.geomspace if log else np.linspace)(low, high, count))), ordered=True)
        case _:
            raise ValueError(f"{type(distribution).__name__} is no distribution that is known")


def _matrix(rows: Iterable[tuple[int, ...]], columns: int) -> Rows:
    return np.array(list(rows), dtype=np.int32).reshape(-1, columns)
