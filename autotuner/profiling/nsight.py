"""NVIDIA's own profilers around the same process: nsys for the timeline, ncu for hardware counters of top kernels."""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from autotuner.analyze.nsight import METRICS, Counters, NsysTables, base_name, complaint, parse_ncu, parse_nsys
from autotuner.errors import MachineError
from autotuner.profiling import process
from autotuner.profiling.request import Request

REPORTS = "cuda_gpu_kern_sum,cuda_api_sum,cuda_gpu_mem_time_sum"
MOST_LAUNCHES = 20  # ncu runs each of them several times, with the memory saved and restored around it
MOST_KERNELS = 5
_NSYS_REPORT = "nsys"
_COUNTERS_HINT = "the driver lets only root read counters: NVreg_RestrictProfilingToAdminUsers=0 lets everybody"


def child_command(request: Path) -> list[str]:
    """The profiled process."""
    return [sys.executable, "-m", "autotuner.profiling.child", str(request)]


def nsys_command(folder: Path, request: Path, program: str = "nsys") -> list[str]:
    """Records the range of the steps; `stop` and not the default, which would kill the process at the range's end."""
    return [
        program, "profile", "-t", "cuda,nvtx,osrt", "--capture-range=cudaProfilerApi", "--capture-range-end=stop",
        "--force-overwrite=true", "-o", str(folder / _NSYS_REPORT), *child_command(request),
    ]  # fmt: skip


def nsys_stats_command(folder: Path, program: str = "nsys") -> list[str]:
    """Prints the three reports as CSV."""
    return [
        program, "stats", "--report", REPORTS, "--format", "csv", "--output", "-", "--force-export=true",
        str(folder / f"{_NSYS_REPORT}.nsys-rep"),
    ]  # fmt: skip


def ncu_command(folder: Path, request: Path, kernels: Sequence[str], program: str = "ncu") -> list[str]:
    """Reads counters of at most 20 launches of the named kernels; of all when none is named."""
    names = "|".join(dict.fromkeys(re.escape(base_name(kernel)) for kernel in kernels[:MOST_KERNELS]))
    chosen = ["--kernel-name-base", "function", "--kernel-name", f"regex:^({names})$"] if names else []
    return [
        program, "--profile-from-start", "off", "--target-processes", "all", *chosen, "--launch-count",
        str(MOST_LAUNCHES), "--csv", "--page", "raw", "--metrics", ",".join(METRICS), "--log-file",
        str(folder / "ncu.csv"), *child_command(request),
    ]  # fmt: skip


def commands(folder: Path, request: Path, kernels: Sequence[str] = ()) -> dict[str, str]:
    """Both as a person types them."""
    return {
        "nsys": shlex.join(nsys_command(folder, request)) + " && " + shlex.join(nsys_stats_command(folder)),
        "ncu": shlex.join(ncu_command(folder, request, kernels)),
    }


def run_nsys(request: Request, limit_s: float) -> tuple[NsysTables | None, str]:
    """The tables of nsys, or None and why not, for a person."""
    program, folder = shutil.which("nsys"), Path(request.folder)
    if program is None:
        return None, "nsys is not on the path"
    log, table = folder / "nsys.log", folder / "nsys.csv"
    try:
        code = process.run("nsys", nsys_command(folder, request.save(), program), log, limit_s)
        if code:
            return None, f"nsys: {_reason(log, code)}"
        code = process.run("nsys stats", nsys_stats_command(folder, program), folder / "nsys-stats.log", limit_s, table)
    except MachineError as error:
        return None, str(error)
    tables = parse_nsys(table.read_text(errors="replace"))
    if tables.kernels or tables.calls:
        return tables, ""
    return None, f"nsys stats: {_reason(folder / 'nsys-stats.log', code)}"


def run_ncu(request: Request, kernels: Sequence[str], limit_s: float) -> tuple[tuple[Counters, ...], str]:
    """The counters of ncu, or none and why not, for a person."""
    program, folder = shutil.which("ncu"), Path(request.folder)
    if program is None:
        return (), "ncu is not on the path"
    log, table = folder / "ncu.log", folder / "ncu.csv"
    table.unlink(missing_ok=True)
    try:
        code = process.run("ncu", ncu_command(folder, request.save(), kernels, program), log, limit_s)
    except MachineError as error:
        return (), str(error)
    text = table.read_text(errors="replace") if table.is_file() else ""
    if found := parse_ncu(text):
        return found, ""
    if "ERR_NVGPUCTRPERM" in text + log.read_text(errors="replace"):
        return (), f"ncu: {_COUNTERS_HINT}"
    return (), f"ncu: {complaint(text) or _reason(log, code)}"


def _reason(log: Path, code: int) -> str:
    """Its complaint, or its last words, in one line."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (complaint(text) or (lines[-1] if lines else f"exit code {code}, and no table"))[:200]
