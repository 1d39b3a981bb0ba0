"""Everything that a doctor looks at: what is wrong with the machine first, then what it can do at most."""

import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from autotuner import plugins
from autotuner.doctor import cpu, devices, memory, network, permissions, storage
from autotuner.doctor.ceilings import ceilings_for
from autotuner.doctor.finding import Finding, Level
from autotuner.doctor.operations import Note, say_nothing
from autotuner.errors import MachineError
from autotuner.monitor import environment, gpu
from autotuner.plugins import Probe
from autotuner.records import open_record
from autotuner.store import Record
from autotuner.types import Ceilings, Metrics

WATCH_S = 0.5
_ORDER = (Level.STOPS, Level.ADVICE, Level.INFO)


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes:
        device: What was measured: "cpu" or "cuda".
        machine: In one line.
        ceilings: None when nothing could be measured.
        record: URL of where they are kept; empty if nowhere.
        findings: The worst first.
        notes: What was said meanwhile: what could not be measured, and why.
    """

    device: str
    machine: str
    ceilings: Ceilings | None
    record: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def can_measure(self) -> bool:
        """Whether nothing makes measuring impossible."""
        return all(finding.level is not Level.STOPS for finding in self.findings)


def examine(
    device: str | None = None, db: str | None = None, *, quick: bool = False, again: bool = False,
    note: Note = say_nothing,
) -> Examination:  # fmt: skip
    """Look at this machine, and measure its ceilings unless the record has them.

    Args:
        device: "cpu" or "cuda"; None takes a GPU if there is one.
        db: The record; see `records.open_record`. It is created.
        quick: Only the ceilings that a diagnosis needs.
        again: Measure even what is known.
        note: Told what is being done.

    Raises:
        UsageError: The record's URL makes no sense, or the file is another program's.
    """
    device = device or ("cuda" if gpu.visible_gpus() else "cpu")
    notes: list[str] = []

    def heed(text: str) -> None:
        notes.append(text)
        note(text)

    with ExitStack() as stack:
        record, trouble = _open(stack, db)
        folder = record.folder("doctor").parent if record else Path("studies")
        findings = [*trouble, *find_faults(device, folder)]
        measurable = all(finding.level is not Level.STOPS for finding in findings)
        ceilings = ceilings_for(record, device, quick=quick, again=again, note=heed) if measurable else None
        if measurable and ceilings is None:
            findings.append(Finding(Level.STOPS, "ceilings", notes[-1], "see the other findings"))
        machine = environment.machine_line(environment.fingerprint(device, {}))
        url = record.url if record else ""
    findings.sort(key=lambda finding: _ORDER.index(finding.level))
    return Examination(device, machine, ceilings, url, tuple(findings), tuple(notes))


def _open(stack: ExitStack, db: str | None) -> tuple[Record | None, list[Finding]]:
    """The record, or why there is none."""
    try:
        return stack.enter_context(open_record(db, create=True)), []
    except MachineError as error:
        return None, [Finding(Level.STOPS, "record", error.message, error.hint)]


def find_faults(
    device: str, folder: Path, environ: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> tuple[Finding, ...]:
    """Every check, on this machine.

    Args:
        device: "cpu" or "cuda".
        folder: Where the record lies.
        environ: The environment's variables.
        root: Where `proc` and `sys` are mounted.
    """
    cores = len(os.sched_getaffinity(0))
    scratch, cache = Path(tempfile.gettempdir()), storage.model_cache(environ)
    found = environment.fingerprint("cuda" if gpu.visible_gpus() else device, {})
    checks = (
        cpu.governor(root), cpu.turbo(root), cpu.heat(root), cpu.quota(cores, root), cpu.threads(environ, cores),
        cpu.contention(watch(), cores, root), cpu.clock(root), cpu.virtual(root),
        memory.swap(root), memory.huge_pages(root), memory.shared_memory(_size_bytes(root / "dev/shm")),
        devices.gpus(gpu.conditions(), device), devices.driver(found, bool(gpu.gpus()), device),
        *map(devices.settings, devices.cards()),
        storage.writable(folder, "studies", Level.STOPS), storage.room(folder, "studies", Level.STOPS),
        storage.writable(scratch, "temporary files", Level.STOPS),
        storage.room(scratch, "temporary files", Level.STOPS),
        storage.writable(cache, "downloaded models", Level.ADVICE),
        storage.room(cache, "downloaded models", Level.ADVICE),
        storage.sqlite(), permissions.ptrace(root), permissions.perf_events(root), permissions.gpu_counters(root),
        devices.fabric(root), devices.telemetry(environ),
        network.preflight(environ, len(gpu.visible_gpus()), _size_bytes(root / "dev/shm"), root),
    )  # fmt: skip
    return tuple(dict.fromkeys(chain.from_iterable(checks)))


def watch(window_s: float = WATCH_S) -> Metrics:
    """What the probe `host` sees while this program does nothing."""
    probe = plugins.load_class("probes", "host", Probe).model_validate({"kind": "host"})
    with probe.open("cpu") as reader:
        time.sleep(window_s)
        return reader.read()


def _size_bytes(folder: Path) -> int | None:
    if not folder.is_dir():
        return None
    found = os.statvfs(folder)
    return found.f_frsize * found.f_blocks
