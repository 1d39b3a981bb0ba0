"""The only door to the database: opening, transactions, and foreign errors turned into a person's words."""

import math
import re
import sqlite3
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import ConnectionPoolEntry

from autotuner.errors import MachineError, UsageError
from autotuner.store import schema

QUICK_CHECK_MAX_BYTES = 50_000_000
_OTHER_FILE = "name another file with --db, or move this one away"
_URL_FORMS = "use a path, sqlite:///PATH or postgresql://…"

# https://www.sqlite.org/rescode.html: the low byte is the class of the error.
_SQLITE_ERRORS = {
    sqlite3.SQLITE_BUSY: ("is locked: another process is writing to it", "wait until it is done, then try again"),
    sqlite3.SQLITE_LOCKED: ("is locked: another process is writing to it", "wait until it is done, then try again"),
    sqlite3.SQLITE_PERM: ("may not be accessed", "check who owns the file and its folder"),
    sqlite3.SQLITE_READONLY: ("cannot be written: it is read-only", "check the permissions of the file and folder"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "is the disk full, the quota used up, or the drive gone?"),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "free some space; everything acknowledged is kept"),
    sqlite3.SQLITE_TOOBIG: ("refuses a row that is too large", "record fewer raw samples"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "is its folder there, writable, and not a file?"),
}


@dataclass(frozen=True, slots=True)
class Database:
    """An opened record.

    Attributes:
        engine: SQLAlchemy's.
        url: Where it is; without the password.
        path: The SQLite file; None for other databases.
    """

    engine: Engine
    url: URL
    path: Path | None

    @property
    def location(self) -> str:
        """The path or URL for a message."""
        return str(self.path) if self.path else self.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database, whatever others append meanwhile."""
        with self.engine.connect() as connection:
            yield connection

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that commits at its end; it waits for other writers at its start, never in the middle."""
        return self.engine.execution_options(immediate=True).begin()

    def damage(self, what: str) -> MachineError:
        """The error for a database whose content cannot be what was written; names the newest backup."""
        copies = sorted(self.path.parent.glob(f"{self.path.name}.*.backup"), key=_age) if self.path else []
        advice = f"restore the backup {copies[-1]}" if copies else "restore a backup of it"
        salvage = f", or salvage what is left: sqlite3 {self.path} .recover" if self.path else ""
        return MachineError(f"{self.location} is damaged: {what}", advice + salvage)

    @contextmanager
    def decoding(self, what: str) -> Iterator[None]:
        """Around reading back what was written: whatever is wrong with it happened to the file."""
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, struct.error, zlib.error) as error:
            raise self.damage(f"{what} cannot be read ({type(error).__name__}: {error})") from error


def _age(path: Path) -> float:
    return path.stat().st_mtime


@contextmanager
def open_database(url: str, busy_timeout_s: float, *, create: bool) -> Iterator[Database]:
    """Open, migrate or, if allowed, create the database at `url`.

    Raises:
        UsageError: The URL makes no sense, the file is not there, or the database belongs to another program.
        MachineError: It is locked, damaged, read-only, full, unreachable or from a newer version.
    """
    parsed = _parse(url)
    database = Database(_create_engine(parsed, busy_timeout_s), parsed, _path(parsed))
    event.listen(database.engine, "handle_error", lambda context: _translate(database, context))
    if database.path is not None:
        _Transactions(database.engine)
        event.listen(database.engine, "connect", _set_pragmas)
        if not create and not database.path.exists():
            raise UsageError(f"there is no record at {database.path}", "name it with --db, or start a study")
        _make_folder(database.path.parent)
    try:
        _prepare(database)
        yield database
    finally:
        database.engine.dispose()


def _parse(url: str) -> URL:
    if "://" not in url:
        return URL.create("sqlite", database=str(Path(url).expanduser()))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        problem = "is not the URL of a database" + (f": {error}" if isinstance(error, ValueError) else "")
        raise UsageError(f"{re.sub('//.*@', '//…@', url)!r} {problem}", _URL_FORMS) from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise UsageError(f"{parsed.drivername} is not supported", _URL_FORMS)
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise UsageError(f"{url!r} names no file", "a record outlives the process: use a path or sqlite:///PATH")
    if parsed.get_backend_name() == "sqlite" and parsed.query.keys() - {"timeout"}:
        raise UsageError(f"{url!r} has options that are not known", "of SQLite's only ?timeout=SECONDS can be given")
    return parsed


def _path(url: URL) -> Path | None:
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _create_engine(url: URL, busy_timeout_s: float) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    arguments: dict[str, Any] = {"timeout": _timeout_s(url, busy_timeout_s)} if sqlite else {}
    try:
        return create_engine(url, connect_args=arguments)
    except ModuleNotFoundError as error:
        raise MachineError(f"{url.drivername} needs the package {error.name}", f"pip install {error.name}") from None
    except ArgumentError as error:
        raise UsageError(f"{url.render_as_string(hide_password=True)}: {error}", _URL_FORMS) from None


def _timeout_s(url: URL, otherwise_s: float) -> float:
    """How long to wait for another writer: what the URL says (`?timeout=5`), or `otherwise_s`."""
    written = url.query.get("timeout", otherwise_s)
    try:
        timeout_s = float(written)  # type: ignore[arg-type]  # a tuple when it is given twice
    except (TypeError, ValueError):
        timeout_s = math.nan
    if not 0 <= timeout_s < math.inf:
        raise UsageError(f"timeout={written} in the record's URL is no number of seconds", "write ?timeout=30")
    return timeout_s


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{folder} cannot be created: {error.strerror}", "name another place with --db") from error


def _set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # sqlite3 would begin transactions by itself, late and deferred:
    # https://docs.sqlalchemy.org/en/20/dialects/sqlite.html
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("foreign_keys = ON", "journal_mode = DELETE", "synchronous = FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class _Transactions:
    """Begins transactions of SQLite, on an engine.

    An interruption may come between the beginning of a transaction and the `with` that would end it; it then stays
    open for as long as anybody looks at the traceback, and what is written on the way out would wait for itself. So
    before a thread begins to write, whatever it has left open is rolled back: a thread never has two to finish.
    """

    def __init__(self, engine: Engine) -> None:
        self._by: dict[int, tuple[Any, int]] = {}  # connections of the driver by identity, and who began on them last
        self._lock = threading.Lock()
        event.listen(engine, "begin", self._begin)
        for ended in ("close", "close_detached"):
            event.listen(engine, ended, self._forget)

    def _begin(self, connection: Connection) -> None:
        immediate, mine = connection.get_execution_options().get("immediate", False), threading.get_ident()
        driver: Any = connection.connection.dbapi_connection
        with self._lock:  # what another thread is about to begin is its own by then
            self._by[id(driver)] = (driver, mine)
            left = [one for one, thread in self._by.values() if thread == mine and one is not driver]
            for one in left if immediate else ():
                if one.in_transaction:
                    one.rollback()
        # A deferred transaction that turns into a writer midway fails at once, whatever the busy timeout.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    def _forget(self, driver: DBAPIConnection, *_entry: ConnectionPoolEntry) -> None:
        self._by.pop(id(driver), None)


def _translate(database: Database, context: ExceptionContext) -> None:
    if not isinstance(context.sqlalchemy_exception, DBAPIError) or isinstance(
        context.sqlalchemy_exception, IntegrityError
    ):
        return
    original = context.original_exception
    assert original is not None
    if database.path is None:
        summary = next(iter(str(original).splitlines()), type(original).__name__)
        raise MachineError(f"{database.location}: {summary}", "is the server up, and the URL right?") from original
    code = getattr(original, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in _SQLITE_ERRORS:
        what, hint = _SQLITE_ERRORS[code]
        raise MachineError(f"{database.location} {what}", hint) from original
    raise database.damage(str(original)) from original


def _prepare(database: Database) -> None:
    try:
        with database.reading() as connection:
            _check_owner(database, connection)
            revision = _revision(connection)
            _check_pages(database, connection)
    except UnicodeDecodeError as error:  # sqlite3 quotes a damaged schema in its message, and then cannot read that
        raise database.damage(str(error)) from error
    if revision != schema.HEAD:
        _migrate(database)


def _check_pages(database: Database, connection: Connection) -> None:
    """Look for damage where that is quick; a large file shows its own when a damaged page is read."""
    if database.path is not None and database.path.stat().st_size <= QUICK_CHECK_MAX_BYTES:
        faults = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
        if faults != "ok":
            raise database.damage(" ".join(faults.split()))


def _check_owner(database: Database, connection: Connection) -> None:
    """Refuse a database of another program; an empty one may be taken."""
    tables = set(inspect(connection).get_table_names())
    if schema.VERSION_TABLE in tables:
        owned = database.path is None or _application_id(connection) == schema.APPLICATION_ID
    elif database.path is None:
        owned = tables.isdisjoint(schema.metadata.tables)
    else:
        owned = not tables and _application_id(connection) == 0
    if not owned:
        raise UsageError(f"{database.location} belongs to another program", _OTHER_FILE)


def _application_id(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA application_id").scalar_one())


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(schema.VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {schema.VERSION_TABLE}")).scalar()


def _migrate(database: Database) -> None:
    """Create the tables, or bring them up to date, in one transaction; an older file is copied first."""
    from autotuner.store import migrate  # alembic is slow to import, and seldom needed

    with database.writing() as connection:
        _check_owner(database, connection)  # again: another process may have been faster
        revision = _revision(connection)
        if revision is not None and not migrate.knows(revision):
            raise MachineError(
                f"{database.location} was written by a newer autotune (revision {revision})", "upgrade autotune"
            )
        if revision == schema.HEAD:
            return
        if database.path is not None:
            if revision is not None:
                _back_up(database.path, revision)
            connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        migrate.upgrade(connection)


def _back_up(path: Path, revision: str) -> None:
    """Copy the database beside itself; the caller's transaction keeps writers away and has written nothing yet."""
    copy = path.with_name(f"{path.name}.{revision}.backup")
    partial = copy.with_suffix(".partial")
    # Not a plain copy of the file: closing a second descriptor of it would drop this process's locks
    # (https://www.sqlite.org/howtocorrupt.html, 2.2). Nor from the caller's connection: SQLite cannot back up what is
    # in a write transaction, and Python would retry for ever.
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        partial.replace(copy)
    except (OSError, sqlite3.Error) as error:
        raise MachineError(f"no backup {copy} could be made: {error}", "free some space") from error
