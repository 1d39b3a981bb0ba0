"""What a study concludes, in words: the headline, the proof, the next command to type."""

import math
import shlex

from autotuner.events import StudySummary
from autotuner.metrics import format_value
from autotuner.report.text import (
    bounds,
    count_failures,
    duration,
    factor,
    more_is_better,
    one_line,
    percent,
    plural,
)
from autotuner.types import Binding, Decision, Diagnosis, Verification


def every_trial_failed(summary: StudySummary) -> bool:
    """Whether the study measured nothing at all."""
    return summary.trials > 0 and sum(summary.failures.values()) >= summary.trials


def headline(summary: StudySummary) -> str:
    """The verdict in one sentence, without the word itself."""
    if every_trial_failed(summary):
        return f"{'Every trial' if summary.trials > 1 else 'The baseline'} failed; nothing was measured."
    if summary.verification is None:
        return {
            Decision.SAME: "The baseline is as good as anything tried; nothing to change.",
            Decision.INVALID: "Nothing could be verified; keep the baseline.",
        }.get(summary.decision, "Keep the baseline.")
    return conclude(summary.verification)


def conclude(verification: Verification) -> str:
    """What one verification says of its candidate, in one sentence."""
    match verification.decision:
        case Decision.BETTER:
            return f"{_improvement(verification)}."
        case Decision.SAME:
            return "The baseline is as good as anything tried; nothing to change."
        case Decision.WORSE:
            return "The best candidate lost on fresh data; keep the baseline."
        case Decision.AMBIGUOUS if not verification.pairs:
            return "Nothing was compared; keep the baseline."
        case Decision.AMBIGUOUS:
            return "The evidence does not tell the best candidate from the baseline yet."
        case Decision.INVALID:
            return _why_invalid(verification)


def _why_invalid(verification: Verification) -> str:
    if not verification.pairs:
        return "Nothing could be verified; keep the baseline."
    if verification.equivalence is not None and not verification.equivalence.kept:
        return "The outputs are not the baseline's; keep the baseline."
    if any(not excess <= 0 for excess in verification.violations.values()):
        return "The candidate breaks a limit on fresh data; keep the baseline."
    return "The comparison does not count; keep the baseline."


def _improvement(verification: Verification) -> str:
    """`latency_p95_s is 25 % lower than the baseline's`; factors from two upwards are said as factors."""
    ratio = verification.gain_ratio
    if not more_is_better(verification, verification.metric):
        return f"{verification.metric} is {percent(1 - 1 / ratio, 0)} lower than the baseline's"
    if ratio >= 2:
        return f"{verification.metric} is {factor(ratio)} the baseline's"
    return f"{verification.metric} is {percent(ratio - 1, 0)} higher than the baseline's"


def gain_sentence(verification: Verification) -> str:
    """`1.33×, 95 % interval [1.28, 1.38]`."""
    interval = bounds(verification.gain_interval)
    known = f"95 % interval {interval}" if interval else "too few pairs for an interval"
    return f"{factor(verification.gain_ratio)}, {known}"


def proof_sentence(verification: Verification) -> str:
    """`12 pairs in 3 launches, noise 1.4 % a pair, 1 contended`; empty when nothing was compared."""
    if not verification.pairs:
        return ""
    launches = len({pair.launch for pair in verification.pairs})
    contended = sum(pair.contended for pair in verification.pairs)
    text = f"{plural(len(verification.pairs), 'pair')} in {plural(launches, 'launch', 'launches')}"
    if verification.noise_floor_ratio > 0 and math.isfinite(verification.noise_floor_ratio):
        text += f", noise {percent(verification.noise_floor_ratio)} a pair"
    return text + (f", {contended} contended" if contended else "")


def outputs_sentence(verification: Verification) -> str:
    """What the equivalence guard found."""
    equivalence = verification.equivalence
    if equivalence is None:
        return "not compared with the baseline's"
    if not equivalence.judged:
        return f"not compared: {one_line(equivalence.reason)}"
    kept = "kept" if equivalence.kept else "NOT kept"
    return f"{kept} (rule: {equivalence.tier}): {one_line(equivalence.reason)}"


def memory_sentence(verification: Verification) -> str:
    """`198 MiB in 10 steps on the largest inputs, in a process of its own`; empty where nothing was to be proven."""
    proven = verification.worst_case
    if not proven:
        return ""
    peak, steps = format_value("peak_memory_bytes", proven["peak_memory_bytes"]), round(proven["steps"])
    return f"{peak} in {plural(steps, 'step')} on the largest inputs, in a process of its own"


def trials_sentence(summary: StudySummary) -> str:
    """`30 trials, 3 failed (2 out_of_memory, 1 timed_out)`."""
    failed = sum(summary.failures.values())
    if not failed:
        return f"{plural(summary.trials, 'trial')}, none failed"
    return f"{plural(summary.trials, 'trial')}, {failed} failed ({count_failures(summary.failures)})"


def time_sentence(summary: StudySummary) -> str:
    """`4 min 12 s: measuring 52 %, verifying 30 %, setup 18 %`, largest first."""
    total = math.fsum(summary.phases_s.values())
    if total <= 0:
        return ""
    shares = sorted(summary.phases_s.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {percent(spent / total, 0)}" for name, spent in shares if spent / total >= 0.015)
    return f"{duration(total)}: {parts}"


def next_step(summary: StudySummary, db: str | None = None) -> str:
    """The command to type now; empty when there is nothing to do. `db` is repeated if the user had to give it."""
    where = _where(db)
    match summary.decision:
        case Decision.BETTER:
            return f"autotune export {summary.name} --to env{where}"
        case Decision.AMBIGUOUS if summary.verification is not None and summary.verification.pairs:
            return f"autotune study verify {summary.name}{where}"
        case Decision.INVALID if every_trial_failed(summary):
            return f"autotune study show {summary.name}{where}"
        case _:
            return ""


def resume_command(name: str, db: str | None = None, command: str = "resume") -> str:
    """What to type after an interruption: `autotune study resume qwen3-cpu --db my.db`."""
    return f"autotune study {command} {name}{_where(db)}"


def _where(db: str | None) -> str:
    return f" --db {shlex.quote(db)}" if db else ""


def mfu_sentence(before: Diagnosis | None, after: Diagnosis | None) -> str:
    """`31.2 % → 52.0 % of what this machine's matrix products reach`; empty where it is not known."""
    known = [found.evidence["mfu_ratio"] for found in (before, after) if found and "mfu_ratio" in found.evidence]
    shares = " → ".join(percent(ratio) for ratio in known)
    return f"{shares} of what this machine's matrix products reach" if known else ""


def scaling_sentence(diagnosis: Diagnosis | None) -> str:
    """`2 processes do 1.62× the work of one: 81.0 % of linear`; empty for one process, or where one was not tried."""
    seen = diagnosis.evidence if diagnosis else {}
    if "scaling_efficiency_ratio" not in seen:
        return ""
    ratio, ranks = seen["scaling_efficiency_ratio"], round(seen["ranks"])
    return f"{ranks} processes do {factor(ratio * ranks)} the work of one: {percent(ratio)} of linear"


def bound_sentence(diagnosis: Diagnosis | None) -> str:
    """What binds, whether a probe has confirmed it, the numbers, and what to move next; empty if nothing is known."""
    if diagnosis is None:
        return ""
    if diagnosis.binding is Binding.INVALID:
        return diagnosis.sentence
    if diagnosis.binding is Binding.UNKNOWN:
        return f"unknown: {diagnosis.sentence}"
    proof = "confirmed by relief" if diagnosis.confirmed else "likely"
    advice = f" Next: {', '.join(diagnosis.try_next)}." if diagnosis.try_next else ""
    return f"{diagnosis.binding.replace('_', ' ')} ({proof}): {diagnosis.sentence}{advice}"
