"""The real NVML binding over a small C library in place of the driver's; `nvml_replay.c` says what it can play.

It plays traces of `autotune gpu record`, or synthetic values of its own. Its GPUs say "(replay)", and exporters refuse
what was measured on them.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

_SOURCE = Path(__file__).with_name("nvml_replay.c")
_HEADER_WORDS = ("name", "driver", "nvml")


def compile_library(directory: Path, without: Sequence[str] = ()) -> Path:
    """Compile `libnvidia-ml.so.1` into a directory, for the LD_LIBRARY_PATH of a process that shall see its GPUs.

    Args:
        directory: One that exists.
        without: Functions that it shall not have, as that of an old driver.

    Raises:
        subprocess.CalledProcessError: gcc refuses it.
        FileNotFoundError: There is no gcc.
    """
    library = directory / "libnvidia-ml.so.1"
    exports = directory / "exports.map"
    hidden = " local: " + "".join(f"{name}; " for name in without) if without else ""
    exports.write_text(f"{{ global: *;{hidden} }};\n")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{library.name}"]
    flags.append(f"-Wl,--version-script={exports}")
    subprocess.run(["gcc", *flags, "-o", str(library), str(_SOURCE)], check=True, timeout=120)
    return library


def compact(trace: Path, target: Path) -> Path:
    """Write a trace of `autotune gpu record` as the library reads it, for NVML_REPLAY_TRACE.

    Raises:
        ValueError: It is no such trace.
    """
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    if not lines or not str(lines[0].get("format", "")).startswith("autotune-nvml-trace/"):
        raise ValueError(f"{trace} is no trace of `autotune gpu record`")
    header, *moments = lines
    rows = [f"{word} {header[word]}" for word in _HEADER_WORDS]
    rows += _answers(header)
    for moment in moments:
        rows += [f"@ {moment['at_s']!r}", *_answers(moment)]
    target.write_text("\n".join(rows) + "\n")
    return target


def _answers(line: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    return (f"{question} {' '.join(map(repr, answer))}" for question, answer in line["answers"].items())
