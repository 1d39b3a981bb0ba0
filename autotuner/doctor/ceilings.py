"""Measuring what this machine can do at most, by the same means as everything else, and keeping it in the record."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from autotuner.analyze.collectives import fit_link
from autotuner.caches import last_level_cache_bytes
from autotuner.doctor.bench import LAUNCH, QUICK, bench, better, take_between_gpus
from autotuner.doctor.devices import cards
from autotuner.doctor.operations import Note, Operation, operations, say_nothing
from autotuner.errors import AutotuneError, MachineError
from autotuner.monitor import environment, gpu
from autotuner.plugins import WorkerPool
from autotuner.store import Record
from autotuner.types import Ceilings, Estimate, Measurement

logger = logging.getLogger(__name__)

METHOD = "1"  # of measuring: what ceilings hold for, so that numbers of another method are not taken for this one's
# What the rates depend on; the rest of a fingerprint (transformers, Python, this program) does not touch them.
_OF_THE_MACHINE = ("gpu", "gpu_memory_bytes", "driver", "cpu", "cores", "memory_bytes", "kernel", "torch", "cuda")
_THOROUGH = replace(QUICK, block_s=0.04, min_measure_s=0.6, max_measure_s=1.0)
_QUICK_BUDGET_S, _FULL_BUDGET_S = 6.0, 20.0  # within which disturbed windows are taken again
_LINK = ("allreduce_alpha_s", "allreduce_beta_s_per_byte")


def ceilings_for(
    record: Record | None,
    device: str,
    *,
    pool: WorkerPool | None = None,
    note: Note = say_nothing,
    quick: bool = True,
    again: bool = False,
    retry_disturbed: bool = False,
) -> Ceilings | None:
    """This machine's ceilings: from the record, or measured now and kept there. Never fails a study.

    Args:
        record: Where they are kept; None keeps nothing.
        device: "cpu" or "cuda".
        pool: An opened one, whose other launches are closed first; None opens one, and on "cuda" reserves a GPU.
        note: Told in one sentence what is done and what goes wrong.
        quick: Be content with the subset that a diagnosis needs.
        again: Measure even if they are known.
        retry_disturbed: The same if one of that subset was disturbed.

    Returns: None, after a note, when there are none.
    """
    try:
        known = record.ceilings(machine_environment(device)) if record else None
        again = again or (retry_disturbed and known is not None and _is_disturbed(known, device))
        if known and not again and (quick or _is_full(known, device)):
            return known
        note("measuring what this machine can do at most" + ("" if known else ", once"))
        beside = record.folder(LAUNCH).parent if record else None
        found = measure_ceilings(device, pool=pool, quick=quick, note=note, folder=beside)
        return _keep(record, known, found)
    except AutotuneError as error:
        logger.warning("no ceilings: %s", error)
        note(f"what this machine can do at most is not known: {error}")
        return None


def _keep(record: Record | None, known: Ceilings | None, found: Ceilings) -> Ceilings:
    if not found.values:
        raise MachineError("nothing could be measured")
    merged = merge(known, found) if known else found
    if record:
        record.append_ceilings(merged)
    return merged


def _is_disturbed(known: Ceilings, device: str) -> bool:
    """Whether one of those that a diagnosis needs was never measured undisturbed."""
    return any(each.ceiling in known.contended for each in operations(device, quick=True))


def _is_full(known: Ceilings, device: str) -> bool:
    """Whether anything beyond the quick subset was measured."""
    return any(each.ceiling in known.values for each in operations(device, quick=False) if not each.quick)


def merge(known: Ceilings, measured: Ceilings) -> Ceilings:
    """What was measured now, and what is known of the rest; a disturbed value replaces neither a calm nor a better one.

    What was measured on another machine, for its GPU was the free one, is left alone.
    """
    if known.environment != measured.environment:
        return measured
    kept = {name for name in measured.contended if name in known.values and _is_worse(name, measured, known)}
    fresh = {name: value for name, value in measured.values.items() if name not in kept}
    contended = (set(measured.contended) - kept) | (set(known.contended) - fresh.keys())
    return replace(measured, values={**known.values, **fresh}, contended=tuple(sorted(contended)))


def _is_worse(name: str, measured: Ceilings, known: Ceilings) -> bool:
    """Whether a disturbed value says less than the known one: that was calm, or proved the machine to be faster."""
    now, before = measured.values[name].value, known.values[name].value
    return name not in known.contended or (now < before if name.endswith("_per_s") else now > before)


def machine_environment(device: str) -> dict[str, str]:
    """What ceilings hold for: hardware, power limit, driver, kernel, torch, and the threads it was told to take."""
    found = environment.fingerprint(device, {})
    kept = {name: found[name] for name in _OF_THE_MACHINE if name in found}
    limits_w = [card.power_limit_w for card in cards() if card.power_limit_w] if device != "cpu" else []
    if limits_w:
        kept["power_limit_w"] = f"{limits_w[0]:.0f}"
    return {**kept, "device": device, "threads": os.environ.get("OMP_NUM_THREADS", ""), "method": METHOD}


def measure_ceilings(
    device: str,
    *,
    pool: WorkerPool | None = None,
    quick: bool = False,
    note: Note = say_nothing,
    folder: Path | None = None,
) -> Ceilings:
    """Measure them; what cannot be measured here is absent.

    Each operation is a job for the process executor, like a trial. Those that somebody else disturbed are measured
    once more at the end, as far as the time goes, and are marked if they stay so.

    Args:
        device: "cpu" or "cuda".
        pool: An opened one, see `ceilings_for`.
        quick: The subset that a diagnosis needs: products, copy, triad, launches.
        note: Told of every operation that fails.
        folder: Whose disk is read; default the folder for temporary files.

    Raises:
        MachineError: No worker can be started, or no GPU is free.
    """
    began_s, budget_s = monotonic(), _QUICK_BUDGET_S if quick else _FULL_BUDGET_S
    taken: dict[Operation, Measurement] = {}
    with bench(pool, device, folder) as opened:
        for operation in operations(device, quick=quick):
            if measured := opened.take(operation, QUICK if quick else _THOROUGH, note):
                taken[operation] = measured
        links = {} if quick or device != "cpu" else opened.take_all_reduces(note)
        for operation in [each for each, measured in taken.items() if measured.contended]:
            if monotonic() - began_s < budget_s:
                taken[operation] = better(operation, taken[operation], opened.take(operation, QUICK, note))
        machine = machine_environment(device)  # here, for it is the GPU that was free
    if not quick and device != "cpu" and pool is None and len(gpu.visible_gpus()) > 1:
        links = take_between_gpus(note)
    return as_ceilings(machine, taken, links)


def as_ceilings(
    machine: Mapping[str, str], taken: Mapping[Operation, Measurement], links: Mapping[Operation, Measurement]
) -> Ceilings:
    """What the measurements say of a machine.

    Args:
        machine: Its environment.
        taken: One measurement an operation.
        links: Of all-reduces, one a size of message.
    """
    values = {operation.ceiling: operation.estimate(measured) for operation, measured in taken.items()}
    contended = [operation.ceiling for operation, measured in taken.items() if measured.contended]
    if values and (cache_bytes := _cache_bytes(machine["device"], taken)):
        values["cache_bytes"] = Estimate(cache_bytes, cache_bytes, cache_bytes)
    times_s = [(each.message_bytes, each.estimate(measured).value) for each, measured in links.items()]
    if link := fit_link(times_s, processes=2):
        values |= zip(_LINK, (link.alpha_s, link.beta_s_per_byte), strict=True)
        contended += _LINK if any(measured.contended for measured in links.values()) else ()
    return Ceilings(values, machine, datetime.now(UTC), tuple(sorted(contended)))


def _cache_bytes(device: str, taken: Mapping[Operation, Measurement]) -> float | None:
    """The CPU's as the kernel describes it; a GPU's as the workers were told, None if none was."""
    if device == "cpu":
        return float(last_level_cache_bytes())
    return next((seen[0] for measured in taken.values() if (seen := measured.samples.get("cache_bytes"))), None)
