"""How many warps of a kernel an SM can hold at once, by the CUDA occupancy rules, and what keeps it from more.

Rules and limits: CUDA C++ Programming Guide, "Hardware Implementation" and the tables "Technical Specifications per
Compute Capability" and "Shared Memory Capacity per Compute Capability"; CUDA C++ Best Practices Guide, "Calculating
Occupancy". Held against NVIDIA's `cuda_occupancy.h` on thousands of launches in `benchmarks/models.py`.

High occupancy hides latency; it is no goal in itself. Kernels that keep their data in registers, as matrix
multiplications do, are fastest at 12 to 25 % (Volkov 2010, "Better Performance at Lower Occupancy").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

_KIB = 1024
_WARP_THREADS = 32
_PARTITIONS = 4  # an SM's schedulers, each with a quarter of the registers
_REGISTERS = 65536  # of an SM, and the most of a block
_REGISTER_UNIT = 256  # registers are given to warps in such portions
_MOST_REGISTERS_PER_THREAD = 255
_MOST_THREADS_PER_BLOCK = 1024
_NO_LIMIT = 2**31 - 1


class Limit(StrEnum):
    """What runs out first on an SM."""

    WARPS = "warps"
    BLOCKS = "blocks"
    REGISTERS = "registers"
    SHARED_MEMORY = "shared memory"


@dataclass(frozen=True, slots=True)
class Multiprocessor:
    """What an SM of one compute capability can hold.

    Attributes:
        warps: Resident warps.
        blocks: Resident blocks.
        shared_bytes: Shared memory of all blocks, at the largest carve-out from the L1 cache.
        shared_block_bytes: The most that one block may ask for (beyond 48 KiB only as dynamic shared memory).
        shared_unit_bytes: Shared memory is given to blocks in such portions.
        shared_reserve_bytes: What the system takes of every block's share.
    """

    warps: int
    blocks: int
    shared_bytes: int
    shared_block_bytes: int
    shared_unit_bytes: int = 128
    shared_reserve_bytes: int = _KIB


_LARGE = Multiprocessor(64, 32, 228 * _KIB, 227 * _KIB)
_SMALL = Multiprocessor(48, 24, 100 * _KIB, 99 * _KIB)
MULTIPROCESSORS: Mapping[tuple[int, int], Multiprocessor] = {
    (7, 0): Multiprocessor(64, 32, 96 * _KIB, 96 * _KIB, 256, 0),
    (7, 5): Multiprocessor(32, 16, 64 * _KIB, 64 * _KIB, 256, 0),
    (8, 0): Multiprocessor(64, 32, 164 * _KIB, 163 * _KIB),
    (8, 6): Multiprocessor(48, 16, 100 * _KIB, 99 * _KIB),
    (8, 9): _SMALL,
    (9, 0): _LARGE,
    (10, 0): _LARGE,
    (10, 3): _LARGE,
    (12, 0): _SMALL,
    (12, 1): _SMALL,
}


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What an SM holds of a kernel.

    Attributes:
        blocks: Resident blocks; 0 when the kernel cannot be launched.
        warps: Resident warps.
        ratio: Resident warps over the most that the SM can hold.
        limits: How many blocks each resource alone would allow.
    """

    blocks: int
    warps: int
    ratio: float
    limits: Mapping[Limit, int]

    @property
    def binding(self) -> tuple[Limit, ...]:
        """The resources that run out first."""
        return tuple(limit for limit, blocks in self.limits.items() if blocks == self.blocks)


def occupancy(
    capability: tuple[int, int], block_threads: int, thread_registers: int, block_shared_bytes: int
) -> Occupancy:
    """Resident blocks and warps of a launch.

    Args:
        capability: Compute capability, a key of `MULTIPROCESSORS`.
        block_threads: Threads of a block, >= 1.
        thread_registers: Of a thread, 0 to 255, as `ptxas -v` prints them.
        block_shared_bytes: Static and dynamic shared memory of a block.

    Raises:
        ValueError: No such capability, or a number out of its bounds.
    """
    if capability not in MULTIPROCESSORS:
        known = ", ".join(f"{major}.{minor}" for major, minor in MULTIPROCESSORS)
        raise ValueError(f"compute capability {capability[0]}.{capability[1]} is none of {known}")
    if block_threads < 1 or not 0 <= thread_registers <= _MOST_REGISTERS_PER_THREAD or block_shared_bytes < 0:
        raise ValueError(f"{block_threads} threads, {thread_registers} registers, {block_shared_bytes} bytes")
    processor = MULTIPROCESSORS[capability]
    warps = _round_up(block_threads, _WARP_THREADS) // _WARP_THREADS
    limits = {
        Limit.WARPS: processor.warps // warps if block_threads <= _MOST_THREADS_PER_BLOCK else 0,
        Limit.BLOCKS: processor.blocks,
        Limit.REGISTERS: _register_limit(warps, thread_registers),
        Limit.SHARED_MEMORY: _shared_limit(processor, block_shared_bytes),
    }
    blocks = min(limits.values())
    return Occupancy(blocks, blocks * warps, blocks * warps / processor.warps, limits)


def _register_limit(warps: int, thread_registers: int) -> int:
    """Blocks that the registers allow: each partition holds whole warps, each warp gets whole portions."""
    per_warp = _round_up(thread_registers * _WARP_THREADS, _REGISTER_UNIT)
    return _REGISTERS // _PARTITIONS // per_warp * _PARTITIONS // warps if per_warp else _NO_LIMIT


def _shared_limit(processor: Multiprocessor, block_shared_bytes: int) -> int:
    """Blocks that shared memory can hold."""
    if block_shared_bytes > processor.shared_block_bytes:
        return 0
    given = _round_up(block_shared_bytes + processor.shared_reserve_bytes, processor.shared_unit_bytes)
    return processor.shared_bytes // given if given else _NO_LIMIT


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def explain_occupancy(found: Occupancy) -> str:
    """Occupancy and its limit in one sentence.

    >>> explain_occupancy(occupancy((9, 0), 256, 64, 0))
    'An SM holds 4 blocks, 32 warps, 50% of what it could; more is kept out by registers.'
    """
    what = " and ".join(found.binding)
    if found.blocks == 0:
        return f"The kernel cannot be launched: one block needs more than an SM's {what}."
    blocks = f"{found.blocks} block{'s' if found.blocks > 1 else ''}"
    holds = f"An SM holds {blocks}, {found.warps} warps, {found.ratio:.0%} of what it could"
    return f"{holds}." if found.ratio == 1 else f"{holds}; more is kept out by {what}."
