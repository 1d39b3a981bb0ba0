"""The search as a sampler for Optuna's own studies: what `propose` does, without a study file.

    sampler = AutotuneSampler({"batch": CategoricalDistribution([1, 2, 4, 8]), "threads": IntDistribution(1, 16)})
    optuna.create_study(sampler=sampler).optimize(objective, n_trials=40)

It knows the whole space beforehand, proposes only what is legal and was not tried, and learns from every trial: from
failed ones, and from violated constraints, that what is like them does not do either. Unlike Optuna's samplers it stops
the study when nothing is left. Works with Optuna 4.9 and 5.
"""

import itertools
import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotuner.adjust.dimensions import Floats, Rows, Shape, names, numbers
from autotuner.adjust.moves import OPENING_TRIALS, anywhere, close_to, farthest, steps
from autotuner.adjust.promise import Seen, promise

_MOST = 200_000  # combinations that are listed; of larger spaces some are drawn for each proposal
_DRAWN = 4_000
_STEPS = 33  # values of a continuous range
_LONG = 257  # values of a range of numbers, at most
_EVENNESS = 0.05  # of several objectives: how much the sum counts beside the worst one
_ROW = "autotune:row"
_PROPOSING = Lock()
_NOTHING = object()

Params = Mapping[str, Any]
Row = tuple[int, ...]


def _anything(params: Params) -> bool:
    return True


class AutotuneSampler(BaseSampler):  # type: ignore[misc]
    """Proposes by a Gaussian process over a space of values.

    Args:
        space: Every parameter's distribution; of a continuous range 33 values are tried, of a long one 257.
        legal: Whether a combination may be tried.
        constraints_func: Of a finished trial, as Optuna's samplers take it: violated where > 0. With Optuna 5 an
            objective may call `trial.set_constraint` instead.
        seed: Of everything that is drawn; None for another one each time.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        *,
        legal: Callable[[Params], bool] = _anything,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        seed: int | None = 0,
    ) -> None:
        """Declare the space.

        Raises:
            ValueError: It has no parameters.
        """
        if not space:
            raise ValueError("a space needs a parameter")
        self._space, self._legal, self._constraints = dict(space), legal, constraints_func
        self._seed = secrets.randbelow(2**63) if seed is None else seed
        self._values = tuple(tuple(_values(each)) for each in self._space.values())
        self._ordered = tuple(map(_are_ordered, self._values))
        each = zip(self._values, self._ordered, strict=True)
        self._shape = Shape(tuple(numbers(values) if ordered else names(len(values)) for values, ordered in each))
        self._independent = RandomSampler(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The declared one."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What to try next; by lot when all was tried."""
        with _PROPOSING:  # what others propose meanwhile must be known
            row = self._next(study, np.random.default_rng([self._seed, trial.number]))
            if row is None:
                return {}
            # What an objective does not ask for, or not before it fails, is known nevertheless.
            study._storage.set_trial_system_attr(trial._trial_id, _ROW, row)
        return self._params(row)

    def _next(self, study: Study, rng: np.random.Generator) -> list[int] | None:
        """None when all was tried."""
        seen = self._seen(study, rng)
        tried = set(map(tuple, seen.rows.tolist()))
        rows = self._untried(self._all if self._all is not None else self._drawn(rng), tried)
        if not len(rows):
            return None
        if not len(seen.rows):
            row = rows[rng.integers(len(rows))]
        elif len(seen.rows) < OPENING_TRIALS or not np.isfinite(seen.scores).any():
            row = farthest(self._shape, seen.rows, rows, rng)
        else:
            row = self._promising(seen, rows, tried, rng)
        found: list[int] = row.tolist()
        return found

    def _promising(self, seen: Seen, rows: Rows, tried: set[Row], rng: np.random.Generator) -> Any:
        def near(row: Any) -> Rows:
            if self._all is not None:
                return close_to(rows, row, rng)
            return self._untried(self._legal_rows(self._neighbours(row.tolist())), tried)

        close = steps(seen, near)
        pool = close if len(close) else anywhere(seen, rows, near, rng)
        merit = promise(self._shape, seen, pool, by_rank=not len(close))
        return pool[int(np.argmax(np.nan_to_num(merit, nan=-np.inf)))]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """By lot, of a parameter that was not declared."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Keep its constraints, and stop the study when nothing is left."""
        if self._constraints is not None and state in (TrialState.COMPLETE, TrialState.PRUNED):
            found = list(map(float, self._constraints(trial)))
            study._storage.set_trial_system_attr(trial._trial_id, "constraints", found)
        if self._all is not None:
            tried = {row for each in study.get_trials(deepcopy=False) if (row := self._row(each)) is not None}
            if not len(self._untried(self._all, tried)):
                with suppress(RuntimeError):  # asked and told, there is no loop to stop
                    study.stop()

    def _params(self, row: Sequence[int]) -> dict[str, Any]:
        return {name: values[i] for name, values, i in zip(self._space, self._values, row, strict=True)}

    @cached_property
    def _all(self) -> Rows | None:
        sizes = list(map(len, self._values))
        return self._legal_rows(itertools.product(*map(range, sizes))) if math.prod(sizes) <= _MOST else None

    def _drawn(self, rng: np.random.Generator) -> Rows:
        drawn = np.stack([rng.integers(len(values), size=_DRAWN) for values in self._values], axis=1)
        return self._legal_rows(dict.fromkeys(map(tuple, drawn.tolist())))

    def _neighbours(self, row: Sequence[int]) -> Iterable[Row]:
        for place, values in enumerate(self._values):
            yield from ((*row[:place], other, *row[place + 1 :]) for other in range(len(values)) if other != row[place])

    def _legal_rows(self, rows: Iterable[Row]) -> Rows:
        return _matrix((row for row in rows if self._legal(self._params(row))), len(self._space))

    def _untried(self, rows: Rows, tried: set[Row]) -> Rows:
        return rows[[row not in tried for row in map(tuple, rows.tolist())]]

    def _seen(self, study: Study, rng: np.random.Generator) -> Seen:
        """Every trial whose values are known; one that still runs counts as an ordinary one (a constant liar)."""
        known = [(row, trial) for trial in study.get_trials(deepcopy=False) if (row := self._row(trial)) is not None]
        done = [trial for _, trial in known if trial.state is TrialState.COMPLETE]
        values, are_logs = _scores([trial.values for trial in done], study.directions, rng)
        scores = {trial.number: score for trial, score in zip(done, values.tolist(), strict=True)}
        finite = [score for score in scores.values() if math.isfinite(score)]
        lies = {TrialState.RUNNING: np.median(finite), TrialState.PRUNED: min(finite)} if finite else {}
        return Seen(
            rows=_matrix((row for row, _ in known), len(self._space)),
            scores=np.array([scores.get(t.number, lies.get(t.state, math.nan)) for _, t in known], dtype=np.float64),
            excess=np.array([math.inf if t.state is TrialState.FAIL else _excess(t) for _, t in known]),
            are_logs=are_logs,
        )

    def _row(self, trial: FrozenTrial) -> Row | None:
        """What was run, by what was asked for, else by what was proposed; None where neither tells all of it."""
        proposed = trial.system_attrs.get(_ROW)
        found = []
        for place, name in enumerate(self._space):
            as_proposed = proposed is not None and trial.params.get(name, _NOTHING) in (
                _NOTHING, self._values[place][proposed[place]],
            )  # fmt: skip
            index = proposed[place] if as_proposed else self._index(place, trial.params.get(name, _NOTHING))
            if index is None:
                return None
            found.append(index)
        return tuple(found)

    def _index(self, place: int, value: Any) -> int | None:
        """Of a value; of a number between those that are tried, the nearest one's."""
        values = self._values[place]
        if self._ordered[place] and isinstance(value, int | float):
            return int(np.argmin(np.abs(np.array(values, dtype=np.float64) - value)))
        return next((i for i, known in enumerate(values) if (type(known), known) == (type(value), value)), None)


def _excess(trial: FrozenTrial) -> float:
    """Its worst constraint: violated when > 0. Optuna 4 keeps them as a list, 5 also one by one."""
    attributes = trial.system_attrs
    single = [value for name, value in attributes.items() if name.startswith("constraints:")]
    found = map(float, [*(attributes.get("constraints") or ()), *single])
    return max((math.inf if math.isnan(each) else each for each in found), default=-math.inf)


def _scores(
    values: Sequence[Sequence[float]], directions: Sequence[StudyDirection], rng: np.random.Generator
) -> tuple[Floats, bool]:
    """Larger is better, NaN for what is not finite; and whether they are logarithms, as where all are positive.

    Several objectives become one by weights that are drawn anew each time: how far the worst of them is behind counts,
    and a little of their sum (Knowles, ParEGO, 2006).
    """
    if not values:
        return np.zeros(0), True
    signs = np.array([-1.0 if direction is StudyDirection.MINIMIZE else 1.0 for direction in directions])
    found = np.array(values, dtype=np.float64)
    found[~np.isfinite(found).all(axis=1)] = np.nan
    positive = np.logical_not((found <= 0).any(axis=0))
    found = signs * np.where(positive, np.log(np.maximum(found, 1e-300)), found)
    if len(signs) == 1:
        return found[:, 0], bool(positive[0])
    finite = found[np.isfinite(found).all(axis=1)]
    if not len(finite):
        return found[:, 0], False
    behind = (finite.max(axis=0) - found) / np.maximum(finite.std(axis=0), 1e-12) * rng.dirichlet(np.ones(len(signs)))
    return np.asarray(-behind.max(axis=1) - _EVENNESS * behind.sum(axis=1), dtype=np.float64), False


def _values(distribution: BaseDistribution) -> Iterable[Any]:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return list(choices)
        case IntDistribution(low=low, high=high, step=step):
            count = min((high - low) // step + 1, _STEPS if distribution.log else _LONG)
            return dict.fromkeys(low + step * round((place - low) / step) for place in _places(distribution, count))
        case FloatDistribution(low=low, high=high, step=step):
            count = _STEPS if step is None else min(round((high - low) / step) + 1, _LONG)
            return dict.fromkeys(_places(distribution, count))
        case _:
            raise ValueError(f"{type(distribution).__name__} is no distribution that is known")


def _places(distribution: Any, count: int) -> list[float]:
    """Evenly from the lowest to the highest, or their logarithms."""
    spaced = np.geomspace if distribution.log else np.linspace
    return [float(place) for place in spaced(distribution.low, distribution.high, count)]


def _are_ordered(values: Sequence[Any]) -> bool:
    """Whether they are different, finite numbers from small to large."""
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    return numeric and all(before < after for before, after in itertools.pairwise(values))


def _matrix(rows: Iterable[Row], columns: int) -> Rows:
    return np.array(list(rows), dtype=np.int32).reshape(-1, columns)
