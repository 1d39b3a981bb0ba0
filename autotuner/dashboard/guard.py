"""Who may look: the holder of the token, by the address that we serve, from a page of ours."""

import base64
import hashlib
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from autotuner.dashboard.loopback import is_token, strangeness


def own_pages(scripts: Iterable[str]) -> str:
    """The policy of our own pages: these inline scripts, and no other."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; connect-src 'self'; "


def guard(token: str, policy: str) -> Middleware:
    """A middleware that lets through what is asked rightly, and marks answers so that browsers keep to it.

    The token comes once in the address and then in a cookie.

    Args:
        token: Printed on the terminal.
        policy: The beginning of a Content-Security-Policy: what the pages may load.
    """
    headers = {
        "Content-Security-Policy": f"{policy}base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer: web.StreamResponse | None = _refusal(request, token)
        if answer is None and "token" in request.query:
            answer = _without_token(request, token)
        try:
            answer = answer or await handler(request)
        except web.HTTPException as error:  # what is not there is an answer too
            answer = error
        if not answer.prepared:
            answer.headers.update(headers)
        return answer

    return check


def cookie_name(port: int | None) -> str:
    """Browsers do not tell ports apart: two dashboards of one machine would log each other out."""
    return f"autotune_token_{port}"


def _without_token(request: web.Request, token: str) -> web.StreamResponse:
    """The same page without it in the address, so that it is in no history and no screenshot."""
    kept = request.rel_url.without_query_params("token")
    answer = web.HTTPSeeOther("/" + str(kept).lstrip("/"))  # // would be another host
    answer.set_cookie(cookie_name(request.url.port), token, httponly=True, samesite="Strict")
    return answer


def _refusal(request: web.Request, token: str) -> web.Response | None:
    """The answer to what is not asked rightly; None when it is."""
    if request.method not in ("GET", "HEAD"):
        return web.Response(status=405, text="This dashboard only shows.\n")
    if strange := strangeness(request):
        return web.Response(status=403, text=f"{strange}\n")
    given = request.query.get("token") or request.cookies.get(cookie_name(request.url.port), "")
    if not is_token(given, token):
        return web.Response(status=401, text="Open the address that `autotune dashboard` printed.\n")
    return None
