"""The tools as processes: each in a session of its own, with one JSON line as its answer, and ended with its time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent.parent
PINS = {"loadtune": "0.3.0", "lightning": "2.6.6", "accelerate": "1.15.0", "pytorch-autotune": "2.0.0"}
_SHOW = "import importlib.metadata as m, sys; print(*(m.version(name) for name in sys.argv[1:]))"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tuner on the command line.

    Attributes:
        name: In the table.
        module: What is run.
        arguments: After the case's name.
        cannot: What it cannot express here.
        ours: Runs where this script does, not in the peers' environment.
    """

    name: str
    module: str
    arguments: Sequence[str] = ()
    cannot: str = ""
    ours: bool = False


OURS = Tool("autotune", "study", cannot="float16, reduce-overhead (not in the study file)", ours=True)
PEERS = (
    Tool("loadtune", "peers.loadtune_peer",
         cannot="batch size on a CPU, memory format; never more workers than cores"),
    Tool("lightning power", "peers.lightning_peer", ["power"], "all but the batch size; measures no speed"),
    Tool("lightning binsearch", "peers.lightning_peer", ["binsearch"], "all but the batch size; measures no speed"),
    Tool("accelerate", "peers.accelerate_peer", cannot="all but the batch size; measures no speed"),
    Tool("pytorch-autotune", "peers.pytorch_autotune_peer",
         cannot="loader, batch size, threads; bfloat16 on a CPU; sees one batch"),
)  # fmt: skip


def peers_python(folder: Path) -> Path:
    """The interpreter of the peers' environment, which is made when it is not there: our torch, their packages.

    Raises:
        subprocess.CalledProcessError: pip failed.
    """
    python = folder / "bin" / "python"
    torch = version("torch").partition("+")[0]
    wanted = [*PINS.values(), version("torch")]
    names = [*PINS, "torch"]
    if python.exists() and installed(python, names) == wanted:
        return python
    print(f"making the peers' environment in {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    exact = [f"{name}=={pin}" for name, pin in {**PINS, "torch": torch, "pillow": version("pillow")}.items()]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *exact, "numpy"], check=True)
    assert installed(python, names) == wanted, f"not the same torch as ours: {installed(python, names)} in {folder}"
    return python


def installed(python: Path, names: Sequence[str]) -> list[str]:
    """Versions; empty when one is missing."""
    shown = subprocess.run([python, "-c", _SHOW, *names], capture_output=True, text=True, check=False)
    return shown.stdout.split()


def tune(tool: Tool, case: str, python: Path, limit_s: float, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Let a tool tune a case; its answer, or {"failed": why}."""
    return ask(python, tool.module, [case, *tool.arguments, *extra], limit_s)


def replay(case: str, config: Mapping[str, Any], seconds: float, seed: int) -> dict[str, Any]:
    """Train one configuration in a fresh process; its answer, or {"failed": why}."""
    arguments = [case, json.dumps(config), "--seconds", str(seconds)]
    return ask(Path(sys.executable), "replay", arguments, 60 + 20 * seconds, {"TRAINING_SEED": str(seed)})


def ask(
    python: Path, module: str, arguments: Sequence[str], limit_s: float, extra: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a module of ours and read the last line it prints."""
    environment = {**os.environ, **(extra or {}), "PYTHONPATH": str(BENCHMARKS), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [python, "-m", f"training_cases.{module}", *arguments], env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"failed": f"still running after {limit_s:.0f} s"}
    finally:
        end(process)
    if process.returncode:
        return {"failed": (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:300]}
    return json.loads(said.strip().splitlines()[-1])


def end(process: "subprocess.Popen[str]") -> None:
    """Whatever is left of its session: a timed-out tool, and workers that outlived theirs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
