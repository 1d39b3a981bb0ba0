"""The real NVML binding over a small C library in place of the driver's; `nvml_replay.c` says what it can play.

No trace of a real device was at hand when it was written: its values are synthetic, and its GPUs say "(replay)".
"""

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("nvml_replay.c")


def compile_library(directory: Path) -> Path:
    """Compile `libnvidia-ml.so.1` into a directory, for the LD_LIBRARY_PATH of a process that shall see its GPUs.

    Raises:
        subprocess.CalledProcessError: gcc refuses it.
        FileNotFoundError: There is no gcc.
    """
    library = directory / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{library.name}"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(_SOURCE)], check=True, timeout=120)
    return library
