"""The command: measure, judge, append, report."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from autotuner import telemetry
from autotuner.bench import judge
from autotuner.bench.base import Side, base_side, today
from autotuner.bench.git import Repository, complaint, repository_of
from autotuner.bench.measure import Alone, Beside, compare, launch_values, measure, metrics_of, until
from autotuner.bench.trend import changes_in, left_out, past_of, surroundings, trend_of
from autotuner.errors import UsageError
from autotuner.events import Listener, Note, StageStarted, ignore
from autotuner.executors.devices import reserved_gpus
from autotuner.metrics import median
from autotuner.observing import observed
from autotuner.reading import read_spec
from autotuner.records import open_record
from autotuner.spec.model import StudySpec
from autotuner.store import Record
from autotuner.types import BenchDecision, BenchKey, BenchReport, BenchRun


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for.

    Attributes:
        path: The study file.
        overrides: "dotted.key=value" each, for both sides.
        base: Revision to compare with; None for the history.
        margin: Relative difference up to which two are the same.
        minutes: For the measuring.
        branch: Name of the history; None for the repository's branch.
        db: URL or path of the record.
    """

    path: Path
    overrides: Sequence[str] = ()
    base: str | None = None
    margin: float = 0.05
    minutes: float = 5.0
    branch: str | None = None
    db: str | None = None


def bench(order: Order, listener: Listener = ignore) -> BenchReport:
    """Measure what a file runs today, say whether it got worse, and append it to the history.

    Raises:
        UsageError: The file, an override or the revision is wrong.
        MachineError: The environment's; nothing was appended.
        KeyboardInterrupt: As raised; nothing was appended, every process and the worktree are gone.
    """
    began_s = time.monotonic()
    spec = read_spec(order.path, order.overrides)
    repository = repository_of(order.path)
    commit = repository.commit(order.base) if repository and order.base else ""
    with open_record(order.db, create=True) as record, _running(record, spec, listener) as (folder, heard):
        notes = _Notes(heard)
        run = _beside(order, spec, repository, commit, folder, notes) if order.base else None
        if run is None:
            run = _alone(order, spec, repository, folder, notes, record)
        record.benches.append(run)
        report = _report(record, order, spec, run.key, notes.told)
    return replace(report, run=run, duration_s=time.monotonic() - began_s)


def history(order: Order) -> BenchReport:
    """What the history of a file says, without measuring anything.

    Raises:
        UsageError: The file is wrong, or there is no record.
    """
    spec = read_spec(order.path, order.overrides)
    with open_record(order.db) as record:
        key = _key(order, spec, repository_of(order.path))
        report = _report(record, order, spec, key, [])
    if not report.history and not report.notes:
        said = "nothing was measured yet on this branch with these settings: leave --history out"
        report = replace(report, notes=(said,))
    return replace(report, measured=False)


class _Notes:
    """Tells whoever listens, and keeps what was told for the report."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        self.told.append(text)
        self.listener(Note(text))


@contextmanager
def _running(record: Record, spec: StudySpec, listener: Listener) -> Iterator[tuple[Path, Listener]]:
    """The folder of logs, held against a second run of the same; the GPU; telemetry."""
    name = f"bench-{spec.name}"[:64]
    with ExitStack() as stack:
        stack.enter_context(record.lock(name))
        if spec.device == "cuda":
            stack.enter_context(reserved_gpus(spec.workload.ranks(spec.baseline)))
        stack.enter_context(telemetry.session())
        stack.enter_context(telemetry.span("bench", {"autotune.study": spec.name}))
        yield record.folder(name).resolve(), observed(listener)


def _key(order: Order, spec: StudySpec, repository: Repository | None) -> BenchKey:
    path = order.path.resolve()
    goal = spec.objective
    return BenchKey(
        file=path.relative_to(repository.top).as_posix() if repository else str(path),
        branch=order.branch or (repository.branch if repository else "none"),
        settings="\n".join(order.overrides),
        metric=goal.metric,
        maximize=goal.sign > 0,
    )


def _beside(
    order: Order, spec: StudySpec, repository: Repository | None, commit: str, folder: Path, notes: _Notes
) -> BenchRun | None:
    """Against the base revision; None, after a word why, when there is nothing to compare with."""
    if repository is None:
        notes.tell(f"--base: {order.path}: {complaint(order.path)}; compared with the history instead")
        return None
    now = today(spec)
    try:
        with base_side(repository, order.path, commit, now, order.overrides) as base:
            text = f"{repository.revision or 'the working tree'} against {commit[:12]}, side by side in fresh processes"
            notes.listener(StageStarted("bench", text))
            beside = compare(
                now, base, folder, margin=order.margin, deadline=until(order.minutes), minutes=order.minutes,
                listener=notes.listener, seed=spec.seed,
            )  # fmt: skip
    except UsageError as error:
        notes.tell(f"--base: {error.message}; compared with the history instead")
        return None
    found = judge.against_base(now.spec, beside, order.margin)
    if beside.again is not None and found.decision is BenchDecision.INVALID:
        notes.tell(f"--base: {found.reason}; compared with the history instead")
        return None
    return _run_beside(_key(order, spec, repository), repository, commit, now, beside, found)


def _run_beside(
    key: BenchKey, repository: Repository, commit: str, now: Side, beside: Beside, found: judge.Finding
) -> BenchRun:
    result = beside.result
    values = launch_values(result)
    failed = beside.again is not None
    return BenchRun(
        key=key,
        revision=repository.revision,
        environment=surroundings(now.spec),
        decision=found.decision,
        reason=found.reason,
        value=median(values) if values and not failed else None,
        launch_values=values,
        metrics=metrics_of(now.spec, result.candidate_samples),
        violations=judge.excesses(now.spec, result.candidate_samples, result.baseline_samples)[0] if values else {},
        broken=found.broken,
        samples=result.candidate_samples,
        contended=2 * sum(pair.contended for pair in result.pairs) > len(result.pairs),
        failure=found.reason if failed else "",
        config=now.spec.canonical(now.spec.baseline),
        base_revision=commit[:12],
        base_metrics=metrics_of(now.spec, result.baseline_samples),
        gain_ratio=found.gain_ratio,
        gain_interval=found.gain_interval,
        pairs=found.pairs,
        created_at=datetime.now(UTC),
    )


def _alone(
    order: Order, spec: StudySpec, repository: Repository | None, folder: Path, notes: _Notes, record: Record
) -> BenchRun:
    """Against the history."""
    notes.listener(StageStarted("bench", "what the file runs, in fresh processes, against its history"))
    now = today(spec)
    seen = measure(now, folder, deadline=until(order.minutes))
    run = _run_alone(_key(order, spec, repository), repository, now, seen)
    past = past_of([*record.benches.runs(run.key), run], run.environment)
    found = judge.of_history(past, run, order.margin)
    return replace(
        run, decision=found.decision, reason=found.reason, broken=found.broken, gain_ratio=found.gain_ratio,
        gain_interval=found.gain_interval,
    )  # fmt: skip


def _run_alone(key: BenchKey, repository: Repository | None, now: Side, seen: Alone) -> BenchRun:
    return BenchRun(
        key=key,
        revision=repository.revision if repository else "",
        environment=surroundings(now.spec),
        decision=BenchDecision.UNCLEAR,
        reason="",
        value=median(seen.values) if seen.values and seen.failure is None else None,
        launch_values=seen.values,
        metrics={**metrics_of(now.spec, seen.samples), **({key.metric: median(seen.values)} if seen.values else {})},
        violations=judge.excesses(now.spec, seen.samples, {})[0] if seen.samples else {},
        samples=seen.samples,
        contended=seen.contended,
        failure=judge.failure_text(seen.failure) if seen.failure else "",
        config=now.spec.canonical(now.spec.baseline),
        created_at=datetime.now(UTC),
    )


def _report(record: Record, order: Order, spec: StudySpec, key: BenchKey, told: Sequence[str]) -> BenchReport:
    runs, here = record.benches.runs(key), surroundings(spec)
    past, others = past_of(runs, here), left_out(runs, here)
    return BenchReport(
        key=key,
        run=past.runs[-1] if past.runs else None,
        history=past.runs,
        changes=changes_in(past),
        trend=trend_of(past),
        notes=(*told, *([others] if others else [])),
        record=record.url,
        margin=order.margin,
        maximize=spec.objective.directions,
    )
