"""The profile from beginning to end: run, read what the profilers left, put it together, write it."""

import gzip
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from autotuner import statistics
from autotuner.analyze import flame, patterns, trace
from autotuner.analyze.profile import CpuUse, Profile, Thread
from autotuner.errors import MachineError, UsageError
from autotuner.executors.devices import reserved_gpus
from autotuner.metrics import median
from autotuner.monitor import environment
from autotuner.profiling import nsight, process
from autotuner.profiling.request import STACKS, TRACE, Answer, Request
from autotuner.report.json_lines import dump
from autotuner.report.profile import profile_json
from autotuner.report.profile_page import page
from autotuner.spec import StudySpec
from autotuner.types import Config, FailureKind

SAMPLE_S, SAMPLES_PER_S = 3.0, 100.0
_LONGER = {"measure": 1.5, "nsys": 3.0, "ncu": 6.0}  # than a trial may take
LOG = "output.log"


def default_folder(spec: StudySpec) -> Path:
    """A new folder below `studies/profiles`, with the study's name and the time in its own."""
    return Path("studies") / "profiles" / f"{spec.name}-{datetime.now():%Y%m%d-%H%M%S}"


def profile(
    spec: StudySpec,
    config: Config,
    out: Path,
    *,
    steps: int = 5,
    sample_s: float = SAMPLE_S,
    listener: Callable[[str], None] = lambda stage: None,
) -> Profile:
    """Run one configuration and write where its time goes.

    Args:
        spec: The study.
        config: A configuration of it, complete.
        out: The folder to write: a page, traces, tables.
        steps: How many steps profilers look at.
        sample_s: How long py-spy looks.
        listener: Told what is being done.

    Raises:
        UsageError: The workload cannot run this configuration anywhere.
        MachineError: It failed here, took too long, or the folder cannot be written.
    """
    started_at = datetime.now(UTC)
    folder = _made(out.resolve())
    request = Request(spec.dump(), config, "measure", steps, sample_s, SAMPLES_PER_S, str(folder))
    with reserved_gpus() if spec.device == "cuda" else nullcontext():
        listener("running: a step's time, then torch.profiler, then py-spy")
        answer = _run_child(request, spec)
        events = trace.parse(json.loads(gzip.decompress((folder / TRACE).read_bytes())))
        found = _put_together(spec, request, answer, trace.summarise(events), started_at)
        if spec.device == "cuda":
            found = _look_deeper(found, spec, replace(request, mode="range"), listener)
    wasted = patterns.find(found.trace, found.cpu, found.stacks, found.ncu)
    return _written(replace(found, patterns=wasted))


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"cannot write {folder}: {error.strerror}", "choose another folder with -o") from None
    return folder


def _run_child(request: Request, spec: StudySpec) -> Answer:
    """Run the profiled process.

    Raises:
        UsageError: The configuration makes no sense to the workload.
        MachineError: It failed.
    """
    request.answer_path.unlink(missing_ok=True)
    log = Path(request.folder) / LOG
    limit_s = spec.protocol.time_limit_s * _LONGER["measure"] + request.sample_s
    code = process.run("the profiled process", nsight.child_command(request.save()), log, limit_s)
    if code or not request.answer_path.is_file():
        raise MachineError(f"the profiled process failed: {process.ending(code, log)}", f"its output is in {log}")
    answer = Answer.load(request.answer_path)
    kind, message = answer.failure
    if kind == FailureKind.INVALID_CONFIG:
        raise UsageError(message, "choose other values with --set")
    if kind:
        raise MachineError(f"{kind}: {message}", f"its output is in {log}")
    return answer


def _put_together(
    spec: StudySpec, request: Request, answer: Answer, seen: trace.TraceSummary, started_at: datetime
) -> Profile:
    stacks_path = Path(request.folder) / STACKS
    text = stacks_path.read_text(errors="replace") if not answer.note else ""
    deeper = nsight.commands(Path(request.folder), Path(request.folder) / "request-range.json", _names(seen))
    replace(request, mode="range").save()  # so that the commands can be typed
    return Profile(
        name=spec.name,
        config=request.config,
        baseline=spec.baseline,
        device=spec.device,
        machine=environment.machine_line(environment.fingerprint(spec.device, spec.workload.identity())),
        started_at=started_at,
        step_s=median(answer.block_step_s),
        step_precision_ratio=statistics.half_width_ratio(answer.block_step_s),
        throughputs=answer.throughputs or {},
        contended=answer.contended,
        profiled_step_s=answer.profiled_s / request.steps,
        trace=seen,
        cpu=CpuUse(tuple(Thread(*t) for t in answer.threads), answer.workers_ratio, answer.intraop_threads),
        stacks=flame.parse_raw(text),
        samples_per_s=request.samples_per_s,
        notes=(answer.note,) if answer.note else (),
        commands=deeper,
        folder=request.folder,
    )


def _names(seen: trace.TraceSummary) -> Sequence[str]:
    return [row.name for row in seen.kernels]


def _look_deeper(found: Profile, spec: StudySpec, request: Request, listener: Callable[[str], None]) -> Profile:
    """Let nsys and ncu look, where they are; what they cannot do becomes a note."""
    listener("running: nsys")
    tables, no_tables = nsight.run_nsys(request, spec.protocol.time_limit_s * _LONGER["nsys"])
    listener("running: ncu, which repeats every kernel")
    counters, no_counters = nsight.run_ncu(request, _names(found.trace), spec.protocol.time_limit_s * _LONGER["ncu"])
    notes = tuple(note for note in (no_tables, no_counters) if note)
    return replace(found, nsys=tables, ncu=counters, notes=found.notes + notes)


def _written(found: Profile) -> Profile:
    """Write the page and the files that other tools open.

    Raises:
        MachineError: The folder cannot be written.
    """
    folder = Path(found.folder)
    files = {"page": "profile.html", "values": "profile.json", "trace": TRACE, "log": LOG}
    files |= {"speedscope": "speedscope.json"} if found.stacks else {}
    files |= {"nsys": "nsys.nsys-rep"} if found.nsys else {}
    files |= {"ncu": "ncu.csv"} if found.ncu else {}
    done = replace(found, files={kind: str(folder / name) for kind, name in files.items()})
    try:
        if done.stacks:
            speedscope = flame.speedscope(done.stacks, done.samples_per_s, done.name)
            (folder / files["speedscope"]).write_text(json.dumps(speedscope))
        (folder / files["values"]).write_text(dump(profile_json(done), indent=1))
        (folder / files["page"]).write_text(page(done), encoding="utf-8")
    except OSError as error:
        raise MachineError(f"cannot write {folder}: {error.strerror}", "free some space") from None
    return done
