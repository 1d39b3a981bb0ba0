"""Other processes: collectives of two ranks, and a link that is slow."""

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from autotuner.types import Config, Metrics
from labelled.part import Part, swapped

FLOATS = 2**14
PACE_BYTES = 2**16


class Linked(Part):
    """A part that waits for a peer process `amount` times a step."""

    forks: ClassVar[bool] = True

    def __init__(self, device: str, amount: int, delay_s: float) -> None:
        super().__init__(device, amount)
        self._delay_s, self.exchange = delay_s, self._exchange

    def run(self, config: Config) -> Metrics:
        """Exchange, and say how long that took."""
        began_s = time.perf_counter()
        for _ in range(self.amount):
            self.exchange()
        return {"communication_s": time.perf_counter() - began_s}

    def relieve(self, resource: str) -> AbstractContextManager[float] | None:
        """As if there were no other rank."""
        return swapped(self, 0.0, exchange=lambda: None) if resource == "communication" else None

    def _exchange(self) -> None:
        raise NotImplementedError


class Collective(Linked):
    """A gloo collective with a second rank that joins `delay_s` after it hears of it, as over a long line."""

    def __init__(
        self, device: str, amount: int, what: str = "all_reduce", delay_s: float = 2e-3, floats: int = FLOATS
    ) -> None:
        super().__init__(device, amount, delay_s)
        self._what, self._floats = what, floats

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Fork the second rank and meet it; it ends when its line is closed."""
        here, there = socket.socketpair()
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            if (peer := os.fork()) == 0:
                here.close()
                _become(lambda: self._answer(there, store))
            there.close()
            self._join(0, store)
            self._line = here
            yield
            here.close()
            os.waitpid(peer, 0)

    def _join(self, rank: int, store: Path) -> None:
        import torch
        import torch.distributed as distributed

        distributed.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=2)
        self._tensor = torch.ones(self._floats)
        self._halves = [torch.empty(self._floats) for _ in range(2)]

    def _answer(self, line: socket.socket, store: Path) -> None:
        """The second rank's life."""
        self._join(1, store)
        while line.recv(1):
            time.sleep(self._delay_s)
            self._collect()

    def _exchange(self) -> None:
        self._line.send(b".")
        self._collect()

    def _collect(self) -> None:
        import torch.distributed as distributed

        match self._what:
            case "all_reduce":
                distributed.all_reduce(self._tensor, op=distributed.ReduceOp.MAX)
            case "all_gather":
                distributed.all_gather(self._halves, self._tensor)
            case "broadcast":
                distributed.broadcast(self._tensor, src=1)


class ParameterSync(Linked):
    """Gradients go to a parameter server over TCP and come back; its line has a delay and a rate."""

    def __init__(
        self, device: str, amount: int, delay_s: float = 2e-3, size_bytes: int = 2**18, rate_bytes_per_s: float = 0.0
    ) -> None:
        super().__init__(device, amount, delay_s)
        self._size_bytes, self._rate = size_bytes, rate_bytes_per_s

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Fork the server and connect."""
        import torch

        with socket.create_server(("127.0.0.1", 0)) as server:
            if (peer := os.fork()) == 0:
                _become(lambda: self._serve(server.accept()[0]))
            self._line = socket.create_connection(server.getsockname())
        self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._gradient = bytearray(torch.zeros(self._size_bytes // 4).numpy().tobytes())
        yield
        self._line.close()
        os.waitpid(peer, 0)

    def _serve(self, line: socket.socket) -> None:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = bytearray(self._size_bytes)
        while _receive(line, data):
            time.sleep(self._delay_s)
            for start in range(0, len(data), PACE_BYTES):
                if self._rate:
                    time.sleep(PACE_BYTES / self._rate)
                line.sendall(data[start : start + PACE_BYTES])

    def _exchange(self) -> None:
        self._line.sendall(self._gradient)
        if not _receive(self._line, self._gradient):
            raise ConnectionError("the parameter server has gone")


def _receive(line: socket.socket, into: bytearray) -> bool:
    view, got = memoryview(into), 0
    while got < len(into):
        count = line.recv_into(view[got:])
        if not count:
            return False
        got += count
    return True


def _become(life: Any) -> None:
    """Live in the forked process, and never return into the parent's stack."""
    try:
        life()
    finally:
        os._exit(0)
