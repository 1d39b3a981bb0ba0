"""What a program can do with autotune: start, resume, verify, export. The command line calls nothing else."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from autotuner import plugins, telemetry
from autotuner.adjust.space import Space, SpaceCheck, check_space
from autotuner.clock import Clock
from autotuner.doctor import ceilings_for
from autotuner.errors import UsageError
from autotuner.events import Listener, Note, StudyEnded, StudyStarted, StudySummary, ignore
from autotuner.executors.devices import reserved_gpus
from autotuner.exporting import check_export, export, export_targets, recommendation
from autotuner.jobs import Jobs
from autotuner.loop import tune as run_loop
from autotuner.monitor import environment
from autotuner.observing import ObservedPool, observed
from autotuner.plugins import WorkerPool
from autotuner.reading import read_spec
from autotuner.records import load_study, open_record
from autotuner.spec import restore
from autotuner.spec.model import StudySpec
from autotuner.store import Record, Study
from autotuner.summary import summarize
from autotuner.types import Ceilings
from autotuner.verify.verification import claim_of, confirm
from autotuner.warm_start import warm_started

__all__ = [
    "check", "check_export", "delete", "export", "export_targets", "load_study", "open_record", "read_spec",
    "recommendation", "resume", "start", "tune", "verify",
]  # fmt: skip


def check(path: Path, overrides: Sequence[str] = ()) -> SpaceCheck:
    """Read a study file and count its configurations.

    Raises:
        UsageError: The file does not describe a study.
    """
    return check_space(read_spec(path, overrides))


def start(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    name: str | None = None,
    db: str | None = None,
    listener: Listener = ignore,
) -> StudySummary:
    """Tune what a study file describes, and verify the winner.

    Args:
        path: The study file.
        overrides: "dotted.key=value" each, over the file's.
        name: Of the study; default the file's, numbered when it is taken.
        db: URL or path of the record.
        listener: Told of everything as it happens, on the caller's thread.

    Raises:
        UsageError: The user's mistake; nothing was started.
        MachineError: The environment's; what was measured is kept.
        KeyboardInterrupt: As raised; every process is gone and what was measured is kept.
    """
    return tune(read_spec(path, overrides), name=name, db=db, listener=listener)


def tune(
    spec: StudySpec | Path | str, *, name: str | None = None, db: str | None = None, listener: Listener = ignore
) -> StudySummary:
    """Tune a study given as a file or as a `StudySpec`; otherwise like `start`."""
    if not isinstance(spec, StudySpec):
        spec = read_spec(Path(spec))
    with open_record(db, create=True) as record:
        chosen = _free_name(record, spec.name) if name is None else name
        _mention_unfinished(record, spec.name, chosen, listener)
        spec = warm_started(record, spec, listener)
        with _running(record, chosen, spec, listener) as (pool, jobs, listener):
            study = record.create(spec, chosen)  # only now: a study that could not start leaves no trace
            _run(record, study, spec, pool, jobs, listener)
            return _ended(record, study, listener)


def resume(name: str, *, db: str | None = None, listener: Listener = ignore, most_s: float = math.inf) -> StudySummary:
    """Go on with an interrupted study where its record stands.

    Args:
        name: Of the study.
        db: URL or path of the record.
        listener: Told of everything as it happens, on the caller's thread.
        most_s: It is brought to its end within so many seconds more, if its own budget is not used up before.

    Raises:
        UsageError: No such study, it is finished, or another process runs it.
    """
    with open_record(db) as record:
        study = record.study(name)
        if study.events("finished"):
            raise UsageError(f"study {name!r} is finished", f"measure its winner again: autotune study verify {name}")
        spec = _ending(restore(study.spec()), study, most_s)
        with _running(record, name, spec, listener) as (pool, jobs, listener):
            _run(record, study, spec, pool, jobs, listener)
            return _ended(record, study, listener)


def _ending(spec: StudySpec, study: Study, most_s: float) -> StudySpec:
    """With a budget that ends so many seconds from now, where its own ends later."""
    minutes = (Clock(spec.budget, study.trials()).elapsed_s + most_s) / 60
    if minutes >= (math.inf if spec.budget.minutes is None else spec.budget.minutes):
        return spec
    return spec.model_copy(update={"budget": spec.budget.model_copy(update={"minutes": minutes})})


def verify(name: str, *, db: str | None = None, listener: Listener = ignore) -> StudySummary:
    """Measure a finished study's claim again, now and on this machine, in fresh processes.

    Raises:
        UsageError: No such study, or it has nothing to verify.
    """
    with open_record(db) as record:
        study = record.study(name)
        spec = restore(study.spec())
        if not study.verifications():
            raise UsageError(f"study {name!r} has not come to a verdict yet", f"autotune study resume {name}")
        claim = claim_of([found for _, found in study.verifications()])
        if claim.config == claim.baseline:
            raise UsageError(f"study {name!r} claims nothing that could be verified: it keeps its baseline",
                             "start it again with more time or trials, to find something better")  # fmt: skip
        with _running(record, name, spec, listener) as (pool, jobs, listener):
            listener(_started(record, study, spec))
            with telemetry.span("verify"):
                verification = confirm(spec, pool, jobs, claim, listener)
            study.append_verification(verification)
            return _ended(record, study, listener)


def delete(name: str, *, db: str | None = None) -> None:
    """Delete a study: its rows and its folder.

    Raises:
        UsageError: No such study, or a process is running it.
    """
    with open_record(db) as record:
        record.study(name)
        folder = record.folder(name)
        record.delete(name)
        shutil.rmtree(folder, ignore_errors=True)


def _mention_unfinished(record: Record, name: str, chosen: str, listener: Listener) -> None:
    """A study of the same name that somebody may have meant to go on with."""
    if name != chosen and name in record.names() and not record.study(name).events("finished"):
        listener(Note(f"study {name} is unfinished; this one is {chosen}. To go on: autotune study resume {name}"))


def _free_name(record: Record, name: str) -> str:
    """The name, or with the next number when an earlier study has it.

    Raises:
        UsageError: The earlier one is running now; two at once would disturb each other.
    """
    taken = set(record.names())
    latest = name
    for number in range(2, len(taken) + 3):
        if latest not in taken:
            break
        with record.lock(latest):
            pass
        latest = f"{name}-{number}"
    return latest


@contextmanager
def _running(
    record: Record, name: str, spec: StudySpec, listener: Listener
) -> Iterator[tuple[WorkerPool, Jobs, Listener]]:
    """Everything that a running study holds: its lock, its device, its workers, its telemetry."""
    with ExitStack() as stack:
        stack.enter_context(record.lock(name))
        if spec.device == "cuda":
            stack.enter_context(reserved_gpus(Space(spec).most_ranks()))
        delivery = stack.enter_context(telemetry.session())
        stack.enter_context(telemetry.span("tune", {"autotune.study": name}))
        pool = stack.enter_context(spec.executor.open(plugins.modules_of(spec.workload, spec.probes)))
        yield ObservedPool(pool), Jobs(spec, record.folder(name)), observed(listener)
    if delivery.loss:
        listener(Note(f"telemetry: {delivery.loss}"))


def _run(record: Record, study: Study, spec: StudySpec, pool: WorkerPool, jobs: Jobs, listener: Listener) -> None:
    study.append_event("resumed" if study.events("started") else "started")
    listener(_started(record, study, spec))
    ceilings = _ceilings(record, spec, pool, listener)
    if ceilings is not None:
        study.append_event("ceilings", {name: estimate.value for name, estimate in ceilings.values.items()})
    run_loop(spec, study, pool, jobs, listener, ceilings)


def _ceilings(record: Record, spec: StudySpec, pool: WorkerPool, listener: Listener) -> Ceilings | None:
    """This machine's ceilings, measured once; a workload that does not run torch cannot be held against them."""
    if "torch" not in spec.workload.preload():
        return None

    def note(text: str) -> None:
        listener(Note(text))

    return ceilings_for(record, spec.device, pool=pool, note=note, retry_disturbed=True)


def _started(record: Record, study: Study, spec: StudySpec) -> StudyStarted:
    kept = study.count()
    baseline = study.trial(0).verdict if kept else None
    return StudyStarted(
        name=study.name,
        metric=spec.objective.metric,
        maximize=spec.objective.sign > 0,
        parameters=len(spec.parameters),
        legal_size=Space(spec).size(),
        max_trials=spec.budget.trials,
        budget_s=Clock(spec.budget, ()).total_s,
        kept_trials=kept,
        machine=environment.machine_line(environment.fingerprint(spec.device, spec.workload.identity())),
        record=record.url,
        folder=str(record.folder(study.name)),
        baseline_value=baseline.objectives[spec.objective.metric] if baseline else math.nan,
    )


def _ended(record: Record, study: Study, listener: Listener) -> StudySummary:
    summary = summarize(study, record.url, str(record.folder(study.name)))
    listener(StudyEnded(summary))
    return summary
