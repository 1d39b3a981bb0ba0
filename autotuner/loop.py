"""The loop: propose, measure, judge, record, until the budget is used; then verify the best against the baseline."""

from dataclasses import asdict
from time import monotonic

from autotuner import telemetry
from autotuner.adjust.adjuster import best_trial, propose
from autotuner.adjust.ending import at_ceiling, little_expected
from autotuner.adjust.space import Space
from autotuner.clock import Clock
from autotuner.diagnosing import examine
from autotuner.events import Event, Listener, PairMeasured, TrialEnded, TrialStarted
from autotuner.jobs import SEARCH, Jobs
from autotuner.plugins import WorkerPool
from autotuner.spec.model import StudySpec
from autotuner.store.study import Study
from autotuner.types import Ceilings, Config, Trial, Verification
from autotuner.verify.foresight import contest_s
from autotuner.verify.verification import verify


def tune(
    spec: StudySpec, study: Study, pool: WorkerPool, jobs: Jobs, listener: Listener, ceilings: Ceilings | None = None
) -> Verification:
    """Run a study from where its record stands to its verdict; `ceilings` are this machine's, for the diagnosis.

    Raises:
        AutotuneError: The environment gave way: the record, the disk or the device. What was measured is kept.
    """
    space, trials = Space(spec), study.trials()
    clock = Clock(spec.budget, trials)
    while not (
        stopped := clock.search_ends(trials, hopeful=found(spec, trials), verdict_s=verdict_s(spec, trials))
        or at_ceiling(spec, space, trials)
        or little_expected(spec, space, trials)
    ):
        if (proposal := propose(spec, space, trials)) is None:
            break
        number, began_s, changed = len(trials), monotonic(), difference(proposal.config, spec.baseline)
        study.append_event("proposed", {"trial": number, "reason": proposal.reason})
        listener(TrialStarted(number, proposal.config, changed, proposal.origin))
        with telemetry.span("trial", {"autotune.trial": number}):
            outcome = pool.submit(jobs.trial(number, proposal.config, best_trial(spec, trials))).result()
            duration_s = monotonic() - began_s
            with clock.phase("diagnosing"):
                verdict = examine(spec, pool, jobs, proposal.config, outcome, trials, ceilings)
            trial = Trial(number, proposal.config, proposal.origin, outcome, verdict)
            study.append_trial(trial)
            trials.append(trial)
            clock.count(trial, duration_s)
            best = best_trial(spec, trials)
            listener(TrialEnded(trial, changed, best.number if best else None, clock.elapsed_s))
    pool.close(SEARCH)
    with clock.phase("verifying"), telemetry.span("verify"):
        complete = not clock.search_ends(trials, hopeful=False)  # neither time nor trials ended it
        verification = verify(spec, pool, jobs, trials, clock.left_s, keeping_pairs(study, listener), complete=complete)
    study.append_verification(verification)
    study.append_event(
        "finished", {"stopped": stopped or "nothing legal is left to try", "phases_s": clock.by_phase_s()}
    )
    return verification


def found(spec: StudySpec, trials: list[Trial]) -> bool:
    """Whether anything measured better than the baseline."""
    best = best_trial(spec, trials)
    return best is not None and best.number > 0


def verdict_s(spec: StudySpec, trials: list[Trial]) -> float:
    """Seconds that the fewest pairs for a verdict on the best so far will take; 0 while there is none."""
    best = best_trial(spec, trials)
    return contest_s(spec.protocol, best, trials) if best is not None and best.number > 0 else 0.0


def keeping_pairs(study: Study, listener: Listener) -> Listener:
    """A listener that puts every pair into the record, so that an interrupted verification leaves its evidence."""

    def listen(event: Event) -> None:
        if isinstance(event, PairMeasured):
            study.append_event("pair", {"stage": event.stage, **asdict(event.pair)})
        listener(event)

    return listen


def difference(config: Config, baseline: Config) -> Config:
    """What a configuration changes.

    >>> difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    {'b': 2}
    """
    return {name: value for name, value in config.items() if value != baseline.get(name)}
