"""The verification of a study: race the finalists, drop needless changes, then the winner against the baseline.

Every number that a user sees of the winner comes from the last step alone, on data that chose nothing.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autotuner.events import Listener, StageStarted
from autotuner.jobs import Jobs
from autotuner.metrics import metric, value_of
from autotuner.plugins import WorkerPool
from autotuner.spec.model import StudySpec
from autotuner.types import (
    Config,
    Contribution,
    Decision,
    Equivalence,
    Failure,
    Measurement,
    Metrics,
    Trial,
    Verification,
    config_key,
)
from autotuner.verify.choose import finalists, race
from autotuner.verify.contest import ContestResult, contest
from autotuner.verify.contributions import contributions
from autotuner.verify.equivalence import DEFAULT_ROUNDING_RATIO, judge_outputs, tier_of
from autotuner.verify.limits import judge_limit, percentile_is_claimable

REPORTED = ("latency_p50_s", "latency_p95_s", "peak_memory_bytes", "setup_s")  # besides objectives and limits
RACE_SHARE, CONTRIBUTIONS_SHARE = 0.25, 0.5  # at most so much of the time that is left goes to the steps before
LEAST_SHARE = 0.6  # of the verification's time is granted even when the search overran
NOISY_SHARE = 0.3  # of contended trials: then more finalists are looked at
MAX_ATTEMPTS = 3  # candidates that are taken to the end when the ones before turn out to compute something else


def verify(
    spec: StudySpec,
    pool: WorkerPool,
    jobs: Jobs,
    trials: Sequence[Trial],
    left_s: Callable[[], float],
    listener: Listener,
) -> Verification:
    """Find out whether anything that the search tried is truly better than the baseline.

    Args:
        spec: The study.
        pool: Where jobs run; the search's processes are gone.
        jobs: Makes the windows.
        trials: Of the search.
        left_s: Seconds that are left of the study's budget.
        listener: Hears of every stage and pair.
    """
    deadline = _deadline(spec, left_s)
    began_s = time.monotonic()
    contended = [isinstance(t.outcome, Measurement) and t.outcome.contended for t in trials]
    noisy = sum(contended) > NOISY_SHARE * len(trials)
    candidates = finalists(trials, spec.objective, spec.budget.finalists, noisy)
    verification = _nothing_better(spec, trials, sum(contended))
    for attempt in range(min(MAX_ATTEMPTS, len(candidates))):
        verification = _verify_best(spec, pool, jobs, candidates, attempt, deadline, listener)
        if verification.equivalence is None or verification.equivalence.kept:
            break
        rejected = config_key(verification.config)
        candidates = [trial for trial in candidates if config_key(trial.config) != rejected]
        if not candidates:
            break
    return replace(verification, duration_s=time.monotonic() - began_s)


def confirm(spec: StudySpec, pool: WorkerPool, jobs: Jobs, claim: Verification, listener: Listener) -> Verification:
    """Measure an earlier verification's candidate again, and say whether its claim holds."""
    began_s = time.monotonic()
    _ensure_reference(spec, pool, jobs, listener)
    found = _contest(spec, pool, jobs, claim.config, 0, _deadline(spec, lambda: 0.0), listener)
    low, high = claim.gain_interval
    verdict = "confirmed" if confirms(found, claim) else "NOT confirmed"
    text = f"{verdict}: claimed {claim.gain_ratio:.2f}x [{low:.2f}x, {high:.2f}x]"
    return replace(
        found,
        reason=f"{text}, now {found.reason}",
        contributions=claim.contributions,
        duration_s=time.monotonic() - began_s,
    )


def confirms(found: Verification, claim: Verification) -> bool:
    """Whether a new verification comes to the claim's verdict, BETTER or SAME, with an interval that overlaps."""
    overlap = found.gain_interval[0] <= claim.gain_interval[1] and claim.gain_interval[0] <= found.gain_interval[1]
    return found.decision is claim.decision and claim.decision in (Decision.BETTER, Decision.SAME) and overlap


def _deadline(spec: StudySpec, left_s: Callable[[], float]) -> Callable[[], float]:
    """Seconds left for the verification; a search that overran cannot take all of its share."""
    if spec.budget.minutes is None:
        return lambda: math.inf
    least_s = LEAST_SHARE * spec.budget.verify_share * 60 * spec.budget.minutes
    until_s = time.monotonic() + max(left_s(), least_s)
    return lambda: until_s - time.monotonic()


def _verify_best(
    spec: StudySpec,
    pool: WorkerPool,
    jobs: Jobs,
    candidates: Sequence[Trial],
    attempt: int,
    deadline: Callable[[], float],
    listener: Listener,
) -> Verification:
    """Race, simplify, contest."""
    _ensure_reference(spec, pool, jobs, listener)
    leader = candidates[0]
    if len(candidates) > 1:
        listener(StageStarted("race", f"{len(candidates)} finalists against each other"))
        racing = _share_of(deadline, RACE_SHARE)
        leader = race(
            pool, jobs.window, candidates, spec.objective,
            seed=spec.seed + attempt, deadline=racing, listener=listener, stage=f"race{attempt}",
        ) or leader  # fmt: skip
    listener(StageStarted("contributions", f"what each change of trial {leader.number} is worth"))
    config, worth = contributions(
        pool, jobs.window, spec, leader.config,
        seed=spec.seed + attempt, deadline=_share_of(deadline, CONTRIBUTIONS_SHARE), listener=listener,
        stage=f"contributions{attempt}",
    )  # fmt: skip
    if config_key(config) == config_key(spec.baseline):
        return _same(spec, "none of the changes that measured better in the search is worth anything side by side")
    return _contest(spec, pool, jobs, config, attempt, deadline, listener, worth)


def _share_of(deadline: Callable[[], float], share: float) -> Callable[[], float]:
    """A deadline after `share` of the time that is left now."""
    reserve_s = (1 - share) * deadline() if math.isfinite(deadline()) else 0.0
    return lambda: deadline() - reserve_s


def _ensure_reference(spec: StudySpec, pool: WorkerPool, jobs: Jobs, listener: Listener) -> None:
    """The baseline's outputs, once more if somebody cleaned up."""
    if jobs.reference_path is not None and not jobs.reference_path.exists():
        listener(StageStarted("outputs", "the baseline's outputs are computed again"))
        pool.submit(jobs.reference(spec.baseline)).result()
        pool.close("reference")


def _contest(
    spec: StudySpec,
    pool: WorkerPool,
    jobs: Jobs,
    candidate: Config,
    attempt: int,
    deadline: Callable[[], float],
    listener: Listener,
    worth: tuple[Contribution, ...] = (),
) -> Verification:
    listener(StageStarted("contest", "the winner against the baseline, side by side in fresh processes"))
    result = contest(
        pool, jobs.window, candidate, spec.baseline, spec.objective,
        stage=f"contest{attempt}", seed=spec.seed + attempt, max_pairs=spec.budget.max_pairs, deadline=deadline,
        listener=listener,
    )  # fmt: skip
    equivalence = _judge_outputs(spec, candidate, result)
    violations, remarks = _judge_limits(spec, result)
    decision, reason = _decide(result, equivalence, violations)
    return Verification(
        decision=decision,
        reason="; ".join([reason, *remarks]),
        config=candidate,
        baseline=spec.baseline,
        metric=spec.objective.metric,
        gain_ratio=result.gain_ratio,
        gain_interval=result.gain_interval,
        pairs=result.pairs,
        noise_floor_ratio=result.estimate.pair_sd,
        equivalence=equivalence,
        metrics=_reported(spec, result.candidate_samples),
        baseline_metrics=_reported(spec, result.baseline_samples),
        violations=violations,
        contributions=worth,
    )


def _judge_outputs(spec: StudySpec, candidate: Config, result: ContestResult) -> Equivalence | None:
    """With the baseline's own spread known now; None when the candidate never ran."""
    if not result.candidate_samples:
        return None
    tolerance = result.comparisons.get("output_tolerance_ratio", DEFAULT_ROUNDING_RATIO)
    return judge_outputs(spec.equivalence, tier_of(spec, candidate), result.comparisons, result.spread, tolerance)


def _judge_limits(spec: StudySpec, result: ContestResult) -> tuple[Metrics, list[str]]:
    """Excess of every limit, and what a reader must know about how it was judged."""
    if not result.pairs:
        return {}, []
    arms = result.candidate_samples, result.baseline_samples
    judged = {limit.text: judge_limit(limit, *arms) for limit in spec.limits}
    remarks = [f"{text}: {judgement.reason}" for text, judgement in judged.items() if judgement.reason]
    return {text: judgement.excess for text, judgement in judged.items()}, remarks


def _decide(result: ContestResult, equivalence: Equivalence | None, violations: Metrics) -> tuple[Decision, str]:
    """A gain counts only when the outputs are the same and every limit is kept."""
    if result.decision is Decision.INVALID:
        return Decision.INVALID, result.reason
    if equivalence is not None and not equivalence.kept:
        return Decision.INVALID, f"the outputs are not the baseline's: {equivalence.reason}"
    broken = [text for text, excess in violations.items() if excess > 0]
    if broken and result.decision is Decision.BETTER:
        return Decision.INVALID, f"faster, but it breaks the limit {broken[0]}"
    return result.decision, result.reason


def _reported(spec: StudySpec, samples: Mapping[str, Sequence[float]]) -> Metrics:
    """Values of one arm; a percentile only when its requests are enough to claim it."""
    names = dict.fromkeys([spec.objective.metric, *(limit.metric for limit in spec.limits), *REPORTED])
    return {name: value_of(name, samples) for name in names if _is_reportable(name, samples)}


def _is_reportable(name: str, samples: Mapping[str, Sequence[float]]) -> bool:
    row = metric(name)
    raw = samples.get(row.samples, ())
    if row.reduction in ("p95", "p99"):
        return percentile_is_claimable(raw, int(row.reduction[1:]) / 100)
    return bool(raw)


def _nothing_better(spec: StudySpec, trials: Sequence[Trial], contended: int) -> Verification:
    """The verdict when the search leaves nobody to verify."""
    failures = Counter(trial.outcome.kind for trial in trials if isinstance(trial.outcome, Failure))
    if len(trials) == failures.total():
        kinds = ", ".join(f"{count} {kind}" for kind, count in failures.most_common())
        first = trials[0].outcome if trials else None
        text = f": {first.message}" if isinstance(first, Failure) else ""
        return _verdict(spec, Decision.INVALID, f"every trial failed ({kinds}){text}")
    if isinstance(first := trials[0].outcome, Failure):
        text = f"the baseline failed ({first.kind}: {first.message}), so there is nothing to compare with"
        return _verdict(spec, Decision.INVALID, text)
    if contended > NOISY_SHARE * len(trials):
        text = f"the machine was busy with something else during {contended} of {len(trials)} trials: nothing is known"
        return _verdict(spec, Decision.AMBIGUOUS, text)
    return _same(spec, "nothing that was tried measured better than the baseline and kept the limits")


def _same(spec: StudySpec, reason: str) -> Verification:
    return _verdict(spec, Decision.SAME, reason)


def _verdict(spec: StudySpec, decision: Decision, reason: str) -> Verification:
    return Verification(
        decision, reason, config=spec.baseline, baseline=spec.baseline, metric=spec.objective.metric, gain_ratio=1.0,
        gain_interval=(0.0, math.inf),
    )  # fmt: skip
