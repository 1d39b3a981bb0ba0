"""The contest: a candidate against the baseline in interleaved pairs, until the answer is clear.

Only fresh data count, from fresh processes on both sides. The interval is a confidence sequence, so looking after
every pair is no peeking, and "do not know" is an answer.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from autotuner.events import Listener, Note, PairMeasured
from autotuner.plugins import WorkerPool
from autotuner.spec.model import Objective
from autotuner.statistics import LogRatioEstimate, estimate_log_ratio, pairs_for_half_width
from autotuner.types import Config, Decision, Failure, FailureKind, Measurement, Metrics, Pair
from autotuner.verify.arms import ArmError, Bench, Launch, MakeJob, Pace, Round, balanced_orders, spent_s
from autotuner.verify.equivalence import worst_deviations

MIN_LAUNCHES = 3
ENOUGH_PAIRS = 12
# More pairs from one launch would leave too few launches to see how launches differ: at 10 the interval's coverage
# sank to 92 % in simulation, at 6 it keeps above 95 %.
MAX_PAIRS_PER_LAUNCH = 6
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

    def add(self, seen: Round) -> Pair:
        pair = Pair(seen.launch, seen.values[_CANDIDATE], seen.values[_BASELINE], seen.contended)
        self.pairs.append(pair)
        self.launches = seen.launch + 1
        self.keep(seen.measurements)
        return pair

    def keep(self, measurements: Mapping[str, Measurement], *, opening: bool = False) -> None:
        """Pool raw samples. An opening is too short for any but its set-up time; later windows have no set-up."""
        for arm, measurement in measurements.items():
            for name, values in measurement.samples.items():
                if opening == (name == "setup_s") or not measurement.reused and not opening:
                    self.samples[arm][name].extend(values)

    def estimate(self) -> LogRatioEstimate:
        logs = [self.sign * math.log(pair.candidate / pair.baseline) for pair in self.pairs]
        return estimate_log_ratio(logs, [pair.launch for pair in self.pairs])

    def decide(self, estimate: LogRatioEstimate, rule: StopRule) -> Decision:
        """The decision; none counts before enough pairs and launches were seen."""
        early = len(self.pairs) < rule.min_pairs or self.launches < MIN_LAUNCHES
        return Decision.AMBIGUOUS if early else decide(estimate, rule.region)

    def settled(self, rule: StopRule) -> bool:
        """Whether nothing more needs to be measured."""
        count = len(self.pairs)
        estimate = self.estimate()
        clear = self.decide(estimate, rule) is not Decision.AMBIGUOUS
        precise = (estimate.high - estimate.low) / 2 <= rule.precision_ratio
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
    objective: Objective,
    *,
    stage: str,
    seed: int,
    min_pairs: int = 6,
    max_pairs: int = 30,
    precision_ratio: float = 0.03,
    deadline: Callable[[], float],
    listener: Listener,
    region: float = 0.01,
) -> ContestResult:
    """Measure candidate and baseline side by side until the decision is clear or nothing is left to spend.

    Each launch opens a fresh process for each arm, named `{stage}-{number}-candidate` and `-baseline`; two pairs a
    launch, more when opening is dear. Two arms that do not fit in memory together are measured one at a time.

    Args:
        pool: Where jobs run.
        make_job: (config, launch, exclusive) -> a job whose protocol is that of one comparison window.
        candidate: Its configuration.
        baseline: What it is compared with.
        objective: What is compared.
        stage: "contest", or whatever tells these launches from others.
        seed: Of the random order.
        min_pairs: No decision before, nor before three launches.
        max_pairs: The end, decided or not.
        precision_ratio: Half-width of the interval at which a clear decision ends the contest.
        deadline: Seconds left; may be inf.
        listener: Hears of every pair.
        region: Factors within 1 ± region are no difference.
    """
    bench = Bench(pool, make_job, objective, stage)
    rule = StopRule(min_pairs, max_pairs, precision_ratio, region)
    configs = {_CANDIDATE: candidate, _BASELINE: baseline}
    evidence = _Evidence(objective.sign)
    try:
        try:
            _collect(bench, configs, rule, evidence, Random(seed), deadline, listener, bench.needs_fresh_processes)
        except ArmError as error:
            if error.failure.kind is not FailureKind.OUT_OF_MEMORY or bench.needs_fresh_processes:
                raise
            listener(Note(f"{stage}: both do not fit in memory side by side; starting over, one at a time"))
            evidence = _Evidence(objective.sign)
            _collect(bench, configs, rule, evidence, Random(seed), deadline, listener, exclusive=True)
    except ArmError as error:
        return _result(evidence, Decision.INVALID, _failed(error), error)
    estimate = evidence.estimate()
    decision = evidence.decide(estimate, rule)
    return _result(evidence, decision, _explain(decision, estimate, evidence, objective, region))


def _collect(
    bench: Bench,
    configs: Mapping[str, Config],
    rule: StopRule,
    evidence: _Evidence,
    rng: Random,
    deadline: Callable[[], float],
    listener: Listener,
    exclusive: bool,
) -> None:
    """Launch after launch, pair after pair, until the evidence settles it or the time is up."""
    orders = balanced_orders((_CANDIDATE, _BASELINE), rng)
    opening, pairing = Pace(deadline), Pace(deadline)
    pairs_per_launch = 1 if exclusive else 2
    while deadline() > opening.longest_s + pairing.longest_s and not evidence.settled(rule):
        with Launch(bench, evidence.launches, configs, exclusive) as launch:
            with opening.timed():
                opened = launch.open(rng.sample((_CANDIDATE, _BASELINE), 2))
            evidence.keep(opened, opening=True)
            taken = 0
            while taken < pairs_per_launch and not (taken and evidence.settled(rule)):
                if taken and deadline() <= pairing.longest_s:
                    return
                with pairing.timed():
                    seen = launch.measure(next(orders))
                pair = evidence.add(seen)
                taken += 1
                if not exclusive:
                    pairs_per_launch = _pairs_per_launch(spent_s(opened), spent_s(seen.measurements))
                _announce(bench.stage, pair, evidence, listener)


def _pairs_per_launch(opening_s: float, pair_s: float) -> int:
    """Two when opening is cheap; when it is dear, so many that half of the time goes into measuring. Even: ABBA."""
    wanted = 2 * math.ceil(opening_s / pair_s / 2) if pair_s > 0 else 2
    return min(max(2, wanted), MAX_PAIRS_PER_LAUNCH)


def _announce(stage: str, pair: Pair, evidence: _Evidence, listener: Listener) -> None:
    estimate = evidence.estimate()
    interval = (math.exp(estimate.low), math.exp(estimate.high))
    listener(PairMeasured(stage, pair, estimate.count, math.exp(estimate.mean), interval))


def _result(evidence: _Evidence, decision: Decision, reason: str, error: ArmError | None = None) -> ContestResult:
    samples = {
        arm: {name: tuple(values) for name, values in evidence.samples[arm].items()} for arm in (_CANDIDATE, _BASELINE)
    }
    return ContestResult(
        decision=decision,
        reason=reason,
        estimate=evidence.estimate(),
        pairs=tuple(evidence.pairs),
        launches=evidence.launches,
        candidate_samples=samples[_CANDIDATE],
        baseline_samples=samples[_BASELINE],
        comparisons=worst_deviations(samples[_CANDIDATE]),
        spread=worst_deviations(samples[_BASELINE]),
        failure=error.failure if error else None,
        failed_arm=error.arm if error else "",
    )


def _failed(error: ArmError) -> str:
    log = f", see {error.failure.log_path}" if error.failure.log_path else ""
    return f"the {error.arm} failed in verification: {error.failure.kind}: {error.failure.message}{log}"


def _explain(
    decision: Decision, estimate: LogRatioEstimate, evidence: _Evidence, objective: Objective, region: float
) -> str:
    """The decision in one sentence."""
    if not evidence.pairs:
        return "the time was up before the first pair"
    low, gain, high = (format_factor(math.exp(log)) for log in (estimate.low, estimate.mean, estimate.high))
    what = objective.metric if objective.sign > 0 else f"the gain in {objective.metric}"
    text = f"{what} is {gain} [{low}, {high}] over {estimate.count} pairs in {evidence.launches} launches"
    if decision is Decision.AMBIGUOUS:
        text += f"; {_what_is_missing(estimate, evidence.launches, region)}"
    contended = sum(pair.contended for pair in evidence.pairs)
    if 2 * contended > estimate.count:
        text += f"; the machine was busy with something else during {contended} of them"
    return text


def _what_is_missing(estimate: LogRatioEstimate, launches: int, region: float) -> str:
    """How many more pairs would tell, if the gain is what it looks like and the noise stays as it is."""
    if launches < MIN_LAUNCHES:
        return f"the time was up, and at least {MIN_LAUNCHES} launches are needed"
    distance = abs(abs(estimate.mean) - math.log1p(region))
    wanted = pairs_for_half_width(distance, estimate.pair_sd)
    if wanted is None:
        return "too close to the boundary of what counts as a difference for any number of pairs"
    return f"about {max(1, wanted - estimate.count)} more pairs would be needed"


def format_factor(factor: float) -> str:
    """A factor for a person: "1.93x", near 1 with one more digit, "1.012x"."""
    return f"{factor:.3f}x" if abs(factor - 1) < 0.1 else f"{factor:.2f}x"
