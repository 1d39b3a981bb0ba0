"""What to try next: a pure function of the study and its record, so that a resumed study proposes the same."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from autotuner import telemetry
from autotuner.adjust.costs import costs_s, needs_reload, reloads
from autotuner.adjust.dimensions import Floats, Rows
from autotuner.adjust.expectation import believed_scores
from autotuner.adjust.hints import Hints, hints
from autotuner.adjust.moves import OPENING_TRIALS, anywhere, close_to, farthest, steps
from autotuner.adjust.optuna_search import suggest
from autotuner.adjust.promise import Seen, log_chance_to_fit, outlook, promise
from autotuner.adjust.pruning import worth_trying
from autotuner.adjust.scores import best_trial, evidence
from autotuner.adjust.space import Mask, Row, Space
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Origin, Trial, Value, config_key

__all__ = ["Proposal", "best_trial", "propose"]

_OPENING_SHARE = 1 / 3  # of the budget: most trials before the model is asked
# Chances to fit, as the model of memory sees them, and the share of the trials that may run out of it.
_SURE_TO_FIT, _RATHER_FITS, _MAY_FIT, _LOST_SHARE = 0.995, 0.7, 0.1, 1 / 40
_HINTED_SHARE = 1 / 4  # of the budget: most that move one parameter of the baseline; too near, and a model is blind


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to try, who proposed it, and why, in words for the reader of a report."""

    config: Config
    origin: Origin
    reason: str


@dataclass(frozen=True)
class _Turn:
    """Everything that one proposal depends on; `rows` are the configurations still worth trying."""

    spec: StudySpec
    space: Space
    trials: Sequence[Trial]
    rows: Rows
    rng: random.Random
    hints: Hints
    seen: Seen = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", evidence(self.spec, self.space, self.trials))

    @property
    def number(self) -> int:
        return len(self.trials)

    @property
    def remaining(self) -> int:
        return self.spec.budget.trials - self.number

    @cached_property
    def draws(self) -> np.random.Generator:
        return np.random.default_rng(self.rng.randrange(2**32))


@telemetry.traced("adjust")
def propose(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> Proposal | None:
    """The next configuration: legal, never tried, not ruled out by an out-of-memory.

    The baseline first, then what is known to be worth a look. What fits the budget is tried exhaustively, in the order
    that reloads least where something can be changed without. Otherwise what acts on the bound resource is moved
    alone, then a few configurations far from each other are looked at, and from then on a model of all that was
    measured says which one promises most; every other trial is a step from the best.

    Returns:
        None when the budget is used up or nothing is left to try.
    """
    if not trials:
        return Proposal(space.canonical(spec.baseline), Origin.BASELINE, "what is in use today")
    if len(trials) >= spec.budget.trials:
        return None
    turn = _turn(spec, space, trials)
    if not len(turn.rows):
        return None
    if known := _suggested(turn):
        return known
    if spec.strategy == "random":
        return _proposal(turn, turn.rows[turn.rng.randrange(len(turn.rows))].tolist(), "at random")
    if spec.strategy == "grid":
        return _proposal(turn, turn.rows[0].tolist(), "the next in order")
    if space.rows is not None and len(turn.rows) <= turn.remaining and not all(needs_reload(spec)):
        return _exhaust(turn)
    if spec.strategy == "tpe":
        return _by_tpe(turn)
    return _hinted(turn) or _far(turn) or _step(turn) or _explore(turn)


def _turn(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> _Turn:
    rng = random.Random(f"{spec.seed}/{len(trials)}")
    best = best_trial(spec, trials)
    rows = space.candidates(rng, also=[spec.baseline, *([best.config] if best else [])])
    return _Turn(spec, space, trials, rows[worth_trying(space, trials, rows)], rng, hints(spec, trials))


def _suggested(turn: _Turn) -> Proposal | None:
    """What the study file says to try first."""
    for suggestion in turn.spec.try_first:
        config = turn.space.canonical({**turn.spec.baseline, **suggestion.change})
        if config in turn.space and len(_left(turn, [turn.space.encode(config)])):
            return Proposal(config, Origin.TRANSFER, suggestion.because)
    return None


def _exhaust(turn: _Turn) -> Proposal:
    """The nearest that is left: live parameters first, then as few reloads and changes to the baseline as can be."""
    loads = reloads(turn.spec, turn.space, turn.trials, turn.rows)
    from_baseline = turn.rows != np.array(turn.space.encode(turn.spec.baseline), dtype=np.int32)
    costly = from_baseline[:, needs_reload(turn.spec)].sum(axis=1)
    order = np.lexsort((from_baseline.sum(axis=1), costly, loads))
    return _proposal(turn, turn.rows[order[0]].tolist(), "every configuration that is left fits the budget")


def _by_tpe(turn: _Turn) -> Proposal:
    """The nearest configuration to what Optuna's TPE suggests; of equals one without a reload, then by lot."""
    wanted = turn.space.matrix([suggest(turn.space, turn.trials, turn.rng.randrange(2**32))])
    row = _choose(turn, turn.rows, -turn.space.shape.distances(turn.rows, wanted)[:, 0])
    return _proposal(turn, row, "the nearest to what Optuna's TPE suggests")


def _hinted(turn: _Turn) -> Proposal | None:
    """The baseline with one parameter moved that acts on what binds: there most is to be gained."""
    if turn.number > turn.spec.budget.trials * _HINTED_SHARE:
        return None
    for name, value in _single_moves(turn):
        config = turn.space.move(turn.spec.baseline, name, value)
        if config is not None and len(_fitting(turn, _left(turn, [turn.space.encode(config)]), else_all=False)):
            binds = turn.hints.binding.replace("_", " ")
            return Proposal(config, Origin.HINT, f"the baseline with {name} = {_text(value)}, for {binds} binds")
    return None


def _single_moves(turn: _Turn) -> Iterator[tuple[str, Value]]:
    """Live parameters to their middle and their top, then every other one to one other value."""
    names = [name for name in turn.space.names if turn.hints.rank(name) == 0]
    live = [name for name in names if turn.spec.trait(name).live]
    for name in live:
        values = turn.spec.parameters[name].values
        yield name, values[len(values) // 2]
        yield name, values[-1]
    for name in names:
        parameter = turn.spec.parameters[name]
        others = [value for value in parameter.values if config_key({"": value}) != config_key({"": parameter.default})]
        if name not in live and others:
            yield name, _first_look(others, memory=turn.spec.trait(name).memory)


def _first_look(values: Sequence[Value], *, memory: bool) -> Value:
    """The one to try first: of names the first, of numbers the middle, which says more than a neighbour of the default.

    Where memory grows with it, the middle of the logarithms: the arithmetic one of a wide range seldom fits.
    """
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return values[0]
    ordered = sorted(numbers)
    if memory and ordered[0] > 0:
        middle = math.sqrt(ordered[0] * ordered[-1])
        return min(ordered, key=lambda value: abs(math.log(value / middle)))
    return ordered[len(ordered) // 2]


def _far(turn: _Turn) -> Proposal | None:
    """At the beginning, and while nothing could be measured, what is least like everything tried."""
    looked = sum(trial.origin is not Origin.TRANSFER for trial in turn.trials)  # these may be near each other
    few = looked < min(OPENING_TRIALS, turn.spec.budget.trials * _OPENING_SHARE)
    if not few and np.isfinite(turn.seen.scores).any():
        return None
    rows = anywhere(turn.seen, turn.rows, lambda row: _near(turn, row), turn.draws)
    row = farthest(turn.space.shape, turn.seen.rows, _fitting(turn, rows, rather=True), turn.draws)
    return _proposal(turn, row.tolist(), "as unlike everything tried as can be")


def _fitting(turn: _Turn, rows: Rows, *, else_all: bool = True, rather: bool = False) -> Rows:
    """Those that may fit into memory; all if there are none.

    One trial in forty may be lost to find where the memory ends: nobody would ever know it otherwise. Beyond, only what
    is nearly sure to fit is tried, which makes the model surer of what lies behind.
    """
    lost = sum(trial.ran_out_of_memory for trial in turn.trials)
    sure = _SURE_TO_FIT if lost > _LOST_SHARE * turn.number else _RATHER_FITS if rather else _MAY_FIT
    fits = log_chance_to_fit(turn.space.shape, turn.seen, rows) > math.log(sure)
    return rows[fits] if fits.any() or not else_all else rows


def _step(turn: _Turn) -> Proposal | None:
    """At every other trial, the most promising small change of the best; None otherwise or if there is none."""
    best = best_trial(turn.spec, turn.trials)
    near = _fitting(turn, steps(turn.seen, lambda row: _near(turn, row)), else_all=False)
    if best is None or not len(near):
        return None
    if len(helpful := near[~_only_moves(turn, near, best.config, turn.hints.last)]):
        near = helpful
    return _promising(turn, near, f"promises most of the steps from trial {best.number}")


def _only_moves(turn: _Turn, rows: Rows, config: Config, names: Sequence[str]) -> Mask:
    """Which rows differ from a configuration in parameters of these names and no other."""
    here = np.array(turn.space.encode(config), dtype=np.int32)
    others = [name not in names for name in turn.space.names]
    return np.asarray((rows[:, others] == here[others]).all(axis=1), dtype=np.bool_)


def _explore(turn: _Turn) -> Proposal:
    """What promises most of a sample of all that is left."""
    rows = _fitting(turn, anywhere(turn.seen, turn.rows, lambda row: _near(turn, row), turn.draws))
    return _promising(turn, rows, "promises most of all that is left", by_rank=True)


def _near(turn: _Turn, row: npt.NDArray[np.int32]) -> Rows:
    """What is worth trying and differs in one choice, or in two parameters where the space is listed."""
    single = _left(turn, turn.space.neighbours(turn.space.decode(row.tolist())))
    return single if turn.space.rows is None else np.concatenate([single, close_to(turn.rows, row, turn.draws)])


def _left(turn: _Turn, rows: Iterable[Row]) -> Rows:
    """Those of a few legal rows that are still worth trying."""
    few = turn.space.matrix(rows)
    return few[worth_trying(turn.space, turn.trials, few)]


def _promising(turn: _Turn, rows: Rows, reason: str, *, by_rank: bool = False) -> Proposal:
    """What promises most for what it costs: the logarithm of the gain, less half of that of the seconds.

    The whole of it would only ever try what is cheap; half of it took the least time in simulated studies.
    """
    expected = believed_scores(turn.spec, turn.space, turn.trials, turn.seen.rows, rows)
    gain = promise(turn.space.shape, turn.seen, rows, *expected, by_rank=by_rank)
    merit = gain - 0.5 * np.log(costs_s(turn.spec, turn.space, turn.trials, rows))
    row = _choose(turn, rows, merit)
    one = turn.space.matrix([tuple(row)])
    best = best_trial(turn.spec, turn.trials)
    expected = believed_scores(turn.spec, turn.space, turn.trials, turn.seen.rows, one)
    words = outlook(turn.space.shape, turn.seen, one, *expected)
    compared = f", the best is trial {best.number}" if best else ""
    return _proposal(turn, row, f"{reason}: {words}{compared}")


def _choose(turn: _Turn, rows: Rows, merit: Floats) -> list[int]:
    """One of the rows with the largest merit; among equals one without a reload, then by lot."""
    merit = np.nan_to_num(merit, nan=-np.inf)
    equals = rows[merit >= merit.max() - 1e-9]
    loads = reloads(turn.spec, turn.space, turn.trials, equals)
    equals = equals[loads == loads.min()]
    chosen: list[int] = equals[turn.rng.randrange(len(equals))].tolist()
    return chosen


def _proposal(turn: _Turn, row: Sequence[int], reason: str) -> Proposal:
    return Proposal(turn.space.decode(row), Origin.SAMPLER, reason)


def _text(value: Value) -> str:
    """A value as the study file writes it."""
    return config_key({"": value})[4:-1]
