"""What the daemon did and decided for a service, and who leads it.

One leader at a time: a lease that has to be renewed, with a number that grows with every new holder. Every entry is
written in the transaction that checks the number, so that a leader that slept through its lease writes nothing more.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from autotuner.errors import MachineError
from autotuner.store import codec, schema
from autotuner.store.database import Database
from autotuner.store.study import provenance
from autotuner.types import Deployment, Phase, ServiceState

STATE = "state"


class LeaseLostError(MachineError):
    """Another daemon leads the service now."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    Attributes:
        number: Grows with time.
        at: UTC.
        token: Of the lease under which it was written; 0 for what a person said.
        kind: "state" for a new state, else what happened.
    """

    number: int
    at: datetime
    token: int
    kind: str
    payload: Mapping[str, Any]


class Journal:
    """Of one service. Appends are on the disk when they return."""

    def __init__(self, database: Database, service: str) -> None:
        self.service = service
        self._database = database

    def acquire(self, holder: str, now_s: float, seconds: float) -> int | None:
        """Become the leader, or stay it; the token, or None while somebody else leads.

        Args:
            holder: Who asks, like nobody else. After its lease has run out it goes on with the same token if nobody
                took over meanwhile.
            now_s: Seconds since 1970.
            seconds: How long the lease is good for.
        """
        table = schema.lease
        with self._database.writing() as connection:
            row = connection.execute(select(table).where(table.c.service == self.service)).first()
            if row is not None and row.holder != holder and row.expires_at > now_s:
                latest_s = now_s + seconds
                if row.expires_at > latest_s:  # a clock was set back: from now on it is waited for like any other
                    own = table.c.service == self.service
                    connection.execute(update(table).where(own).values(expires_at=latest_s))
                return None
            token = 1 if row is None else row.token + (row.holder != holder)
            values = {"token": token, "holder": holder, "expires_at": now_s + seconds}
            if row is None:
                connection.execute(insert(table), {"service": self.service, **values})
            else:
                connection.execute(update(table).where(table.c.service == self.service).values(**values))
            return int(token)

    def release(self, token: int) -> None:
        """Let the next one lead at once."""
        table = schema.lease
        with self._database.writing() as connection:
            own = (table.c.service == self.service) & (table.c.token == token)
            connection.execute(update(table).where(own).values(expires_at=0.0))

    def append(self, token: int, kind: str, payload: Mapping[str, Any], at: datetime | None = None) -> None:
        """Write down something that happened.

        Args:
            token: Of the lease.
            kind: What it is.
            payload: About it.
            at: When, UTC; now if left out.

        Raises:
            LeaseLostError: Another one leads.
        """
        with self._database.writing() as connection:
            self._check(connection, token)
            self._insert(connection, token, kind, payload, at)

    def enter(
        self,
        token: int,
        state: ServiceState,
        because: Mapping[str, Any],
        at: datetime | None = None,
        **beside: Mapping[str, Any],
    ) -> None:
        """Write down a new state, what led to it, and what must not be known without it, all or none.

        Args:
            token: Of the leader.
            state: The new one.
            because: What led to it.
            at: When, UTC; now if left out.
            beside: Other entries, payloads by their kind.

        Raises:
            LeaseLostError: Another one leads.
        """
        with self._database.writing() as connection:
            self._check(connection, token)
            for kind, payload in beside.items():
                self._insert(connection, token, kind, payload, at)
            self._insert(connection, token, STATE, {"state": state, "because": because}, at)

    def tell(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Write down what a person says, who needs no lease; the leader reads it."""
        with self._database.writing() as connection:
            self._insert(connection, 0, kind, payload)

    def state(self) -> ServiceState | None:
        """The newest; None for a service that nobody has met."""
        rows = list(self.entries(kinds=(STATE,), last=1))
        return _state(rows[0].payload["state"]) if rows else None

    def entries(
        self, after: int = 0, kinds: Collection[str] = (), last: int | None = None, without: str | None = None
    ) -> Iterator[Entry]:
        """Entries in order.

        Args:
            after: Only those with a larger number.
            kinds: Only these; none for all.
            last: Only so many of the newest.
            without: Not these.
        """
        table = schema.journal
        query = select(table).where(table.c.service == self.service, table.c.id > after)
        query = query.where(table.c.kind.in_(kinds)) if kinds else query
        query = query if without is None else query.where(table.c.kind != without)
        query = query.order_by(table.c.id.desc()).limit(last) if last is not None else query.order_by(table.c.id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        with self._database.decoding(f"the journal of {self.service!r}"):
            for row in rows if last is None else reversed(rows):
                at = datetime.fromisoformat(row.created_at)
                yield Entry(row.id, at, row.token, row.kind, codec.decode_object(row.payload))

    def forget(self, token: int, keep: int) -> int:
        """Drop the oldest entries of a kind beyond `keep` of each; how many. The newest state always stays.

        Raises:
            LeaseLostError: Another one leads.
        """
        table, dropped = schema.journal, 0
        own = table.c.service == self.service
        with self._database.writing() as connection:
            self._check(connection, token)
            for (kind,) in connection.execute(select(table.c.kind).where(own).distinct()).all():
                newest = select(table.c.id).where(own, table.c.kind == kind).order_by(table.c.id.desc())
                last = connection.execute(newest.offset(max(1, keep) - 1).limit(1)).scalar()
                if last is not None:
                    done = connection.execute(delete(table).where(own, table.c.kind == kind, table.c.id < last))
                    dropped += done.rowcount
        return dropped

    def _check(self, connection: Connection, token: int) -> None:
        table = schema.lease
        holds = connection.execute(select(table.c.token).where(table.c.service == self.service)).scalar()
        if holds != token:
            raise LeaseLostError(f"another daemon leads {self.service!r} now", "this one has nothing more to say")

    def _insert(
        self, connection: Connection, token: int, kind: str, payload: Mapping[str, Any], at: datetime | None = None
    ) -> None:
        row = {"service": self.service, "token": token, "kind": kind, "payload": codec.encode(payload)}
        row |= {"created_at": at.isoformat()} if at is not None else {}
        connection.execute(insert(schema.journal), {**provenance(), **row})


def _state(plain: Mapping[str, Any]) -> ServiceState:
    return ServiceState(**{
        **plain, "phase": Phase(plain["phase"]), "wanted": Deployment(**plain["wanted"]),
        "since": datetime.fromisoformat(plain["since"]),
    })  # fmt: skip
