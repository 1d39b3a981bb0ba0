"""The loop: propose, measure, judge, record, until the budget is used; then verify the best against the baseline."""

from collections import Counter
from collections.abc import Sequence
from time import monotonic

from autotuner import telemetry
from autotuner.adjust.adjuster import best_trial, propose
from autotuner.adjust.space import Space
from autotuner.analyze.judge import judge
from autotuner.clock import Clock
from autotuner.events import Listener, StudySummary, TrialEnded, TrialStarted
from autotuner.jobs import SEARCH, Jobs
from autotuner.plugins import WorkerPool
from autotuner.spec.model import StudySpec
from autotuner.store.study import Study
from autotuner.types import Config, Failure, Measurement, Outcome, Trial, Verdict, Verification
from autotuner.verify.equivalence import guard_trial
from autotuner.verify.verification import verify


def tune(spec: StudySpec, study: Study, pool: WorkerPool, jobs: Jobs, listener: Listener) -> Verification:
    """Run a study from where its record stands to its verdict.

    Raises:
        AutotuneError: The environment gave way: the record, the disk or the device. What was measured is kept.
    """
    space, trials = Space(spec), study.trials()
    clock = Clock(spec.budget, trials)
    with telemetry.span("tune", {"autotune.study": study.name}):
        while not (stopped := clock.search_ends(trials)) and (proposal := propose(spec, space, trials)) is not None:
            number, began_s, changed = len(trials), monotonic(), difference(proposal.config, spec.baseline)
            listener(TrialStarted(number, proposal.config, changed, proposal.origin))
            with telemetry.span("trial", {"autotune.trial": number}):
                outcome = pool.submit(jobs.trial(number, proposal.config)).result()
                verdict = assess(spec, proposal.config, outcome, trials)
                trial = Trial(number, proposal.config, proposal.origin, outcome, verdict)
                study.append_trial(trial)
            trials.append(trial)
            clock.count(trial, monotonic() - began_s)
            best = best_trial(spec, trials)
            listener(TrialEnded(trial, changed, best.number if best else None, clock.elapsed_s))
        pool.close(SEARCH)
        with clock.phase("verifying"), telemetry.span("verify"):
            verification = verify(spec, pool, jobs, trials, clock.left_s, listener)
        study.append_verification(verification)
    study.append_event(
        "finished", {"stopped": stopped or "nothing legal is left to try", "phases_s": clock.by_phase_s()}
    )
    return verification


def assess(spec: StudySpec, config: Config, outcome: Outcome, trials: Sequence[Trial]) -> Verdict | None:
    """Judge a measurement against objectives, limits and the baseline's outputs; a failure has no verdict."""
    if isinstance(outcome, Failure):
        return None
    first = trials[0].outcome if trials else outcome
    baseline = first if isinstance(first, Measurement) else None
    return guard_trial(spec, config, outcome, judge(spec, config, outcome, baseline, trials))


def difference(config: Config, baseline: Config) -> Config:
    """What a configuration changes.

    >>> difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    {'b': 2}
    """
    return {name: value for name, value in config.items() if value != baseline.get(name)}


def summarize(study: Study, record: str, folder: str) -> StudySummary:
    """A study's end, from its record alone.

    Raises:
        LookupError: It has not come to an end yet.
    """
    trials, verifications = study.trials(samples=False), study.verifications()
    verification, ending = verifications[-1][1], study.events("finished")[-1][2]
    first = len(verifications) == 1  # later ones measure the claim again, without a search
    failed = [trial.outcome for trial in trials if isinstance(trial.outcome, Failure)]
    measured = [trial.outcome for trial in trials if isinstance(trial.outcome, Measurement)]
    baseline = trials[0].verdict if trials else None
    return StudySummary(
        name=study.name,
        decision=verification.decision,
        reason=verification.reason + (f"; the search stopped because {ending['stopped']}" if first else ""),
        verification=verification,
        trials=len(trials),
        failures=dict(Counter(str(failure.kind) for failure in failed)),
        phases_s=ending["phases_s"] if first else {"verifying": verification.duration_s},
        record=record,
        folder=folder,
        environment=measured[-1].environment if measured else {},
        baseline_values=baseline.objectives if baseline else {},
        last_log=failed[-1].log_path if failed else "",
    )
