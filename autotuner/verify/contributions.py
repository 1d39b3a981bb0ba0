"""What each changed parameter is worth, and whether it is needed at all.

A search changes many parameters and few of them matter. Each is put back to its default in turn; what nobody would
miss stays there, so that the recommendation is as near to the user's own configuration as it can be.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from autotuner.analyze.judge import all_samples
from autotuner.events import Listener, Note, PairMeasured
from autotuner.metrics import value_of
from autotuner.plugins import WorkerPool
from autotuner.spec.expressions import Limit
from autotuner.spec.model import StudySpec
from autotuner.statistics import mean_interval
from autotuner.types import Config, Contribution, FailureKind, Pair
from autotuner.verify.arms import ArmError, Bench, Launch, MakeJob, Pace, balanced_orders, stage_name

CONTRIBUTION_PAIRS = 4
_NOT_MISSED_RATIO = 1.005
_NEARER_RATIO = 1.01
_LEADER, _REVERTED = "leader", "reverted"


def contributions(
    pool: WorkerPool,
    make_job: MakeJob,
    spec: StudySpec,
    leader: Config,
    *,
    seed: int,
    deadline: Callable[[], float],
    listener: Listener,
    pairs: int = CONTRIBUTION_PAIRS,
    stage: str = "contributions",
    expected_s: float = 0.0,
) -> tuple[Config, tuple[Contribution, ...]]:
    """Put each changed parameter back to its default, and keep it there if that costs less than half a percent.

    Each is judged by `pairs` interleaved pairs in one launch, with Student's interval, since their number is fixed
    beforehand; `make_job`, `seed`, `deadline` and `listener` are as for `contest`; `expected_s` is what the first of
    them is likely to take. What fails, is forbidden or finds no time left stays changed, and the listener hears why.

    Returns:
        The simplified leader, and what the parameters are worth in which it differs from the baseline.
    """
    ablation = _Ablation(spec, Bench(pool, make_job, spec.objective, stage), Random(seed), listener, pairs)
    worth: dict[str, Contribution] = {}
    pace = Pace(deadline, expected_s)
    for number, name in enumerate(_changed(spec, leader)):
        if leader[name] == spec.baseline[name]:
            continue  # put back together with one that it depends on
        reverted = spec.canonical({**leader, name: spec.baseline[name]})
        if spec.legal(reverted) and deadline() <= pace.longest_s:
            listener(Note(f"{stage_name(stage)}: no time was left to weigh {name}"))
            break
        with pace.timed():
            found = ablation.judge(name, number, leader, reverted)
        if found is not None and found.gain_ratio < _NOT_MISSED_RATIO and ablation.keeps_limits:
            listener(Note(f"{stage_name(stage)}: {name} goes back, its change was worth {found.gain_ratio - 1:+.1%}"))
            leader = reverted
        elif found is not None:
            worth[name] = found
    return leader, tuple(worth[name] for name in _changed(spec, leader) if name in worth)


def _changed(spec: StudySpec, config: Config) -> Sequence[str]:
    return [name for name, default in spec.baseline.items() if config[name] != default]


@dataclass(slots=True)
class _Ablation:
    """Compares the leader with itself less one change."""

    spec: StudySpec
    bench: Bench
    rng: Random
    listener: Listener
    pairs: int
    exclusive: bool = False
    keeps_limits: bool = True  # whether the last reverted configuration did, as far as the leader does

    def judge(self, parameter: str, number: int, leader: Config, reverted: Config) -> Contribution | None:
        """What the change is worth; None, after a note, when it cannot be told."""
        if not self.spec.legal(reverted):
            self._note(f"{parameter} skipped, a rule forbids to put it back alone")
            return None
        try:
            logs = self._compare(number, {_LEADER: leader, _REVERTED: reverted})
        except ArmError as error:
            self._note(f"{parameter} skipped, the {error.arm} configuration failed, {error.failure.kind}")
            return None
        mean, low, high = map(math.exp, mean_interval(logs))
        return Contribution(parameter, mean, (low, high), len(logs))

    def _note(self, text: str) -> None:
        self.listener(Note(f"{stage_name(self.bench.stage)}: {text}"))

    def _compare(self, number: int, configs: Mapping[str, Config]) -> Sequence[float]:
        """Log ratios; side by side if both fit in memory, else one at a time."""
        exclusive = self.exclusive or self.bench.needs_fresh_processes
        try:
            return self._measure(number, configs, exclusive)
        except ArmError as error:
            if error.failure.kind is not FailureKind.OUT_OF_MEMORY or exclusive:
                raise
            self.exclusive = True
        return self._measure(number, configs, exclusive=True)

    def _measure(self, number: int, configs: Mapping[str, Config], exclusive: bool) -> Sequence[float]:
        orders = balanced_orders((_LEADER, _REVERTED), self.rng)
        logs: list[float] = []
        pooled: dict[str, dict[str, list[float]]] = {arm: defaultdict(list) for arm in configs}
        with Launch(self.bench, number, configs, exclusive) as launch:
            launch.open(self.rng.sample((_LEADER, _REVERTED), 2))
            for _ in range(self.pairs):
                seen = launch.measure(next(orders))
                pair = Pair(number, seen.values[_LEADER], seen.values[_REVERTED], seen.contended)
                logs.append(self.bench.objective.sign * math.log(pair.candidate / pair.baseline))
                for arm, measurement in seen.measurements.items():
                    for name, values in all_samples(measurement).items():
                        pooled[arm][name].extend(values)
                mean, low, high = map(math.exp, mean_interval(logs))
                self.listener(PairMeasured(self.bench.stage, pair, len(logs), mean, (low, high)))
        self.keeps_limits = all(_keeps(limit, pooled[_LEADER], pooled[_REVERTED]) for limit in self.spec.limits)
        return logs


def _keeps(limit: Limit, leader: Mapping[str, Sequence[float]], reverted: Mapping[str, Sequence[float]]) -> bool:
    """Whether putting a change back breaks no limit; one in terms of the baseline must not come nearer by over 1 %."""
    before, after = value_of(limit.metric, leader), value_of(limit.metric, reverted)
    if limit.relative:
        return after <= _NEARER_RATIO * before if limit.op == "<=" else after * _NEARER_RATIO >= before
    return limit.excess(after, None) <= 0 or limit.excess(before, None) > 0
