"""The memory: what is swapped out, how large its pages are, and how much of it processes can share."""

import re
from collections.abc import Iterator
from pathlib import Path

from autotuner.doctor.cpu import ROOT, read
from autotuner.doctor.finding import Finding, Level
from autotuner.metrics import format_quantity

SWAPPED_BYTES = 2**26  # less is what nobody has touched since boot
SHARED_BYTES = 2**30  # docker gives 64 MiB; a batch of images takes more


def swap(root: Path = ROOT) -> Iterator[Finding]:
    """Memory that lies on a disk."""
    fields = dict(re.findall(r"^(Swap\w+):\s*(\d+) kB$", read(root / "proc/meminfo"), re.MULTILINE))
    used_bytes = 1024 * (int(fields.get("SwapTotal", 0)) - int(fields.get("SwapFree", 0)))
    if used_bytes > SWAPPED_BYTES:
        text = f"{format_quantity(used_bytes, 'bytes')} of memory are swapped out: what touches them waits for a disk"
        yield Finding(Level.ADVICE, "swap", text, "free memory, then sudo swapoff -a && sudo swapon -a")


def huge_pages(root: Path = ROOT) -> Iterator[Finding]:
    """Transparent huge pages that nobody gets."""
    chosen = re.search(r"\[(\w+)\]", read(root / "sys/kernel/mm/transparent_hugepage/enabled"))
    if chosen and chosen[1] == "never":
        text = "transparent huge pages are off: large tensors on the CPU miss the TLB more often"
        mend = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled, and THP_MEM_ALLOC_ENABLE=1"
        yield Finding(Level.ADVICE, "huge_pages", text, mend)


def shared_memory(size_bytes: int | None) -> Iterator[Finding]:
    """A small /dev/shm: workers of a DataLoader hand their batches over in it, and die when it is full.

    Args:
        size_bytes: Of /dev/shm; None if there is none.
    """
    if size_bytes is None or size_bytes < SHARED_BYTES:
        what = f"holds {format_quantity(size_bytes, 'bytes')}" if size_bytes is not None else "is not there"
        text = f"/dev/shm {what}: workers of a DataLoader hand their batches over in it, and may die of a bus error"
        yield Finding(Level.ADVICE, "shared_memory", text, "docker run --shm-size=8g, or --ipc=host")
