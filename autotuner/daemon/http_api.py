"""The daemon over HTTP: what it is at, and what a person says to it, for programs of this machine that hold a token.

It answers on a thread of the daemon's process, from connections of its own to the record; what goes wrong there is an
answer, and never the daemon's end. Nothing is done here: what is said goes into the journal, as from the command line.
"""

import asyncio
import json
import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from autotuner.daemon.pulse import Pulse
from autotuner.daemon.words import SAID, doubts
from autotuner.dashboard.loopback import is_token, listen, strangeness
from autotuner.errors import AutotuneError, MachineError, UsageError
from autotuner.records import open_record
from autotuner.report.json_lines import dump
from autotuner.store import Record
from autotuner.telling import entries_of, facts_of, known, rows_of
from autotuner.types import Phase

TOKEN_FILE = "http.token"  # in the service's folder of the record
_LEAST_TOKEN = 16  # characters
_MOST_BODY_BYTES = 4096
_MOST_NAME = 64  # characters of who says something
_MOST_ENTRIES = 1000
_HEALTH_LIMIT_S = 1.0  # a probe is answered whatever the record does
_END_S = 3.0
_KNOWN = f"GET /status, /history, /healthz; POST /{', /'.join(SAID)}"


class Api:
    """The answers.

    Args:
        record: For this alone.
        service: Whose.
        pulse: Of its daemon.
    """

    def __init__(self, record: Record, service: str, pulse: Pulse) -> None:
        self._record, self._service, self._pulse = record, service, pulse
        self._phase = "starting"  # as it was last seen

    def application(self, token: str) -> web.Application:
        """For a server."""
        app = web.Application(middlewares=[_guard(token)], client_max_size=_MOST_BODY_BYTES)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/status", self._status)
        app.router.add_get("/history", self._history)
        for word in SAID:
            app.router.add_post(f"/{word}", self._said)
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        with suppress(TimeoutError, MachineError):
            self._phase = await asyncio.wait_for(asyncio.to_thread(self._look), _HEALTH_LIMIT_S)
        pulse = self._pulse
        ill = pulse.fails or (pulse.hangs and self._phase != Phase.TUNING)
        said = {"phase": self._phase, "last_turn_age_s": round(pulse.age_s, 3)}
        return _json(503 if ill else 200, said | ({"failing": pulse.error} if pulse.error else {}))

    def _look(self) -> str:
        state = self._record.journal(self._service).state()
        return state.phase.value if state else "starting"

    async def _status(self, _: web.Request) -> web.Response:
        with _unmet_is_not_yet():
            return _json(200, await asyncio.to_thread(facts_of, self._record, self._service))

    async def _history(self, request: web.Request) -> web.Response:
        last = request.query.get("last", "20")
        if request.query.keys() - {"last"} or not (last.isascii() and last.isdigit()) or len(last) > 4:
            raise UsageError(f"{request.query_string!r} is not understood", f"last=1 to last={_MOST_ENTRIES}")
        if not 1 <= int(last) <= _MOST_ENTRIES:
            raise UsageError(f"{last} entries cannot be asked for", f"last=1 to last={_MOST_ENTRIES}")
        with _unmet_is_not_yet():
            entries = await asyncio.to_thread(entries_of, self._record, self._service, int(last))
        return _json(200, rows_of(entries))

    async def _said(self, request: web.Request) -> web.Response:
        word, by = request.path.removeprefix("/"), _name_in(await request.read())
        with _unmet_is_not_yet():
            doubt = await asyncio.to_thread(self._tell, word, by)
        return _json(200, {"service": self._service, "said": word, **({"but": doubt} if doubt else {})})

    def _tell(self, word: str, by: str) -> str:
        """Why nothing will come of it as things are; empty when something will."""
        journal = known(self._record, self._service)
        doubt = doubts(journal, word)
        journal.tell(word, {"by": by})
        return doubt


def _name_in(body: bytes) -> str:
    """Who says it.

    Raises:
        UsageError: The body is not what it may be.
    """
    hint = '{"by": "name"}, or nothing'
    try:
        given = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise UsageError("the body is no JSON", hint) from None
    if not isinstance(given, dict) or given.keys() - {"by"}:
        raise UsageError("the body may only say by whom", hint)
    by = given.get("by", "somebody over HTTP")
    if not isinstance(by, str) or not 0 < len(by) <= _MOST_NAME or not by.isprintable():
        raise UsageError(f"by must be a name of up to {_MOST_NAME} characters, on one line", hint)
    return by


@contextmanager
def _unmet_is_not_yet() -> Iterator[None]:
    """That the record does not know the service is nobody's mistake here."""
    try:
        yield
    except UsageError as error:
        raise MachineError(error.message, "the daemon is starting: ask again") from None


def _guard(token: str) -> Middleware:
    """Lets through what is asked rightly; whatever is wrong is answered as JSON."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if strange := strangeness(request):
            return _error(403, strange, "")
        if request.path != "/healthz" and not is_token(_bearer(request), token):
            hint = f"send Authorization: Bearer TOKEN; it is in the file {TOKEN_FILE} of the service's folder"
            return _error(401, "the token is missing or wrong", hint, {"WWW-Authenticate": "Bearer"})
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allowed = error.headers["Allow"]
            return _error(405, f"{request.method} is not for {request.path}", f"use {allowed}", {"Allow": allowed})
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "the body is too large", f"at most {_MOST_BODY_BYTES} bytes")
        except web.HTTPException as error:
            missing = error.status == 404
            text = f"there is no {request.path} here" if missing else error.reason
            return _error(error.status, text, _KNOWN if missing else "")
        except AutotuneError as error:
            return _error(400 if isinstance(error, UsageError) else 503, error.message, error.hint)

    return check


def _bearer(request: web.Request) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _error(status: int, message: str, hint: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json(status, {"error": message, "hint": hint}, headers)


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> web.Response:
    marks = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", **(headers or {})}
    return web.Response(status=status, text=dump(body) + "\n", content_type="application/json", headers=marks)


def token_at(path: Path) -> str:
    """The token in a file that only its owner can read; made where there is none.

    Raises:
        MachineError: It cannot be made or read, holds none, or others can read it.
    """
    new_one = f"delete {path}: a new one is made"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{TOKEN_FILE}.") as file:  # mode 0600
                file.write(f"{secrets.token_urlsafe(32)}\n")
                file.flush()
                with suppress(FileExistsError):  # another daemon was faster
                    os.link(file.name, path)
        if path.stat().st_mode & 0o077:
            raise MachineError(f"others than its owner may read {path}", new_one)
        token = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise MachineError(f"{path} cannot be made or read: {error.strerror}", "check its folder") from error
    if len(token) < _LEAST_TOKEN:
        raise MachineError(f"{path} holds no token", new_one)
    return token


@contextmanager
def serving(service: str, db: str | None, port: int, pulse: Pulse) -> Iterator[tuple[str, Path]]:
    """Answer on a thread while the body runs; gives the address and the token's file.

    Args:
        service: Its name in the record.
        db: The record, as the user named it.
        port: On loopback; 0 for a free one.
        pulse: Of the daemon.

    Raises:
        MachineError: The port is taken, or there can be no token.
    """
    with open_record(db) as record:
        path = record.service_folder(service) / TOKEN_FILE
        app = Api(record, service, pulse).application(token_at(path))
        ready: Future[str] = Future()
        loop = asyncio.new_event_loop()
        task = loop.create_task(listen(app, port, ready.set_result))
        thread = threading.Thread(target=_run, args=(loop, task, ready), name="http", daemon=True)
        thread.start()
        address = ready.result()
        try:
            yield address, path
        finally:
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(task.cancel)
            thread.join(_END_S)


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", ready: "Future[str]") -> None:
    try:
        loop.run_until_complete(task)
    except asyncio.CancelledError:
        pass
    except AutotuneError as error:
        ready.set_exception(error)
    finally:
        loop.close()
        if not ready.done():
            ready.set_exception(MachineError("the HTTP interface did not start", "leave --port out"))
