"""`autotune dashboard`."""

import secrets
import shutil
import subprocess
import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.exits import say
from autotuner.cli.interruption import interruptible
from autotuner.cli.options import Db
from autotuner.errors import MachineError


def dashboard(
    port: Annotated[int, typer.Option(min=0, max=65535, help="On loopback; 0 for any free one.")] = 0,
    show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    optuna: Annotated[
        str | None, typer.Option("--optuna", metavar="NAME", help="A copy of this study in optuna-dashboard instead.",
                                 show_default=False),
    ] = None,
    db: Db = None,
) -> None:  # fmt: skip
    """Serve the live record to a browser on this machine, read-only.

    The address that it prints holds a token; nobody else may look. From elsewhere: ssh -L 8000:127.0.0.1:PORT.
    """

    def ready(url: str) -> None:
        print(url, flush=True)
        if show:
            webbrowser.open(url)

    try:
        with interruptible():
            if optuna is not None:
                _optuna(optuna, port, db, show)
                return
            from autotuner.dashboard.server import serve

            serve(db, port, secrets.token_urlsafe(24), ready)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _optuna(name: str, port: int, db: str | None, show: bool) -> None:
    """optuna-dashboard on a copy: whatever is done there, the record stays as it is."""
    from autotuner.dashboard.server import HOST, optuna_copy

    program = shutil.which("optuna-dashboard")
    if program is None:
        raise MachineError("optuna-dashboard is not installed", "pip install optuna-dashboard")
    with tempfile.TemporaryDirectory() as folder:
        path = optuna_copy(db, name, Path(folder))
        argv = [program, str(path), "--host", HOST, "--port", str(port or 8080)]
        url = f"http://{HOST}:{port or 8080}/"
        print(url, flush=True)
        if show:
            webbrowser.open(url)
        with subprocess.Popen(argv) as process:
            try:
                code = process.wait()
            finally:
                process.terminate()
        if code:
            say(f"optuna-dashboard ended with {code}")
            raise typer.Exit(3)
