"""`python -m autotuner.load FD`: the client's process; episodes come and go over the socket that it was given."""

import asyncio
import signal
import sys
from multiprocessing.connection import Connection

from autotuner.load.client import Client
from autotuner.load.plan import Episode, Plan


async def _serve(connection: "Connection[Episode, Plan]") -> None:
    async with Client() as client:
        while True:
            try:
                plan = connection.recv()
            except EOFError:
                return
            connection.send(await client.run(plan))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches us too: who asks us ends us
    asyncio.run(_serve(Connection(int(sys.argv[1]))))
