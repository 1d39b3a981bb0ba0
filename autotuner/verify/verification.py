"""The verification of a study: race the finalists, drop needless changes, then the winner against the baseline.

Every number that a user sees of the winner comes from the last step alone, on data that chose nothing.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import geometric_mean

from autotuner.events import Listener, StageStarted
from autotuner.jobs import Jobs
from autotuner.plugins import WorkerPool
from autotuner.spec.model import StudySpec
from autotuner.types import (
    Config,
    Contribution,
    Decision,
    Failure,
    Metrics,
    Trial,
    Verification,
    config_key,
)
from autotuner.verify.choose import RACE_ROUNDS, finalists, race
from autotuner.verify.contest import ContestResult, contest
from autotuner.verify.contributions import CONTRIBUTION_PAIRS, contributions
from autotuner.verify.foresight import comparison_s, contest_s, share_of
from autotuner.verify.proof import Proofs
from autotuner.verify.reported import reported
from autotuner.verify.verdict import decide, is_noisy, judge_equivalence, judge_limits, nothing_better, refused, verdict
from autotuner.verify.warning import warn

# At most so much of the time that is left goes to the steps before the contest.
PROOFS_SHARE, RACE_SHARE, CONTRIBUTIONS_SHARE = 0.25, 0.25, 0.5
LEAST_SHARE = 0.6  # of the verification's time is granted even when the search overran
CONTEST_SHARE = 0.5  # of it to the first contest, even when what came before overran: without a pair all was in vain
GRACE_SHARE = 0.15  # of the study's minutes, beyond them, for the pairs that a begun contest lacks for any verdict
MAX_ATTEMPTS = 3  # candidates that are taken to the end when the ones before turn out to compute something else


@dataclass(frozen=True, slots=True)
class Bench:
    """What one attempt to verify a candidate needs."""

    spec: StudySpec
    pool: WorkerPool
    jobs: Jobs
    proofs: Proofs
    attempt: int
    deadline: Callable[[], float]
    listener: Listener

    @property
    def seed(self) -> int:
        """Of the random orders."""
        return self.spec.seed + self.attempt


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt came to; when the baseline failed, no other candidate can fare better."""

    verification: Verification
    baseline_failed: bool = False


def verify(
    spec: StudySpec,
    pool: WorkerPool,
    jobs: Jobs,
    trials: Sequence[Trial],
    left_s: Callable[[], float],
    listener: Listener,
    *,
    complete: bool = False,
) -> Verification:
    """Find out whether anything that the search tried is truly better than the baseline.

    Args:
        spec: The study.
        pool: Where jobs run; the search's processes are gone.
        jobs: Makes the windows.
        trials: Of the search.
        left_s: Seconds that are left of the study's budget.
        listener: Hears of every stage and pair.
        complete: The search had nothing left that could be better.
    """
    began_s = time.monotonic()
    bench = Bench(spec, pool, jobs, Proofs(spec, pool, jobs), 0, _deadline(spec, left_s), listener)
    candidates = _candidates(bench, trials)
    attempt = Attempt(nothing_better(spec, trials, bench.proofs, complete=complete))
    for number in range(MAX_ATTEMPTS):
        if not candidates:
            break
        bench = replace(bench, attempt=number)
        leader = _race(bench, candidates, trials)
        attempt = _verify_leader(bench, leader, trials)
        attempt = replace(attempt, verification=_warned(spec, trials, attempt.verification))
        if attempt.verification.decision is not Decision.INVALID or attempt.baseline_failed:
            break
        candidates = [trial for trial in candidates if trial is not leader]
    return replace(attempt.verification, duration_s=time.monotonic() - began_s)


def _candidates(bench: Bench, trials: Sequence[Trial]) -> list[Trial]:
    """The finalists that fit in memory."""
    spec = bench.spec
    pick = partial(finalists, trials, spec.objective, spec.budget.finalists, is_noisy(trials))
    if isinstance(trials[0].outcome, Failure) or not (hopeful := pick()):
        return []  # without the baseline there is nothing to compare with
    return bench.proofs.fitting(
        pick, share_of(bench.deadline, PROOFS_SHARE, contest_s(spec.protocol, hopeful[0], trials))
    )


def _warned(spec: StudySpec, trials: Sequence[Trial], found: Verification) -> Verification:
    return replace(found, warning=warn(spec, found.config, trials[0].outcome))


def confirm(spec: StudySpec, pool: WorkerPool, jobs: Jobs, claim: Verification, listener: Listener) -> Verification:
    """Measure an earlier verification's candidate again, and say whether its claim holds."""
    began_s = time.monotonic()
    share_s = math.inf if spec.budget.minutes is None else 60 * spec.budget.minutes  # there is no search to pay for
    bench = Bench(spec, pool, jobs, Proofs(spec, pool, jobs), 0, _deadline(spec, lambda: share_s), listener)
    _write_reference(bench)  # versions may have changed since: the baseline of today is what counts
    proof = bench.proofs.of(claim.config)
    found = refused(spec, claim.config, proof) if proof.refusal else _contest(bench, claim.config).verification
    low, high = claim.gain_interval
    verdict = "confirmed" if confirms(found, claim) else "NOT confirmed"
    interval = f"[{low:.2f}x, {high:.2f}x]" if low > 0 and high < math.inf else "by too few pairs"
    text = f"{verdict}: claimed {claim.gain_ratio:.2f}x {interval}"
    return replace(
        found,
        reason=f"{text}, now {found.reason}",
        contributions=claim.contributions,
        warning=claim.warning,
        worst_case=proof.worst_case,
        duration_s=time.monotonic() - began_s,
    )


def claim_of(verifications: Sequence[Verification]) -> Verification:
    """What a study claims: its last verification that came to BETTER or SAME, else the last."""
    decided = [found for found in verifications if found.decision in (Decision.BETTER, Decision.SAME)]
    return (decided or verifications)[-1]


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


def _contest_deadline(bench: Bench, needed_s: float) -> Callable[[], float]:
    """A machine that grew busy makes a mock of every forecast: then the contest may go beyond the study's budget.

    It has half of the verification's share for itself, and up to all of it where so much is needed for any verdict.
    """
    budget = bench.spec.budget
    if budget.minutes is None or bench.attempt:
        return bench.deadline
    share_s = budget.verify_share * 60 * budget.minutes
    beyond_s = max(0.0, max(CONTEST_SHARE * share_s, min(needed_s, share_s)) - bench.deadline())
    return lambda: bench.deadline() + beyond_s


def _race(bench: Bench, candidates: Sequence[Trial], trials: Sequence[Trial]) -> Trial:
    """The finalist to verify."""
    if len(candidates) == 1:
        return candidates[0]
    bench.listener(StageStarted("race", f"{len(candidates)} finalists against each other"))
    leader = race(
        bench.pool, bench.jobs.window, candidates, bench.spec.objective, seed=bench.seed,
        deadline=share_of(bench.deadline, RACE_SHARE, contest_s(bench.spec.protocol, candidates[0], trials)),
        listener=bench.listener, stage=f"race{bench.attempt}",
        expected_s=comparison_s(bench.spec.protocol, candidates, trials, RACE_ROUNDS),
    )  # fmt: skip
    return leader or candidates[0]


def _verify_leader(bench: Bench, leader: Trial, trials: Sequence[Trial]) -> Attempt:
    """Put needless changes back, prove that what is left fits in memory, then the contest."""
    if bench.jobs.reference_path is not None and not bench.jobs.reference_path.exists():
        _write_reference(bench)
    config, worth = _simplified(bench, leader, trials)
    if config_key(config) == config_key(bench.spec.baseline):
        config = leader.config  # no change alone seems worth anything: the contest says so with an interval, or not
    proof = bench.proofs.of(config)
    if proof.refusal and config_key(config) != config_key(leader.config):
        config = leader.config  # what saves memory may have been put back, as it is worth nothing else
        proof = bench.proofs.of(config)
    if proof.refusal:
        return Attempt(refused(bench.spec, config, proof))
    attempt = _contest(bench, config, worth, contest_s(bench.spec.protocol, leader, trials))
    return replace(attempt, verification=replace(attempt.verification, worst_case=proof.worst_case))


def _simplified(bench: Bench, leader: Trial, trials: Sequence[Trial]) -> tuple[Config, tuple[Contribution, ...]]:
    """Without needless changes, and what the others are worth; a single one is worth what the contest will say."""
    if sum(leader.config[name] != value for name, value in bench.spec.baseline.items()) == 1:
        return leader.config, ()
    bench.listener(StageStarted("contributions", f"what each change of trial {leader.number} is worth"))
    return contributions(
        bench.pool, bench.jobs.window, bench.spec, leader.config, seed=bench.seed,
        deadline=share_of(bench.deadline, CONTRIBUTIONS_SHARE, contest_s(bench.spec.protocol, leader, trials)),
        listener=bench.listener, stage=f"contributions{bench.attempt}",
        expected_s=comparison_s(bench.spec.protocol, [leader, leader], trials, CONTRIBUTION_PAIRS),
    )  # fmt: skip


def _metrics(spec: StudySpec, result: ContestResult, arm: str) -> Metrics:
    """What one arm measured.

    The compared metric is the geometric mean over the pairs, so that the ratio of both is the gain that is claimed; a
    score is one already.
    """
    samples = result.candidate_samples if arm == "candidate" else result.baseline_samples
    paired = [getattr(pair, arm) for pair in result.pairs]
    single = len(spec.objective.objectives) == 1
    compared = {spec.objective.metric: geometric_mean(paired)} if paired and single else {}
    return {**reported(spec, samples, result.baseline_samples), **compared}


def _write_reference(bench: Bench) -> None:
    """The baseline's outputs, once more: somebody cleaned up, or the machine has changed."""
    if bench.jobs.reference_path is None:
        return
    bench.listener(StageStarted("outputs", "the baseline's outputs are computed again"))
    bench.jobs.reference_path.unlink(missing_ok=True)
    bench.pool.submit(bench.jobs.reference(bench.spec.baseline)).result()
    bench.pool.close("reference")


def _contest(bench: Bench, candidate: Config, worth: tuple[Contribution, ...] = (), needed_s: float = 0.0) -> Attempt:
    spec, jobs = bench.spec, bench.jobs
    if jobs.reference_path is not None and not jobs.reference_path.exists():
        text = "the baseline's outputs could not be computed, so nothing can be compared with them"
        return Attempt(verdict(spec, Decision.INVALID, text), baseline_failed=True)
    bench.listener(StageStarted("contest", "the winner against the baseline, side by side in fresh processes"))
    result = contest(
        bench.pool, jobs.window, candidate, spec.baseline, spec.objective, stage=f"contest{bench.attempt}",
        seed=bench.seed, max_pairs=spec.budget.max_pairs, deadline=_contest_deadline(bench, needed_s),
        grace_s=GRACE_SHARE * 60 * (spec.budget.minutes or 0.0), listener=bench.listener,
    )  # fmt: skip
    equivalence = judge_equivalence(spec, candidate, result)
    violations, remarks = judge_limits(spec, result)
    decision, reason = decide(result, equivalence, violations)
    verification = Verification(
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
        metrics=_metrics(spec, result, "candidate"),
        baseline_metrics=_metrics(spec, result, "baseline"),
        violations=violations,
        contributions=worth,
        maximize=spec.objective.directions,
        environment=result.environment,
    )
    return Attempt(verification, baseline_failed=result.failed_arm == "baseline")
