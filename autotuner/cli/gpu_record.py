"""`autotune gpu record`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from autotuner.cli.interruption import interruptible
from autotuner.cli.options import Json
from autotuner.errors import MachineError, UsageError


def record(
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="How long.", min=0.1)] = 60.0,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to; JSON lines.")] = Path("gpu-trace.jsonl"),
    load: Annotated[str, typer.Option("--load", metavar="NAME", help="What runs meanwhile; noted in the trace.")] = "",
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="cuda, or cuda:N.")] = "cuda",
    as_json: Json = False,
) -> None:
    """Record what NVML answers of a GPU, ten times a second, so that tests can replay it."""
    from autotuner.monitor import gpu

    found = gpu.visible_gpu(device)
    if found is None:
        raise _no_gpu(device)
    written = _write(out, gpu.record(found, seconds, load=load))
    if as_json:
        print(json.dumps({"file": str(out), "gpu": found.name, "driver": found.driver, "samples": written}))
    else:
        print(f"{written} samples of {found.name} in {out}")


def _no_gpu(device: str) -> MachineError:
    from autotuner.monitor import gpu

    why = gpu.state(device)
    return MachineError(f"there is nothing to record: {why.sentence}", why.mend or "run this on a machine with one")


def _write(path: Path, lines: Iterator[dict[str, Any]]) -> int:
    """Write line by line, so that an interruption leaves a shorter trace; the number of samples.

    Raises:
        UsageError: The file is there already.
        MachineError: It cannot be written.
    """
    written = 0
    header = next(lines)  # before there is a file: a GPU that does not answer leaves none
    try:
        with interruptible(), path.open("x") as file:
            file.write(json.dumps(header) + "\n")
            for written, line in enumerate(lines, 1):  # noqa: B007 - the number of the last one
                file.write(json.dumps(line) + "\n")
                file.flush()
    except FileExistsError:
        raise UsageError(f"{path} is there already", "move it away, or name another with --out") from None
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror}", "name another file with --out") from error
    except KeyboardInterrupt:
        pass  # what was recorded is a trace
    return written
