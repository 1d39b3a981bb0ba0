"""Occupancy against NVIDIA's own `cuda_occupancy.h`, compiled here, on thousands of random launches."""

import os
import random
import shutil
import subprocess
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from autotuner.analyze.occupancy import MULTIPROCESSORS, occupancy

LAUNCHES = 2000  # of each compute capability
Launch = tuple[int, int, int, int, int]

# What `cudaGetDeviceProperties` says of each capability comes from our table, the rules from the header.
PROGRAM = r"""
#include <cstdio>
#include <cuda_occupancy.h>

int main() {
    int major, minor, threads, registers, warps, reserve;
    size_t shared, total, optin;
    while (scanf("%d %d %d %d %zu %d %zu %zu %d", &major, &minor, &threads, &registers, &shared, &warps, &total,
                 &optin, &reserve) == 9) {
        cudaOccDeviceProp device;
        device.computeMajor = major;
        device.computeMinor = minor;
        device.maxThreadsPerBlock = 1024;
        device.maxThreadsPerMultiprocessor = 32 * warps;
        device.regsPerBlock = device.regsPerMultiprocessor = 65536;
        device.warpSize = 32;
        device.sharedMemPerBlock = 49152;
        device.sharedMemPerMultiprocessor = total;
        device.numSms = 1;
        device.sharedMemPerBlockOptin = optin;
        device.reservedSharedMemPerBlock = reserve;
        cudaOccFuncAttributes kernel;
        kernel.maxThreadsPerBlock = 1024;
        kernel.numRegs = registers;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
        kernel.maxDynamicSharedSizeBytes = shared;
        kernel.numBlockBarriers = 1;
        cudaOccDeviceState state;
        cudaOccResult result;
        int failed = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared);
        printf("%d %d\n", failed ? -1 : result.activeBlocksPerMultiprocessor, failed ? 0 : result.limitingFactors);
    }
}
"""
BITS = {"warps": 1, "registers": 2, "shared memory": 4, "blocks": 8}
ALL_BITS = sum(BITS.values())  # the header also names barriers, of which there is one for every block: the same limit


def include_folder() -> Path | None:
    """Where the header is: beside `nvcc`, in CUDA_HOME, or at the usual place."""
    nvcc = shutil.which("nvcc")
    roots = [os.environ.get("CUDA_HOME"), Path(nvcc).resolve().parent.parent if nvcc else None, "/usr/local/cuda"]
    folders = [Path(root) / "include" for root in roots if root]
    return next((folder for folder in folders if (folder / "cuda_occupancy.h").exists()), None)


def random_launches(count: int, seed: int = 0) -> list[Launch]:
    """(major, minor, threads, registers, shared bytes); the edges of every rule are drawn as often as the middle."""
    draw = random.Random(seed)
    edges_threads = (1, 31, 32, 33, 64, 96, 128, 256, 320, 512, 768, 1023, 1024, 1025)
    edges_registers = (0, 1, 8, 31, 32, 33, 40, 64, 72, 128, 168, 200, 254, 255)
    launches = []
    for (major, minor), _ in product(MULTIPROCESSORS, range(count)):
        most = MULTIPROCESSORS[major, minor].shared_block_bytes
        edges_shared = (0, 1, 128, 48 * 1024, 48 * 1024 + 1, most - 1, most, most + 1)
        launches.append((
            major, minor,
            draw.choice((draw.choice(edges_threads), draw.randint(1, 1024))),
            draw.choice((draw.choice(edges_registers), draw.randint(0, 255))),
            draw.choice((draw.choice(edges_shared), draw.randint(0, most + 256), draw.randint(0, 8192))),
        ))  # fmt: skip
    return launches


def reference(launches: list[Launch], include: Path) -> list[tuple[int, int]]:
    """(blocks, bits of what limits) by the header, for each launch.

    Raises:
        subprocess.CalledProcessError: No C++ compiler, or it does not like the header.
    """
    lines = []
    for major, minor, *rest in launches:
        sm = MULTIPROCESSORS[major, minor]
        limits = (sm.warps, sm.shared_bytes, sm.shared_block_bytes, sm.shared_reserve_bytes)
        lines.append(" ".join(map(str, (major, minor, *rest, *limits))))
    with TemporaryDirectory() as folder:
        source, program = Path(folder) / "reference.cpp", Path(folder) / "reference"
        source.write_text(PROGRAM)
        subprocess.run(["g++", "-O1", "-w", f"-I{include}", "-o", program, source], check=True)
        done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    blocks_and_bits = [line.split() for line in done.stdout.splitlines()]
    return [(int(blocks), int(bits) & ALL_BITS) for blocks, bits in blocks_and_bits]


def differences(launches: list[Launch], include: Path) -> list[str]:
    """Launches where blocks or binding limits differ; a launch that is impossible may be so for several reasons."""
    found = []
    for launch, (blocks, bits) in zip(launches, reference(launches, include), strict=True):
        major, minor, *rest = launch
        ours = occupancy((major, minor), *rest)
        our_bits = sum(BITS[limit] for limit in ours.binding)
        if ours.blocks != blocks or our_bits != bits:
            found.append(f"{launch}: {ours.blocks} blocks, limits {our_bits:b}; header {blocks}, {bits:b}")
    return found
