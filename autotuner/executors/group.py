"""The living processes of one launch: a worker, or the ranks of one that runs in several processes."""

import os
import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autotuner.errors import MachineError
from autotuner.executors.log import CappedLog
from autotuner.executors.server import ForkServer
from autotuner.executors.watch import has_ended, oom_kills, tree_rss_bytes
from autotuner.plugins import Job, Rank
from autotuner.types import Failure, FailureKind, Outcome

MESSAGE_LIMIT_S = 60  # for the rest of a message that has begun
_GRACE_S = 0.5  # one rank's end breaks the others: who was first shows within this time


@dataclass(slots=True)
class Member:
    """One living process and what it has open."""

    pid: int
    connection: Any
    output: int
    log: CappedLog = field(default_factory=CappedLog)


@dataclass(slots=True)
class Group:
    """The processes of a launch, by rank.

    Attributes:
        key: What a job must share to find its workload open here.
        port: Where they meet.
    """

    key: tuple[object, ...]
    members: list[Member]
    port: int
    _told: bool = False
    _kills_before: int = 0

    def send(self, job: Job, output_limit_bytes: int) -> None:
        """Open the logs and hand the job to rank 0, the first one to the others too: they follow rank 0 from then."""
        self._kills_before = oom_kills()
        for number, member in enumerate(self.members):
            member.log.open(log_path(job, number), output_limit_bytes)
            if number == 0 or not self._told:
                with suppress(OSError):  # it died between two jobs: the wait below sees the end of its stream
                    member.connection.send(_for_rank(job, Rank(number, len(self.members), self.port)))
        self._told = True

    def register(self, selector: selectors.BaseSelector) -> None:
        """Wait for every answer and for all output."""
        for number, member in enumerate(self.members):
            selector.register(member.connection, selectors.EVENT_READ, number)
            selector.register(member.output, selectors.EVENT_READ, number)

    def rss_bytes(self) -> int:
        """Resident memory of all ranks and what they have started."""
        return sum(tree_rss_bytes(member.pid) for member in self.members)

    def dead_rank(self) -> int | None:
        """A rank that died without a word. A process that it forked may keep its stream open after it."""
        dead = (n for n, m in enumerate(self.members) if has_ended(m.pid) and not m.connection.poll(0))
        return next(dead, None)

    def root_cause(self, failed: Mapping[int, "Ending"]) -> tuple[int, Outcome]:
        """Which rank failed first, and how. A silent death is always a cause, never a consequence.

        Raises:
            MachineError: The machine gave way.
        """
        found = dict(failed)
        until_s = time.monotonic() + (_GRACE_S if len(self.members) > 1 else 0.0)
        while len(found) < len(self.members) and (left_s := until_s - time.monotonic()) > 0:
            waiting = {m.connection: n for n, m in enumerate(self.members) if n not in found}
            with selectors.DefaultSelector() as selector:
                for connection in waiting:
                    selector.register(connection, selectors.EVENT_READ)
                for key, _ in selector.select(left_s):
                    found[waiting[key.fileobj]] = self.receive(waiting[key.fileobj])
        number = min(found, key=lambda n: (found[n].answer is not None, found[n].at_s))
        answer = found[number].answer
        if isinstance(answer, MachineError):
            raise answer
        return number, self.silent_death() if answer is None else answer

    def silent_death(self) -> Failure:
        """The end of a rank that gave no answer; how it died is for the post-mortem to say."""
        killed = oom_kills() > self._kills_before
        return Failure(FailureKind.OUT_OF_MEMORY if killed else FailureKind.CRASHED, "")

    def receive(self, number: int) -> "Ending":
        """The answer of a rank whose stream has something to read."""
        try:
            return Ending(*self.members[number].connection.recv())
        except (EOFError, OSError):
            return Ending(None, time.monotonic())

    def end(self, server: ForkServer, grace_s: float) -> list[int | None]:
        """End every process; their exit codes by rank, as `ForkServer.end` gives them."""
        for member in self.members:
            member.connection.close()
        statuses = []
        for member in self.members:
            statuses.append(server.end(member.pid, grace_s))
            member.log.drain(member.output)
            os.close(member.output)
        return statuses

    def close_logs(self) -> None:
        """Write what is left of their output."""
        for member in self.members:
            member.log.close()


@dataclass(frozen=True, slots=True)
class Ending:
    """What a rank said last, and when; None for a rank that died in silence."""

    answer: Outcome | MachineError | None
    at_s: float


def start(server: ForkServer, job: Job, key: tuple[object, ...]) -> Group:
    """Fork the processes that a job needs, with a channel from rank 0 to each other rank."""
    count = job.workload.ranks(job.config)
    channels = [socket.socketpair() for _ in range(count - 1)]
    members = []
    try:
        for number in range(count):
            mine = [pair[0] for pair in channels] if number == 0 else [channels[number - 1][1]]
            members.append(_fork(server, mine))
    finally:
        for pair in channels:
            for end in pair:
                end.close()
    return Group(key, members, _free_port() if count > 1 else 0)


def _fork(server: ForkServer, channels: Sequence[socket.socket]) -> Member:
    ours, theirs = socket.socketpair()
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):  # a worker may stop in the middle of a message
        ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", MESSAGE_LIMIT_S, 0))
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    try:
        pid = server.fork(theirs, write_end, channels)
    finally:
        theirs.close()
        os.close(write_end)
    return Member(pid, Connection(ours.detach()), read_end)


def _free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _for_rank(job: Job, rank: Rank) -> Job:
    """The same job on the rank's own device, with its own log."""
    if rank.count == 1:
        return job
    device = f"cuda:{rank.number}" if job.device == "cuda" else job.device
    return replace(job, rank=rank, device=device, log_path=log_path(job, rank.number))


def log_path(job: Job, number: int) -> Path | None:
    """Rank 0 writes to the job's log, the others beside it."""
    if job.log_path is None or number == 0:
        return job.log_path
    return job.log_path.with_name(f"{job.log_path.stem}.rank{number}{job.log_path.suffix}")
