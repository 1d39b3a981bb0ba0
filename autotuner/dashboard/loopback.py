"""Serving this machine alone: the address, and who may ask whatever they know."""

import asyncio
import secrets
from collections.abc import Callable

from aiohttp import web

from autotuner.errors import MachineError

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost", "[::1]")


async def listen(app: web.Application, port: int, ready: Callable[[str], None]) -> None:
    """Serve an application on loopback until the task is cancelled; `ready` is told its address, `http://…/`.

    Raises:
        MachineError: The port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port)
        try:
            await site.start()
        except OSError as error:
            raise MachineError(
                f"cannot listen on port {port}: {error.strerror}", "choose another with --port"
            ) from None
        _, chosen = runner.addresses[0][:2]
        ready(f"http://{HOST}:{chosen}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def strangeness(request: web.Request) -> str:
    """Why who asks is turned away, with or without the token, in a sentence; empty for who is not.

    A name that resolves to this machine is not enough (DNS rebinding): the Host must be a loopback address. Another
    page's script is turned away by its Origin.
    """
    host, _, _ = request.host.rpartition(":") if not request.host.endswith("]") else (request.host, "", "")
    if (host or request.host) not in _NAMES:
        return "Ask 127.0.0.1 or localhost."
    origin = request.headers.get("Origin")
    return "Another page asks." if origin is not None and origin != f"http://{request.host}" else ""


def is_token(given: str, token: str) -> bool:
    """In a time that tells nothing of how much of it is right."""
    return secrets.compare_digest(given.encode(errors="surrogatepass"), token.encode())
