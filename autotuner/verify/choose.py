"""Whom to verify: the few best of the search, raced against each other on fresh data.

A race only picks the leader. Its data are thrown away: numbers that chose a winner flatter it.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from autotuner.events import Listener, Note
from autotuner.plugins import WorkerPool
from autotuner.spec.model import Goal
from autotuner.statistics import estimate_log_ratio
from autotuner.types import FailureKind, Origin, Trial, config_key
from autotuner.verify.arms import ArmError, Bench, Launch, MakeJob, Pace, Round, balanced_orders, stage_name

# Dropping out of the race costs at most a good finalist, never a false claim: 80 % confidence will do, and each round
# counts for itself, since two launches cannot tell how launches differ.
_RACE_ALPHA = 0.2
_NOISY_EXTRA = 2
RACE_ROUNDS = 2
_NORMAL_95 = 1.96
_LARGEST_PRECISION_RATIO = 1.0


@dataclass(frozen=True, slots=True)
class _Claim:
    """A trial's log value in the direction of improvement, with its 95 % half-width."""

    trial: Trial
    value: float
    half_width: float

    @property
    def score(self) -> float:
        """One standard error below the value: what is known badly must promise more."""
        return self.value - self.half_width / _NORMAL_95

    def may_reach(self, other: "_Claim") -> bool:
        """Whether the intervals overlap, or this one is above."""
        return self.value + self.half_width >= other.value - other.half_width


def finalists(
    trials: Sequence[Trial], objective: Goal, count: int, noisy: bool, refused: Collection[str] = ()
) -> list[Trial]:
    """The trials worth verifying, the most promising first.

    Feasible and measured, none twice, not the baseline, not clearly worse than it, and each with an interval that
    reaches the leader's. The order is by value less one standard error, so that a lucky measurement with ±20 % noise
    does not pass one of ±1 % that is 3 % below it.

    Args:
        trials: Of the search.
        objective: What is compared.
        count: At most so many.
        noisy: Two more, since the right one is less surely among the first.
        refused: Keys of configurations that are known not to do.
    """
    baselines = [trial for trial in trials if trial.origin is Origin.BASELINE]
    excluded = {config_key(trial.config) for trial in baselines}.union(refused)
    reference = next(filter(None, (_claim(trial, objective) for trial in baselines)), None)
    best: dict[str, _Claim] = {}
    for trial in trials:
        claim, key = _claim(trial, objective), config_key(trial.config)
        if claim is None or key in excluded or trial.verdict is None or not trial.verdict.feasible:
            continue
        if (reference is None or claim.may_reach(reference)) and (key not in best or claim.score > best[key].score):
            best[key] = claim
    ranked = sorted(best.values(), key=lambda claim: -claim.score)
    close = [claim.trial for claim in ranked if claim.may_reach(ranked[0])]
    return close[: count + (_NOISY_EXTRA if noisy else 0)]


def _claim(trial: Trial, objective: Goal) -> _Claim | None:
    """None for what gave no positive, finite value."""
    value = trial.verdict.objectives.get(objective.metric, math.nan) if trial.verdict else math.nan
    if trial.verdict is None or not (math.isfinite(value) and value > 0):
        return None
    precision_ratio = trial.verdict.precision_ratio
    bounded = min(precision_ratio, _LARGEST_PRECISION_RATIO) if precision_ratio >= 0 else _LARGEST_PRECISION_RATIO
    return _Claim(trial, objective.sign * math.log(value), math.log1p(bounded))


def race(
    pool: WorkerPool,
    make_job: MakeJob,
    candidates: Sequence[Trial],
    objective: Goal,
    *,
    seed: int,
    deadline: Callable[[], float],
    listener: Listener,
    stage: str = "race",
    launches: int = 3,
    rounds: int = RACE_ROUNDS,
    expected_s: float = 0.0,
) -> Trial | None:
    """Measure the finalists side by side in shared launches and return the leader.

    Each launch opens one fresh process for each finalist still in the race, and measures all in random order, then in
    the reverse. Who fails or is clearly behind drops out.

    The arguments are those of `contest`, but for `candidates`, the most promising first, who leads when there is no
    time to measure, the number of `launches` and of `rounds` in each, and the seconds that the first is likely to take.

    Returns:
        The leader; None only when there are no candidates.
    """
    runners = {f"trial{trial.number}": trial for trial in candidates}
    course = _Race(Bench(pool, make_job, objective, stage), Random(seed), listener, runners)
    pace = Pace(deadline, expected_s)
    for number in range(launches):
        while len(course.running) > 1 and deadline() > pace.longest_s:
            with pace.timed():
                complete = course.run(number, rounds)
            if complete:
                break
        course.drop_stragglers()
    return course.leader()


class _Race:
    """The state of a race: who still runs, and what was seen."""

    def __init__(self, bench: Bench, rng: Random, listener: Listener, running: Mapping[str, Trial]) -> None:
        self.running = dict(running)
        self._bench = bench
        self._rng = rng
        self._listener = listener
        self._seen: list[Round] = []
        self._exclusive = bench.needs_fresh_processes

    def run(self, number: int, rounds: int) -> bool:
        """One launch; False when it broke off and the rest must run it again."""
        arms = list(self.running)
        orders = balanced_orders(arms, self._rng)
        configs = {arm: trial.config for arm, trial in self.running.items()}
        seen = []
        try:
            with Launch(self._bench, number, configs, self._exclusive) as launch:
                launch.open(self._rng.sample(arms, len(arms)))
                seen = [launch.measure(next(orders)) for _ in range(rounds)]
        except ArmError as error:
            self._meet(error)
            return False
        self._seen += seen
        return True

    def _meet(self, error: ArmError) -> None:
        """Out of memory side by side is nobody's fault; any other failure is the arm's own."""
        if error.failure.kind is FailureKind.OUT_OF_MEMORY and not self._exclusive:
            self._exclusive = True
            self._listener(Note(f"{stage_name(self._bench.stage)}: the finalists do not fit in memory side by side"))
            return
        del self.running[error.arm]
        self._listener(Note(f"{stage_name(self._bench.stage)}: {error.arm} failed ({error.failure.kind}) and is out"))

    def drop_stragglers(self) -> None:
        """Take out who is clearly behind the leader."""
        leader = self._first()
        for arm in [arm for arm in self.running if arm != leader]:
            behind = [self._log(seen, arm) - self._log(seen, leader) for seen in self._seen]
            if estimate_log_ratio(behind, range(len(behind)), _RACE_ALPHA).high < 0:
                del self.running[arm]
                self._listener(Note(f"{stage_name(self._bench.stage)}: {arm} is clearly behind {leader} and is out"))

    def leader(self) -> Trial | None:
        """The best of those still in the race."""
        return self.running[self._first()] if self.running else None

    def _first(self) -> str:
        """Name of the best so far; the most promising one while nothing was measured."""
        totals = {arm: math.fsum(self._log(seen, arm) for seen in self._seen) for arm in self.running}
        return max(totals, key=totals.__getitem__, default="")

    def _log(self, seen: Round, arm: str) -> float:
        return self._bench.objective.sign * math.log(seen.values[arm])
