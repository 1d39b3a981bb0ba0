"""What to try next: a pure function of the study and its record, so that a resumed study proposes the same."""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autotuner import telemetry
from autotuner.adjust.expectation import expected_scores, weight
from autotuner.adjust.hints import Hints, hints
from autotuner.adjust.optuna_search import suggest
from autotuner.adjust.pruning import worth_trying
from autotuner.adjust.scores import best_trial, penalised_scores
from autotuner.adjust.space import Floats, Mask, Row, Rows, Space
from autotuner.adjust.surrogate import forecast
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Origin, Trial, Value, config_key

__all__ = ["Proposal", "best_trial", "propose"]

_OPENING_SHARE = 1 / 3  # of the budget: most trials that move one parameter of the baseline alone
_LOCAL_EVERY = 4  # each fourth proposal is a step from the best
_SUGGESTIONS = 5  # of TPE's, of which the surrogate takes one
_TPE_FROM = 10  # trials: of fewer, good and bad ones have no densities to speak of
_FEW = 4096  # rows of which all can be forecast in no time
_OPTIMISM = 1.0  # standard deviations added to a forecast


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration to try, who proposed it, and why, in words for the reader of a report."""

    config: Config
    origin: Origin
    reason: str


@dataclass(frozen=True, slots=True)
class _Turn:
    """Everything that one proposal depends on; `rows` are the configurations still worth trying."""

    spec: StudySpec
    space: Space
    trials: Sequence[Trial]
    rows: Rows
    rng: random.Random
    hints: Hints

    @property
    def number(self) -> int:
        return len(self.trials)

    @property
    def remaining(self) -> int:
        return self.spec.budget.trials - self.number


@telemetry.traced("adjust")
def propose(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> Proposal | None:
    """The next configuration: legal, never tried, not ruled out by an out-of-memory.

    The baseline first. What fits the budget is tried exhaustively. Otherwise every parameter is moved alone, then TPE
    takes over, with a step from the best at every fourth trial.

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
    if spec.strategy == "random":
        return _proposal(turn, turn.rows[turn.rng.randrange(len(turn.rows))].tolist(), "at random")
    if space.rows is not None and len(turn.rows) <= turn.remaining:
        return _exhaust(turn)
    return _open(turn) or _step(turn) or _explore(turn)


def _turn(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> _Turn:
    rng = random.Random(f"{spec.seed}/{len(trials)}")
    best = best_trial(spec, trials)
    rows = space.candidates(rng, also=[spec.baseline, *([best.config] if best else [])])
    return _Turn(spec, space, trials, rows[worth_trying(space, trials, rows)], rng, hints(spec, trials))


def _exhaust(turn: _Turn) -> Proposal:
    """The nearest that is left: live parameters first, then as few reloads and changes to the baseline as can be."""
    reloads = _reloads(turn, turn.rows)
    from_baseline = turn.rows != np.array(turn.space.encode(turn.spec.baseline), dtype=np.int32)
    costly = from_baseline[:, [not live for live in _live(turn)]].sum(axis=1)
    order = np.lexsort((from_baseline.sum(axis=1), costly, reloads))
    return _proposal(turn, turn.rows[order[0]].tolist(), "every configuration that is left fits the budget")


def _open(turn: _Turn) -> Proposal | None:
    """Move one parameter of the baseline: the effects that a reader understands and the models start from."""
    if turn.number > turn.spec.budget.trials * _OPENING_SHARE:
        return None
    for name, value in _opening_moves(turn):
        config = turn.space.move(turn.spec.baseline, name, value)
        if config is not None and len(_left(turn, [turn.space.encode(config)])):
            return _hinted(turn, name, config, f"the baseline with {name} = {_text(value)}")
    return None


def _hinted(turn: _Turn, name: str, config: Config, reason: str) -> Proposal:
    """A move of one parameter, credited to the diagnosis when it acts on what binds."""
    if turn.hints.rank(name) == 0:
        return Proposal(config, Origin.HINT, f"{reason}, for {turn.hints.binding.replace('_', ' ')} binds")
    return Proposal(config, Origin.SAMPLER, reason)


def _opening_moves(turn: _Turn) -> list[tuple[str, Value]]:
    """What acts on the bound resource first, what cannot help it last."""
    return sorted(_single_moves(turn), key=lambda move: turn.hints.rank(move[0]))


def _single_moves(turn: _Turn) -> Iterator[tuple[str, Value]]:
    """Live parameters to their middle and their top, then every other one to one other value."""
    names = [*filter(lambda name: turn.spec.trait(name).live, turn.space.names)]
    for name in names:
        values = turn.spec.parameters[name].values
        yield name, values[len(values) // 2]
        yield name, values[-1]
    for name in turn.space.names:
        parameter = turn.spec.parameters[name]
        others = [value for value in parameter.values if config_key({"": value}) != config_key({"": parameter.default})]
        if name not in names and others:
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


def _step(turn: _Turn) -> Proposal | None:
    """At every fourth trial, the most promising single change of the best; None otherwise or if there is none."""
    best = best_trial(turn.spec, turn.trials)
    if best is None or turn.number % _LOCAL_EVERY:
        return None
    near = _left(turn, turn.space.neighbours(best.config))
    if not len(near):
        return None
    if len(helpful := near[~_only_moves(turn, near, best.config, turn.hints.last)]):
        near = helpful
    return _pick(turn, near, f"a step from trial {best.number}", _promise(turn, near))


def _only_moves(turn: _Turn, rows: Rows, config: Config, names: Sequence[str]) -> Mask:
    """Which rows differ from a configuration in parameters of these names and no other."""
    here = np.array(turn.space.encode(config), dtype=np.int32)
    others = [name not in names for name in turn.space.names]
    return np.asarray((rows[:, others] == here[others]).all(axis=1), dtype=np.bool_)


def _left(turn: _Turn, rows: Iterable[Row]) -> Rows:
    """Those of a few legal rows that are still worth trying."""
    few = turn.space.matrix(rows)
    return few[worth_trying(turn.space, turn.trials, few)]


def _explore(turn: _Turn) -> Proposal:
    """The most promising of the configurations nearest to what TPE suggests, or of all while it knows little."""
    if turn.number < _TPE_FROM and len(turn.rows) <= _FEW:
        return _pick(turn, turn.rows, "what the models expect most of", _promise(turn, turn.rows))
    wanted = suggest(turn.space, turn.trials, turn.rng.randrange(2**32), _SUGGESTIONS)
    near = turn.space.matrix(dict.fromkeys(_nearest(turn, row) for row in wanted))
    return _pick(turn, near, "among good trials and unlike bad ones", _promise(turn, near))


def _nearest(turn: _Turn, row: Row) -> Row:
    """The nearest configuration that is worth trying; of equals one without a reload, then by lot."""
    return tuple(_choose(turn, turn.rows, -turn.space.distances(turn.rows, row)))


def _promise(turn: _Turn, rows: Rows) -> Floats:
    """What the surrogate expects of `rows` at its most optimistic; all alike while nothing was feasible."""
    values = penalised_scores(turn.spec, turn.trials)
    if values is None:
        return np.zeros(len(rows))
    observed = turn.space.matrix(turn.space.encode(trial.config) for trial in turn.trials)
    before, after = (expected_scores(turn.spec, turn.space, turn.trials, each) for each in (observed, rows))
    believed = weight(turn.spec, turn.trials, before)
    expected = forecast(turn.space, observed, np.array(values) - believed * before, rows)
    return believed * after + expected.mean + _OPTIMISM * expected.deviation


def _pick(turn: _Turn, rows: Rows, reason: str, merit: Floats) -> Proposal:
    return _proposal(turn, _choose(turn, rows, merit), reason)


def _choose(turn: _Turn, rows: Rows, merit: Floats) -> list[int]:
    """One of the rows with the largest merit; among equals one without a reload, then by lot."""
    equals = rows[merit >= merit.max() - 1e-9]
    reloads = _reloads(turn, equals)
    equals = equals[reloads == reloads.min()]
    chosen: list[int] = equals[turn.rng.randrange(len(equals))].tolist()
    return chosen


def _reloads(turn: _Turn, rows: Rows) -> Floats:
    """How many parameters that need a reload differ from the previous trial's."""
    previous = np.array(turn.space.encode(turn.trials[-1].config), dtype=np.int32)
    costly = [not live for live in _live(turn)]
    return np.asarray((rows[:, costly] != previous[costly]).sum(axis=1), dtype=np.float64)


def _live(turn: _Turn) -> list[bool]:
    return [turn.spec.trait(name).live for name in turn.space.names]


def _proposal(turn: _Turn, row: Sequence[int], reason: str) -> Proposal:
    return Proposal(turn.space.decode(row), Origin.SAMPLER, reason)


def _text(value: Value) -> str:
    """A value as the study file writes it."""
    return config_key({"": value})[4:-1]
