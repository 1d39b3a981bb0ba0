"""optuna-dashboard on a copy of one study, behind our own guard: by itself it asks nobody for anything.

Its pages read by GET; what they would change by other methods is refused before it gets there.
"""

import asyncio
import io
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from autotuner.dashboard.guard import guard
from autotuner.dashboard.loopback import listen
from autotuner.errors import MachineError
from autotuner.exporting import draw
from autotuner.records import open_record

# Its pages are one script of its own; it writes styles as it goes, and draws into images.
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self' blob:; "


def serve_optuna(db: str | None, name: str, port: int, token: str, ready: Callable[[str], None]) -> None:
    """Serve a copy of a study until somebody interrupts; see `server.serve`.

    Raises:
        MachineError: optuna-dashboard is not installed, or the port is taken.
        UsageError: No such record or study.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise MachineError("optuna-dashboard is not installed", "pip install optuna-dashboard") from None
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "optuna.journal"
        with open_record(db) as record:
            _, bundle = draw(record.study(name), "optuna", force=True)
        journal.write_bytes(bundle.files["optuna.journal"])
        app = web.Application(middlewares=[guard(token, _POLICY)])
        app.router.add_get("/{path:.*}", partial(_answer, wsgi(str(journal))))
        asyncio.run(listen(app, port, lambda address: ready(f"{address}?token={token}")))


async def _answer(application: Callable[..., Iterable[bytes]], request: web.Request) -> web.Response:
    """What a WSGI application (PEP 3333) answers; on a thread, since it may read a file."""
    return await asyncio.to_thread(_ask, application, request)


def _ask(application: Callable[..., Iterable[bytes]], request: web.Request) -> web.Response:
    answer: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], failure: object = None) -> None:
        answer.update(status=int(status.split()[0]), headers=headers)

    environ = {
        "REQUEST_METHOD": request.method, "SCRIPT_NAME": "", "QUERY_STRING": request.query_string,
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "SERVER_NAME": "127.0.0.1", "SERVER_PORT": str(request.url.port), "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
        "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
        "HTTP_ACCEPT_ENCODING": request.headers.get("Accept-Encoding", ""),  # it asks, and would fail without
    }  # fmt: skip
    body = b"".join(application(environ, start_response))
    kept = [(key, value) for key, value in answer["headers"] if key.lower() not in ("content-length", "connection")]
    return web.Response(status=answer["status"], headers=kept, body=body)
