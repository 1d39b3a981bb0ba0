"""Known ways to waste time, each with the numbers that show it, what to try, and where its threshold comes from.

A pattern is named only when its evidence is there; a threshold without a published source says that it is ours.
"""

import math
from collections.abc import Callable, Iterator, Sequence

from autotuner.analyze.flame import Stack, waiting_ratio
from autotuner.analyze.nsight import Counters, base_name
from autotuner.analyze.profile import CpuUse, Pattern
from autotuner.analyze.trace import TraceSummary
from autotuner.metrics import format_quantity

TINY_KERNEL_S = 10e-6
MANY_A_STEP = 100
_INPUT_SHARE = 0.10
_SYNC_SHARE = 0.05
_CAST_SHARE = 0.05
_PAGEABLE_SHARE = 0.01
_STORM_SHARE = 0.40
_COMPILE_SHARE = 0.01
_EXPOSED_SHARE = 0.10
_SPIN_SHARE = 0.20
_SCATTERED_SECTORS = 16.0  # what coalesced 16-byte elements need: more is waste whatever the type
_STRIDED_SECTORS = 8.0  # twice what coalesced 4-byte elements need
_USED_BYTES = 0.5
# .item(), bool(tensor) and int(tensor) end in the first.
_SYNC_OPERATORS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal")


def find(
    trace: TraceSummary, cpu: CpuUse, stacks: Sequence[Stack] = (), counters: Sequence[Counters] = ()
) -> tuple[Pattern, ...]:
    """The patterns that a profile shows, those that concern most time first.

    Args:
        trace: Of a few steps.
        cpu: Who used the CPU without a profiler.
        stacks: Sampled; empty when nobody sampled.
        counters: From ncu; empty when it did not run.
    """
    rules: tuple[Callable[[TraceSummary], Iterator[Pattern]], ...] = (
        _input_wait, _tiny_kernels, _synchronising, _pageable, _casts, _operator_storm, _recompiling, _exposed,
    )  # fmt: skip
    found = [pattern for rule in rules for pattern in rule(trace)]
    found += [*_one_thread(trace, cpu), *_spinning_pool(trace, cpu), *_busy_waiting(trace, cpu, stacks)]
    found += [*_uncoalesced(trace, counters)]
    return tuple(sorted(found, key=lambda pattern: -pattern.share_ratio))


def _input_wait(trace: TraceSummary) -> Iterator[Pattern]:
    share = trace.host.input_s / trace.window_s
    if share > _INPUT_SHARE:
        yield Pattern(
            "input_wait",
            "The steps wait for data",
            f"{_percent(share)} of the time is in next() of the DataLoader,"
            f" {_s(trace.host.input_s / trace.steps)} a step",
            "more workers, persistent_workers, a larger prefetch_factor; cheaper decoding and transforms",
            "threshold 10 %: ours; DS-Analyzer (VLDB 2021) measures the same stall",
            share,
        )


def _tiny_kernels(trace: TraceSummary) -> Iterator[Pattern]:
    device = trace.device
    count = sum(row.count for row in trace.kernels) / trace.steps
    if device is None or count < MANY_A_STEP or not 0 < trace.kernel_median_s < TINY_KERNEL_S:
        return
    idle = (
        ""
        if device.graphs
        else f"; the device waits for the host {_percent(device.idle_host_s / trace.window_s)} of the time"
    )
    yield Pattern(
        "tiny_kernels",
        "Many tiny kernels",
        f"{count:,.0f} kernels a step, half of them shorter than {_s(trace.kernel_median_s)}{idle}",
        "torch.compile (reduce-overhead captures CUDA graphs), a larger batch, fused optimizers and attention",
        "10 us: what one launch costs the host, a few us, with a margin; 100 a step: ours",
        0.0 if device.graphs else device.idle_host_s / trace.window_s,
    )


def _synchronising(trace: TraceSummary) -> Iterator[Pattern]:
    """On a device: what its idleness after waits costs. On a CPU the same calls are free, and worth a word."""
    asked = {row.name: row.count / trace.steps for row in trace.operators if row.name in _SYNC_OPERATORS}
    names = ", ".join(f"{name} {count:,.0f}" for name, count in sorted(asked.items(), key=lambda item: -item[1]))
    advice = (
        "keep .item(), .nonzero(), bool(tensor) and prints out of the step; compare on the device, copy once, later"
    )
    if trace.device is None:
        if sum(asked.values()) >= 1:
            yield Pattern(
                "synchronising",
                "Calls that would make a GPU's host wait",
                f"a step calls {names}: free on this CPU, a full stop each on a GPU",
                advice,
                "one a step is enough to be named: ours",
                0.0,
            )
        return
    share = trace.device.idle_after_sync_s / trace.window_s
    waits = sum(row.count for row in trace.calls if "Synchronize" in row.name) / trace.steps
    if share > _SYNC_SHARE and waits > 1.5 and not trace.device.graphs:  # one wait a step is the step's own
        yield Pattern(
            "synchronising",
            "The host waits for the device inside the steps",
            f"{waits:,.0f} waits a step{f' ({names})' if names else ''}; after them the device stands idle"
            f" {_percent(share)} of the time",
            advice,
            "threshold 5 %: ours",
            share,
        )


def _pageable(trace: TraceSummary) -> Iterator[Pattern]:
    rows = [row for row in trace.copies if "pageable" in row.name.lower()]
    share = sum(row.share_ratio for row in rows)
    if share > _PAGEABLE_SHARE:
        moved, total_s = sum(row.bytes for row in rows), sum(row.total_s for row in rows)
        yield Pattern(
            "pageable_copies",
            "Copies from memory that is not pinned",
            f"{format_quantity(moved / trace.steps, 'bytes')} a step at {format_quantity(moved / total_s, 'bytes')}/s, "
            f"{_percent(share)} of the time ({rows[0].name})",
            "pin_memory=True in the DataLoader, or tensor.pin_memory(); then .to(device, non_blocking=True)",
            "threshold 1 %: ours; CUDA C++ Best Practices Guide, pinned memory",
            share,
        )


def _casts(trace: TraceSummary) -> Iterator[Pattern]:
    share = trace.casts_s / trace.window_s
    if share > _CAST_SHARE:
        yield Pattern(
            "casts",
            "Conversions between data types",
            f"{trace.casts / trace.steps:,.0f} a step (aten::_to_copy), {_percent(share)} of the time",
            "one dtype for weights, activations and inputs; convert once, outside the step; look at autocast's regions",
            "threshold 5 %: ours",
            share,
        )


def _operator_storm(trace: TraceSummary) -> Iterator[Pattern]:
    count = trace.short_operators / trace.steps
    share = (trace.host.python_s + trace.short_operators_s) / trace.window_s
    if trace.device is None and count >= MANY_A_STEP and share > _STORM_SHARE:
        yield Pattern(
            "operator_storm",
            "A storm of small operators",
            f"{count:,.0f} of {trace.innermost_operators / trace.steps:,.0f} operators a step take less than 10 us;"
            f" they and the Python between them are {_percent(share)} of the profiled time",
            "torch.compile, a larger batch, operators that do more at once",
            "10 us: what an operator costs in the framework, a few us, with a margin; 100 a step and 40 %: ours",
            share,
        )


def _recompiling(trace: TraceSummary) -> Iterator[Pattern]:
    share = trace.compilations_s / trace.window_s
    if trace.compilations and share > _COMPILE_SHARE:
        yield Pattern(
            "recompiling",
            "torch.compile translates again during the steps",
            f"{trace.compilations} translations in {trace.steps} warm steps, {_percent(share)} of the time",
            "TORCH_LOGS=recompiles says which guard failed; pad to few shapes, mark_dynamic, or dynamic=True",
            "a warm step should translate nothing; threshold 1 % of the time: ours",
            share,
        )


def _exposed(trace: TraceSummary) -> Iterator[Pattern]:
    device = trace.device
    if device is not None and device.communication_s > _EXPOSED_SHARE * trace.window_s:
        share = device.communication_s / trace.window_s
        yield Pattern(
            "exposed_communication",
            "Communication that nothing hides",
            f"{_percent(share)} of the time only collectives run;"
            f" {_percent(device.overlap_ratio)} of their time is hidden",
            "other bucket sizes, gradient_as_bucket_view, overlap_comm, fewer synchronised steps (no_sync)",
            "threshold 10 %: ours",
            share,
        )


def _one_thread(trace: TraceSummary, cpu: CpuUse) -> Iterator[Pattern]:
    if trace.device is None and cpu.intraop_threads > 1 and cpu.main_ratio > 0.8 and cpu.process_ratio < 1.2:
        yield Pattern(
            "one_thread",
            "One thread works while the others stand idle",
            f"torch may use {cpu.intraop_threads} threads, but {cpu.process_ratio:.2f} cores worked, "
            f"{cpu.main_ratio:.2f} of them in the main thread",
            "larger operators (a larger batch); several processes side by side; else fewer threads lose nothing",
            "less than 1.2 cores with more than one thread allowed: ours",
            max(0.0, 1 - cpu.process_ratio / cpu.intraop_threads),
        )


def _spinning_pool(trace: TraceSummary, cpu: CpuUse) -> Iterator[Pattern]:
    """Threads of the pool that are busier than there was any operator to be busy with."""
    pool = sorted((thread.cpu_ratio for thread in cpu.threads if not thread.main), reverse=True)
    busiest = pool[: max(0, cpu.intraop_threads - 1)]
    if not busiest or trace.device is not None:
        return
    spun = sum(busiest) / len(busiest) - trace.host.operators_s / trace.window_s
    if spun > _SPIN_SHARE:
        yield Pattern(
            "spinning_pool",
            "The thread pool spins while there is nothing to compute",
            f"its threads burn {_percent(sum(busiest) / len(busiest))} of a core each, but operators run only "
            f"{_percent(trace.host.operators_s / trace.window_s)} of the time",
            "OMP_WAIT_POLICY=passive or GOMP_SPINCOUNT=0, fewer threads; it takes the CPU from DataLoader workers",
            "20 % more than operators explain: ours",
            spun,
        )


def _busy_waiting(trace: TraceSummary, cpu: CpuUse, stacks: Sequence[Stack]) -> Iterator[Pattern]:
    """A thread that waits w of the time sleeps w; if it burns more than 1 - w of a core, it waits awake."""
    sampled, in_calls = waiting_ratio(stacks), trace.host.device_wait_s / trace.window_s
    burnt = max(sampled, in_calls) + cpu.main_ratio - 1
    if burnt <= _SPIN_SHARE:  # and so it waits for more than that: a thread burns one core at most
        return
    where = "samples are in functions that wait" if sampled >= in_calls else "time is in calls that wait for the device"
    yield Pattern(
        "busy_waiting",
        "The main thread waits by spinning",
        f"{_percent(max(sampled, in_calls))} of its {where}, yet it used {_percent(cpu.main_ratio)} of a core: at least"
        f" {_percent(burnt)} of the time it waited awake",
        "harmless while a core is free; else block instead of polling (CUDA: cudaDeviceScheduleBlockingSync)",
        "threshold 20 %: ours",
        burnt,
    )


def _uncoalesced(trace: TraceSummary, counters: Sequence[Counters]) -> Iterator[Pattern]:
    shares = {base_name(row.name): row for row in trace.kernels}
    for seen in counters:
        for access, sectors, used in (
            ("loads", seen.load_sectors, seen.load_used_ratio),
            ("stores", seen.store_sectors, seen.store_used_ratio),
        ):
            if _is_scattered(sectors, used, "vectorized" in seen.kernel):
                row = shares.get(base_name(seen.kernel))
                yield Pattern(
                    f"uncoalesced_{access}",
                    f"Scattered or strided global {access}",
                    f"{base_name(seen.kernel)}: {sectors:.1f} sectors a request (4 is coalesced for 4-byte elements, 32"
                    f" the worst){_used(used)}; DRAM at {_percent(seen.dram_ratio)} of its peak",
                    "make the fastest-running index contiguous: .contiguous(), channels_last, another layout or block"
                    " shape; gather less",
                    "sectors per request and bytes used per sector: Nsight Compute, Kernel Profiling Guide; "
                    "more than 16, or 8 with less than half of the bytes used: ours",
                    row.share_ratio if row else 0.0,
                )


def _is_scattered(sectors: float, used_ratio: float, vectorised: bool) -> bool:
    """Wide elements need many sectors too: only unused bytes, or more sectors than any type needs, prove scatter."""
    if not sectors > _STRIDED_SECTORS:
        return False
    if math.isfinite(used_ratio):
        return used_ratio < _USED_BYTES
    return sectors > _SCATTERED_SECTORS or not vectorised


def _used(ratio: float) -> str:
    return f", {_percent(ratio)} of the bytes used" if math.isfinite(ratio) else ""


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %" if math.isfinite(ratio) else "? %"


def _s(seconds: float) -> str:
    return format_quantity(seconds, "s")
