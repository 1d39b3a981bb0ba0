"""Judge a trial and say why it is as fast as it is; for a trial that leads, put that to the proof."""

from collections.abc import Sequence
from dataclasses import replace

from autotuner import telemetry
from autotuner.adjust.scores import best_trial
from autotuner.analyze.diagnose import hypotheses, prove
from autotuner.analyze.efficiency import efficiency
from autotuner.analyze.judge import judge
from autotuner.jobs import Jobs
from autotuner.metrics import median
from autotuner.monitor.relief import MIN_PAIRS
from autotuner.plugins import WorkerPool
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Ceilings, Config, Diagnosis, Failure, Measurement, Origin, Outcome, Trial, Verdict
from autotuner.verify.equivalence import guard_trial

MAX_PROBES = 2  # of a trial: each takes a second or two
MAX_PROBE_S = 30.0  # where a step takes seconds, a probe would take minutes


def examine(
    spec: StudySpec,
    pool: WorkerPool,
    jobs: Jobs,
    config: Config,
    outcome: Outcome,
    trials: Sequence[Trial],
    ceilings: Ceilings | None = None,
) -> Verdict | None:
    """Judge an outcome against objectives, limits, the baseline's outputs and this machine's ceilings.

    The baseline and every trial that leads are probed as well, on the workload that is still open, so that what a
    person reads first is not a guess. A probe that fails leaves the hypothesis unconfirmed.

    Args:
        spec: The study.
        pool: Where the trial has just run.
        jobs: Makes the probes.
        config: What was tried.
        outcome: What came of it.
        trials: The record before it.
        ceilings: Of this machine.

    Returns:
        None for a failure.
    """
    if isinstance(outcome, Failure):
        return None
    first = trials[0].outcome if trials else outcome
    baseline = first if isinstance(first, Measurement) else None
    with telemetry.span("analyze"):
        judged = judge(spec, config, outcome, baseline, trials, ceilings)
        verdict = guard_trial(spec, config, outcome, judged)
    trial = Trial(len(trials), config, Origin.SAMPLER, outcome, verdict)
    known = efficiency(spec, trial, trials, ceilings)
    verdict = _with_diagnosis(verdict, replace(verdict.diagnosis, evidence={**verdict.diagnosis.evidence, **known}))
    if best_trial(spec, [*trials, trial]) is not trial and trials:
        return verdict
    return _with_diagnosis(verdict, _probed(spec, pool, jobs, trial, verdict.diagnosis))


def _probed(spec: StudySpec, pool: WorkerPool, jobs: Jobs, trial: Trial, diagnosis: Diagnosis) -> Diagnosis:
    """The diagnosis after as many probes as its likeliest causes need, until one is confirmed."""
    if _probe_s(spec, trial) > MAX_PROBE_S:
        return diagnosis
    for cause in hypotheses(diagnosis)[:MAX_PROBES]:
        relieved = _relieved(pool, jobs, trial, cause)
        if relieved is None:
            break
        diagnosis = prove(spec, diagnosis, cause, relieved)
        if diagnosis.confirmed:
            break
    return diagnosis


def _probe_s(spec: StudySpec, trial: Trial) -> float:
    """How long a probe takes at least."""
    assert isinstance(trial.outcome, Measurement), trial
    step_s = median(trial.outcome.samples.get("block_step_s", (0.0,)))
    return MIN_PAIRS * (2 * max(step_s, spec.protocol.block_s) + step_s)


def _relieved(pool: WorkerPool, jobs: Jobs, trial: Trial, cause: Binding) -> Measurement | None:
    with telemetry.span("probe", {"autotune.resource": cause.value}):
        outcome = pool.submit(jobs.probe(trial.number, trial.config, cause)).result()
    return outcome if isinstance(outcome, Measurement) else None


def _with_diagnosis(verdict: Verdict, diagnosis: Diagnosis) -> Verdict:
    return Verdict(verdict.objectives, verdict.violations, diagnosis, verdict.precision_ratio)
