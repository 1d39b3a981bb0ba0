"""What a verification comes to, in words: pure functions of what was measured."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from autotuner.spec.model import StudySpec
from autotuner.types import (
    Config,
    Decision,
    Equivalence,
    Failure,
    FailureKind,
    Measurement,
    Metrics,
    Trial,
    Verification,
)
from autotuner.verify.contest import ContestResult
from autotuner.verify.equivalence import DEFAULT_ROUNDING_RATIO, judge_outputs, tier_of
from autotuner.verify.limits import doubt_percentile, judge_limit
from autotuner.verify.proof import MemoryProof, Proofs

NOISY_SHARE = 0.3  # of contended trials: then more finalists are looked at


def judge_equivalence(spec: StudySpec, candidate: Config, result: ContestResult) -> Equivalence | None:
    """With the baseline's own spread known now; None when the candidate never ran."""
    if not result.candidate_samples:
        return None
    tolerance = result.comparisons.get("output_tolerance_ratio", DEFAULT_ROUNDING_RATIO)
    return judge_outputs(spec.equivalence, tier_of(spec, candidate), result.comparisons, result.spread, tolerance)


def judge_limits(spec: StudySpec, result: ContestResult) -> tuple[Metrics, list[str]]:
    """Excess of every limit, and what a reader must know about how it was judged."""
    if not result.pairs:
        return {}, []
    arms = result.candidate_samples, result.baseline_samples
    judged = {limit.text: judge_limit(limit, *arms) for limit in spec.limits}
    remarks = [f"{text}: {judgement.reason}" for text, judgement in judged.items() if judgement.reason]
    remarks += [remark for name in spec.objective.metrics if (remark := doubt_percentile(name, *arms))]
    return {text: judgement.excess for text, judgement in judged.items()}, remarks


def decide(result: ContestResult, equivalence: Equivalence | None, violations: Metrics) -> tuple[Decision, str]:
    """A gain counts only when the outputs are the same and every limit is kept."""
    if result.decision is Decision.INVALID:
        return Decision.INVALID, result.reason
    if equivalence is not None and not equivalence.kept:
        return Decision.INVALID, f"the outputs are not the baseline's: {equivalence.reason}"
    broken = [text for text, excess in violations.items() if excess > 0]
    if broken and result.decision is Decision.BETTER:
        return Decision.INVALID, f"faster, but it breaks the limit {broken[0]}"
    return result.decision, result.reason


def nothing_better(spec: StudySpec, trials: Sequence[Trial], proofs: Proofs, *, complete: bool = False) -> Verification:
    """The verdict when the search leaves nobody to verify; `complete`: it had nothing left that could be better."""
    if isinstance(first := trials[0].outcome, Failure):
        text = f"the baseline failed ({first.kind}: {first.message}), so that nothing can be compared with it"
        return verdict(spec, Decision.INVALID, text)
    for proof in proofs.made.values():
        if proof.refusal:
            return verdict(spec, Decision.INVALID, proof.refusal)
    others = Counter(trial.outcome.kind for trial in trials[1:] if isinstance(trial.outcome, Failure))
    if others.total() == len(trials) - 1 and (FailureKind.INVALID in others or not complete):
        failed = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
        text = f"all others failed ({failed})" if others else "give the study more time or trials"
        reason = f"only the baseline was measured, and nothing is known of others: {text}"
        return verdict(spec, Decision.AMBIGUOUS, reason)
    if is_noisy(trials):
        share = f"{_contended(trials)} of {len(trials)} trials"
        text = f"the machine was busy with something else during {share}: nothing is known"
        return verdict(spec, Decision.AMBIGUOUS, text)
    return verdict(spec, Decision.SAME, "nothing that was tried measured better than the baseline and kept the limits")


def verdict(spec: StudySpec, decision: Decision, reason: str) -> Verification:
    """One without a comparison: the baseline stays."""
    return Verification(
        decision, reason, config=spec.baseline, baseline=spec.baseline, metric=spec.objective.metric, gain_ratio=1.0,
        gain_interval=(0.0, math.inf),
    )  # fmt: skip


def refused(spec: StudySpec, config: Config, proof: MemoryProof) -> Verification:
    """A configuration that does not fit is not compared."""
    return replace(verdict(spec, Decision.INVALID, proof.refusal), config=config)


def _contended(trials: Sequence[Trial]) -> int:
    return sum(isinstance(trial.outcome, Measurement) and trial.outcome.contended for trial in trials)


def is_noisy(trials: Sequence[Trial]) -> bool:
    """Whether so many trials were disturbed that the search saw little."""
    return _contended(trials) > NOISY_SHARE * len(trials)
