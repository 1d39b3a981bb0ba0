"""The contest: a candidate against the baseline in interleaved pairs, until the answer is clear.

Only fresh data count, from fresh processes on both sides. The interval is a confidence sequence, so looking after
every pair is no peeking, and "do not know" is an answer.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from autotuner.analyze.judge import all_samples
from autotuner.events import Listener, Note, PairMeasured
from autotuner.plugins import WorkerPool
from autotuner.spec.model import Goal
from autotuner.statistics import LogRatioEstimate, estimate_log_ratio
from autotuner.types import Config, Decision, Failure, FailureKind, Measurement, Metrics, Pair
from autotuner.verify.arms import ArmError, Bench, Launch, MakeJob, Pace, Round, balanced_orders, spent_s, stage_name
from autotuner.verify.equivalence import worst_deviations
from autotuner.verify.sentence import explain_doubt, explain_failure, explain_gain

MIN_LAUNCHES = 3
ENOUGH_PAIRS = 12
# More pairs from one launch would leave too few launches to see how launches differ. In simulation, with launches that
# differ as much as pairs do, the interval's coverage at stopping sank to 92 % at ten; at four it stays above 96 %.
MAX_PAIRS_PER_LAUNCH = 4
_CANDIDATE, _BASELINE = "candidate", "baseline"


@dataclass(frozen=True, slots=True)
class ContestResult:
    """What a contest found.

    Attributes:
        decision: BETTER, SAME, WORSE, AMBIGUOUS; INVALID exactly when an arm failed.
        reason: One sentence with the numbers.
        estimate: Of the mean log ratio, in the direction of improvement.
        pairs: Raw evidence in order of time.
        launches: How many launches of each arm.
        candidate_samples: Raw samples of all the candidate's windows, by name.
        baseline_samples: The same of the baseline.
        comparisons: The candidate's worst deviations from the reference outputs; empty if none were compared.
        spread: The baseline's own worst deviations in its fresh launches: what A against A shows.
        environment: The machine and versions of the last window.
        failure: Why the contest ended early.
        failed_arm: "candidate" or "baseline", empty without a failure.
    """

    decision: Decision
    reason: str
    estimate: LogRatioEstimate
    pairs: tuple[Pair, ...]
    launches: int
    candidate_samples: Mapping[str, tuple[float, ...]]
    baseline_samples: Mapping[str, tuple[float, ...]]
    comparisons: Metrics
    spread: Metrics
    environment: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    failed_arm: str = ""

    @property
    def gain_ratio(self) -> float:
        """Factor in the direction of improvement; 1 when there are no pairs."""
        return math.exp(self.estimate.mean)

    @property
    def gain_interval(self) -> tuple[float, float]:
        """95 % confidence sequence of the factor, valid at the moment of stopping; (0, inf) for too few pairs."""
        return math.exp(self.estimate.low), math.exp(self.estimate.high)


@dataclass(frozen=True, slots=True)
class StopRule:
    """When a contest ends.

    Attributes:
        min_pairs: No decision before.
        max_pairs: The end, decided or not.
        precision_ratio: Half-width of the interval at which a clear decision ends it; from 12 pairs on any clear
            decision does.
        region: Gains and losses within it are none: the region of practical equivalence.
    """

    min_pairs: int
    max_pairs: int
    precision_ratio: float
    region: float


@dataclass(slots=True)
class _Evidence:
    """What has been seen so far; grows pair by pair."""

    sign: int
    pairs: list[Pair] = field(default_factory=list)
    launches: int = 0
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    estimate: LogRatioEstimate = field(default_factory=lambda: estimate_log_ratio((), ()))
    environment: Mapping[str, str] = field(default_factory=dict)

    def add(self, seen: Round) -> Pair:
        pair = Pair(seen.launch, seen.values[_CANDIDATE], seen.values[_BASELINE], seen.contended)
        self.pairs.append(pair)
        self.launches = seen.launch + 1
        logs = [self.sign * math.log(one.candidate / one.baseline) for one in self.pairs]
        self.estimate = estimate_log_ratio(logs, [one.launch for one in self.pairs])
        for arm, measurement in seen.measurements.items():
            self.environment = measurement.environment
            for name, values in all_samples(measurement).items():
                if name != "setup_s" or not measurement.reused:  # a process that stood open has nothing to set up
                    self.samples[arm][name].extend(values)
        return pair

    def keep_opening(self, opened: Mapping[str, Measurement]) -> None:
        """An opening is too short to tell anything but the time to set up."""
        for arm, measurement in opened.items():
            self.samples[arm]["setup_s"].append(measurement.setup_s)

    def decide(self, rule: StopRule) -> Decision:
        """The decision; none counts before enough pairs and launches were seen."""
        return Decision.AMBIGUOUS if self.too_early(rule) else decide(self.estimate, rule.region)

    def too_early(self, rule: StopRule) -> bool:
        """Whether too little was seen for any decision."""
        return len(self.pairs) < rule.min_pairs or self.launches < MIN_LAUNCHES

    def settled(self, rule: StopRule) -> bool:
        """Whether nothing more needs to be measured."""
        count = len(self.pairs)
        clear = self.decide(rule) is not Decision.AMBIGUOUS
        precise = (self.estimate.high - self.estimate.low) / 2 <= rule.precision_ratio
        return count >= rule.max_pairs or (clear and (precise or count >= ENOUGH_PAIRS))


def decide(estimate: LogRatioEstimate, region: float = 0.01) -> Decision:
    """BETTER or WORSE when the whole interval is beyond the region of equivalence, SAME when it is within.

    Args:
        estimate: Of the mean log ratio, in the direction of improvement.
        region: Half-width of the region around a factor of 1.
    """
    low, high = math.exp(estimate.low), math.exp(estimate.high)
    if low > 1 + region:
        return Decision.BETTER
    if high < 1 - region:
        return Decision.WORSE
    return Decision.SAME if low > 1 - region and high < 1 + region else Decision.AMBIGUOUS


def contest(
    pool: WorkerPool,
    make_job: MakeJob,
    candidate: Config,
    baseline: Config,
    objective: Goal,
    *,
    stage: str,
    seed: int,
    min_pairs: int = 6,
    max_pairs: int = 30,
    precision_ratio: float = 0.03,
    deadline: Callable[[], float],
    grace_s: float = 0.0,
    listener: Listener,
    region: float = 0.01,
) -> ContestResult:
    """Measure candidate and baseline side by side until the decision is clear or nothing is left to spend.

    Each launch opens a fresh process for each arm, named `{stage}-{number}-candidate` and `-baseline`. Two arms that
    do not fit in memory together are measured one at a time. `make_job` (config, launch, exclusive) gives a job whose
    protocol is that of one comparison window; `deadline` tells the seconds left, inf for no end, and `grace_s` how many
    more may go into pairs without which those taken so far decide nothing; `seed` fixes the random order; the rest is
    explained at `StopRule`.
    """
    bench = Bench(pool, make_job, objective, stage)
    rule = StopRule(min_pairs, max_pairs, precision_ratio, region)
    plan = _Plan(bench, {_CANDIDATE: candidate, _BASELINE: baseline}, rule, seed, deadline, grace_s, listener)
    exclusive = bench.needs_fresh_processes
    evidence, error = _collect(plan, exclusive)
    if error and error.failure.kind is FailureKind.OUT_OF_MEMORY and not exclusive:
        listener(Note(f"{stage_name(stage)}: both do not fit in memory side by side; starting over, one at a time"))
        evidence, error = _collect(plan, exclusive=True)
    return _conclude(plan, evidence, error)


@dataclass(frozen=True, slots=True)
class _Plan:
    bench: Bench
    configs: Mapping[str, Config]
    rule: StopRule
    seed: int
    deadline: Callable[[], float]
    grace_s: float
    listener: Listener

    def left_s(self, evidence: _Evidence) -> float:
        """Seconds for another pair; what was begun may reach its first decision a little late."""
        begun = bool(evidence.pairs) and evidence.too_early(self.rule)
        return self.deadline() + (self.grace_s if begun else 0.0)


def _collect(plan: _Plan, exclusive: bool) -> tuple[_Evidence, ArmError | None]:
    """Launch after launch until the evidence settles it, the time is up or an arm fails."""
    evidence, rng = _Evidence(plan.bench.objective.sign), Random(plan.seed)
    orders = balanced_orders((_CANDIDATE, _BASELINE), rng)
    opening, pairing = Pace(plan.deadline), Pace(plan.deadline)
    try:
        while plan.left_s(evidence) > opening.longest_s + pairing.longest_s and not evidence.settled(plan.rule):
            with Launch(plan.bench, evidence.launches, plan.configs, exclusive) as launch:
                with opening.timed():
                    opened = launch.open(rng.sample((_CANDIDATE, _BASELINE), 2))
                evidence.keep_opening(opened)
                _measure_pairs(plan, launch, orders, opening, pairing, spent_s(opened), evidence)
    except ArmError as error:
        return evidence, error
    return evidence, None


def _measure_pairs(
    plan: _Plan,
    launch: Launch,
    orders: Iterator[tuple[str, ...]],
    opening: Pace,
    pairing: Pace,
    opening_s: float,
    evidence: _Evidence,
) -> None:
    """The pairs of one launch: one when exclusive, else two or more, as long as they are needed and fit.

    Nothing can be decided before `MIN_LAUNCHES`: beyond two pairs, a launch leaves the next ones their time.
    """
    wanted = 1
    for taken in range(MAX_PAIRS_PER_LAUNCH):
        others = max(0, MIN_LAUNCHES - 1 - launch.number) if taken >= 2 else 0
        left_s = plan.left_s(evidence) - others * (opening.longest_s + 2 * pairing.longest_s)
        if taken >= wanted or (taken and (evidence.settled(plan.rule) or left_s <= pairing.longest_s)):
            return
        with pairing.timed():
            seen = launch.measure(next(orders))
        pair = evidence.add(seen)
        if not launch.exclusive:
            wanted = _pairs_per_launch(opening_s, spent_s(seen.measurements))
        estimate = evidence.estimate
        interval = (math.exp(estimate.low), math.exp(estimate.high))
        gain_ratio = math.exp(estimate.mean)
        plan.listener(PairMeasured(plan.bench.stage, pair, estimate.count, gain_ratio, interval))


def _pairs_per_launch(opening_s: float, pair_s: float) -> int:
    """Two when opening is cheap; when it is dear, so many that half of the time goes into measuring. Even: ABBA."""
    wanted = 2 * math.ceil(opening_s / pair_s / 2) if pair_s > 0 else 2
    return min(max(2, wanted), MAX_PAIRS_PER_LAUNCH)


def _conclude(plan: _Plan, evidence: _Evidence, error: ArmError | None) -> ContestResult:
    decision = Decision.INVALID if error else evidence.decide(plan.rule)
    samples = {
        arm: {name: tuple(values) for name, values in evidence.samples[arm].items()} for arm in (_CANDIDATE, _BASELINE)
    }
    return ContestResult(
        decision=decision,
        reason=explain_failure(error.arm, error.failure) if error else _explain(plan, evidence, decision),
        estimate=evidence.estimate,
        pairs=tuple(evidence.pairs),
        launches=evidence.launches,
        candidate_samples=samples[_CANDIDATE],
        baseline_samples=samples[_BASELINE],
        comparisons=worst_deviations(samples[_CANDIDATE]),
        spread=worst_deviations(samples[_BASELINE]),
        environment=evidence.environment,
        failure=error.failure if error else None,
        failed_arm=error.arm if error else "",
    )


def _explain(plan: _Plan, evidence: _Evidence, decision: Decision) -> str:
    if not evidence.pairs:
        return "the time was up before the first pair"
    objective, estimate = plan.bench.objective, evidence.estimate
    what = objective.metric if objective.sign > 0 else f"the gain in {objective.metric}"
    text = explain_gain(what, estimate, evidence.pairs, evidence.launches)
    if decision is not Decision.AMBIGUOUS:
        return text
    if evidence.too_early(plan.rule):
        least = f"{plan.rule.min_pairs} pairs and {MIN_LAUNCHES} launches"
        return f"{text}; the time was up, and at least {least} are needed"
    return f"{text}; {explain_doubt(estimate, plan.rule.region)}"
