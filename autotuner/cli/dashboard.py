"""`autotune dashboard`."""

import secrets
import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from autotuner.cli.interruption import interruptible
from autotuner.cli.options import Db


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
            webbrowser.open(_signpost(url, Path(folder)).as_uri())

    try:
        with interruptible(), tempfile.TemporaryDirectory() as folder:
            token = secrets.token_urlsafe(24)
            if optuna is not None:
                from autotuner.dashboard.optuna_view import serve_optuna

                serve_optuna(db, optuna, port, token, ready)
            else:
                from autotuner.dashboard.server import serve

                serve(db, port, token, ready)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _signpost(url: str, folder: Path) -> Path:
    """A page that leads to `url`, for our eyes only: every process list would show a token among arguments."""
    page = folder / "open.html"
    page.touch(0o600)
    page.write_text(f'<meta http-equiv="refresh" content="0;url={url}"><a href="{url}">autotune dashboard</a>\n')
    return page
