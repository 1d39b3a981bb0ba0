"""What a run says of the build: pure functions of what was measured and of what was known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autotuner.analyze.change_chart import FEWEST
from autotuner.analyze.drift import Change
from autotuner.bench.measure import Beside
from autotuner.bench.trend import Past
from autotuner.metrics import value_of
from autotuner.report.text import plural
from autotuner.spec.model import StudySpec
from autotuner.types import BenchDecision, BenchRun, Decision, Failure, Metrics
from autotuner.verify.limits import doubt_percentile
from autotuner.verify.sentence import format_factor

_OF_A_CONTEST = {
    Decision.WORSE: BenchDecision.REGRESSION,
    Decision.BETTER: BenchDecision.FASTER,
    Decision.SAME: BenchDecision.SAME,
    Decision.AMBIGUOUS: BenchDecision.UNCLEAR,
    Decision.INVALID: BenchDecision.INVALID,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A decision, why, and the difference that it rests on; `broken` are limits that were kept before."""

    decision: BenchDecision
    reason: str
    gain_ratio: float | None = None
    gain_interval: tuple[float, float] | None = None
    pairs: int = 0
    broken: tuple[str, ...] = ()


def against_base(spec: StudySpec, beside: Beside, margin: float) -> Finding:
    """The verdict of a comparison side by side. What is not proven is no regression."""
    result = beside.result
    if beside.again is not None:
        return _of_failures(result.failed_arm, *beside.again)
    low, high = result.gain_interval
    interval = (low, high) if result.pairs and high < math.inf else None
    found = Finding(
        _OF_A_CONTEST[result.decision], result.reason, result.gain_ratio if result.pairs else None, interval,
        len(result.pairs),
    )  # fmt: skip
    now, base = excesses(spec, result.candidate_samples, result.baseline_samples)
    if found.pairs and (limit := _of_limits(now, base, margin)):
        found = replace(found, decision=limit.decision, reason=f"{limit.reason}; {found.reason}", broken=limit.broken)
    contended = sum(pair.contended for pair in result.pairs)
    if found.decision is BenchDecision.UNCLEAR and 2 * contended > len(result.pairs):
        return replace(found, decision=BenchDecision.INVALID)
    doubts = [doubt_percentile(name, result.candidate_samples) for name in spec.objective.metrics]
    return replace(found, reason="; ".join([found.reason, *filter(None, doubts)])) if found.pairs else found


def _of_failures(failed: str, now: object, base: object) -> Finding:
    if isinstance(base, Failure):
        also = ", nor does the working tree" if isinstance(now, Failure) else ""
        return Finding(BenchDecision.INVALID, f"the base does not run{also}: {failure_text(base)}")
    if isinstance(now, Failure):
        text = f"it does not run any more, twice in fresh processes, while the base runs: {failure_text(now)}"
        return Finding(BenchDecision.REGRESSION, text)
    side = "base" if failed == "baseline" else "working tree"
    return Finding(BenchDecision.INVALID, f"the {side} failed once and ran when it was asked again")


def failure_text(failure: Failure) -> str:
    """`crashed: the message, see logs/x.log`."""
    log = f", see {failure.log_path}" if failure.log_path else ""
    return f"{failure.kind}: {failure.message}{log}"


def excesses(
    spec: StudySpec, now: Mapping[str, Sequence[float]], base: Mapping[str, Sequence[float]]
) -> tuple[Metrics, Metrics]:
    """How far both are past each limit; a limit in terms of the baseline speaks of the base.

    Without a base, limits in its terms say nothing and are left out.
    """
    limits = [limit for limit in spec.limits if base or not limit.relative]

    def past(samples: Mapping[str, Sequence[float]]) -> Metrics:
        return {
            limit.text: limit.excess(value_of(limit.metric, samples), value_of(limit.metric, base)) for limit in limits
        }

    return past(now), past(base) if base else {}


def _of_limits(now: Metrics, before: Metrics, margin: float) -> Finding | None:
    """Of the limits that were kept before and are broken now; what is past them by less than the margin may be chance.

    None when there are none.
    """
    fresh = [text for text, excess in now.items() if excess > 0 and before.get(text, math.inf) <= 0]
    broken = tuple(text for text in fresh if now[text] - before[text] > margin)
    if broken:
        text = ", ".join(f"{limit} by {now[limit]:.1%}" for limit in broken)
        return Finding(BenchDecision.REGRESSION, f"it breaks the limit {text}, which was kept before", broken=broken)
    return Finding(BenchDecision.UNCLEAR, f"it is at the edge of the limit {fresh[0]}") if fresh else None


def of_history(past: Past, run: BenchRun, margin: float) -> Finding:
    """The verdict of a run that was measured alone, against those before it.

    Args:
        past: The history of like runs, this one included as its last.
        run: This one.
        margin: Differences up to it are none.
    """
    before = [one for one in past.runs[:-1] if one.value is not None]
    if run.failure:
        ran = f"it ran at {_at(before[-1])}" if before else "no earlier run is known"
        decision = BenchDecision.REGRESSION if before else BenchDecision.INVALID
        return Finding(decision, f"it does not run: {run.failure}; {ran}")
    if before and (limits := _of_limits(run.violations, before[-1].violations, margin)):
        return limits
    if run.contended:
        text = "the machine was busy with something else most of the time: this run is left out of the history's level"
        return Finding(BenchDecision.INVALID, text)
    if past.drift.count < FEWEST and not past.drift.changes:
        text = (
            f"{plural(past.drift.count, 'like run')} so far: a change can be seen after about 20; --base compares now"
        )
        return Finding(BenchDecision.UNCLEAR, text)
    return _of_change(past, run, margin)


def _of_change(past: Past, run: BenchRun, margin: float) -> Finding:
    change = past.drift.last
    if change is None:
        return Finding(BenchDecision.SAME, f"no change of the level in {past.drift.count} like runs")
    low, high = math.exp(change.low), math.exp(change.high)
    about, first = f"{_shift(change)} since {_at(past.counted[change.index])}", past.counted[change.index :]
    found = Finding(
        BenchDecision.REGRESSION if change.direction < 0 else BenchDecision.FASTER, about, math.exp(change.shift),
        (low, high),
    )  # fmt: skip
    if 1 - margin <= low and high <= 1 + margin:
        return replace(found, decision=BenchDecision.SAME, reason=f"{about}: within the margin")
    told = [one for one in first[:-1] if one.decision is found.decision and not one.base_revision]
    if told and not (run.revision and told[0].revision == run.revision):  # asking again makes no revision good
        return replace(found, decision=BenchDecision.SAME, reason=f"{about}, as the run of {_at(told[0])} said")
    return found


def _shift(change: Change) -> str:
    parts = [format_factor(math.exp(log)) for log in (change.shift, change.low, change.high)]
    return f"the level is {parts[0]} [{parts[1]}, {parts[2]}] of what it was, in the direction of improvement,"


def _at(run: BenchRun) -> str:
    when = f"{run.created_at:%Y-%m-%d}" if run.created_at else "now"
    return f"{run.revision} ({when})" if run.revision else when
