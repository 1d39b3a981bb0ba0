"""The dashboard's server: a list of studies and services, a page for each, and word of changes."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from aiohttp import web

from autotuner.dashboard.guard import guard, own_pages
from autotuner.dashboard.loopback import listen
from autotuner.errors import AutotuneError, UsageError
from autotuner.records import changed_at, open_record
from autotuner.report.dashboard_page import SCRIPTS, list_page, service_page, study_body, study_page
from autotuner.report.service_page import service_body
from autotuner.store import Record, StudyRow
from autotuner.story import tell, under_way
from autotuner.telling import service_rows, tell_service

_LOOK_S = 1.0
_RECORD: web.AppKey[str | None] = web.AppKey("record")
_LOOK: "web.AppKey[_Look]" = web.AppKey("look")


def serve(db: str | None, port: int, token: str, ready: Callable[[str], None]) -> None:
    """Serve the record until somebody interrupts.

    Args:
        db: The record; opened anew for every answer, so that a study may be deleted or a file be moved meanwhile.
        port: On loopback; 0 for a free one.
        token: Whoever has it may look.
        ready: Is told the address.

    Raises:
        MachineError: The port is taken.
        UsageError: There is no record.
    """
    with open_record(db):
        pass
    asyncio.run(listen(make_app(db, token), port, lambda address: ready(f"{address}?token={token}")))


def make_app(db: str | None, token: str) -> web.Application:
    """The application, for a server or for tests."""
    app = web.Application(middlewares=[guard(token, own_pages(SCRIPTS))])
    app[_RECORD], app[_LOOK] = db, _Look(db)
    app.router.add_get("/", _list)
    app.router.add_get("/study/{name}", _study)
    app.router.add_get("/study/{name}/body", _body)
    app.router.add_get("/service/{name}", _service)
    app.router.add_get("/service/{name}/body", _service_body)
    app.router.add_get("/changes", _changes)
    return app


async def _list(request: web.Request) -> web.Response:
    def draw(record: Record) -> str:
        rows = record.overview()
        return list_page(rows, _under_way(record, rows), service_rows(record), _state(record))

    return await _html(request, draw)


async def _study(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return await _html(request, lambda record: study_page(tell(record, name), _state(record)))


async def _body(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return await _html(request, lambda record: study_body(tell(record, name)))


async def _service(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return await _html(request, lambda record: service_page(tell_service(record, name), _state(record)))


async def _service_body(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return await _html(request, lambda record: service_body(tell_service(record, name)))


async def _changes(request: web.Request) -> web.StreamResponse:
    """Says so, as a stream of events, whenever the record has something new."""
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    look, before = request.app[_LOOK], ""
    with suppress(ConnectionError):  # nobody listens any more
        while True:
            now = await asyncio.to_thread(look)
            await answer.write(f"data: {now}\n\n".encode() if now != before else b": still here\n\n")
            before = now
            await asyncio.sleep(_LOOK_S)
    return answer


class _Look:
    """The state of the record, for all who follow it: read again only when its file has changed."""

    def __init__(self, db: str | None) -> None:
        self._db, self._lock = db, threading.Lock()
        self._stamp: object = None
        self._state = ""

    def __call__(self) -> str:
        with self._lock:
            stamp = changed_at(self._db)
            if stamp is None or stamp != self._stamp:
                try:
                    with open_record(self._db) as record:
                        self._state = _state(record)
                except AutotuneError as error:
                    self._state = json.dumps(error.message)
                self._stamp = stamp
            return self._state


@contextmanager
def _answering(request: web.Request) -> Iterator[Record]:
    """The record; what is wrong with it is an answer too."""
    try:
        with open_record(request.app[_RECORD]) as record:
            yield record
    except UsageError as error:
        raise web.HTTPNotFound(text=f"{error.message}\n") from None
    except AutotuneError as error:
        raise web.HTTPServiceUnavailable(text=f"{error.message}\n") from None


async def _html(request: web.Request, draw: Callable[[Record], str]) -> web.Response:
    """A page, drawn on a thread: another process may lock the record, and a large study takes its time."""

    def answer() -> str:
        with _answering(request) as record:
            return draw(record)

    return web.Response(text=await asyncio.to_thread(answer), content_type="text/html", charset="utf-8")


def _state(record: Record) -> str:
    """Changes whenever a study gets a trial, a proposal or a verdict, and a service an entry in its journal."""
    rows = record.overview()
    seen = [(row.name, row.trials, row.state, row.decision, row.gain_ratio) for row in rows]
    kept = {name: [entry.number for entry in record.journal(name).entries(last=1)] for name in record.services()}
    return json.dumps([seen, _under_way(record, rows), kept], default=str)


def _under_way(record: Record, rows: Sequence[StudyRow]) -> dict[str, str]:
    """`{study: what it was last seen at}` of those that are not finished."""
    unfinished = (row for row in rows if row.state == "unfinished")
    seen = {row.name: under_way(record.study(row.name), row.trials) for row in unfinished}
    return {name: text for name, text in seen.items() if text}
