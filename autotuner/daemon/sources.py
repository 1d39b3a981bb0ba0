"""Where numbers of a running service come from: a reading is a number with its time, or the reason why there is none.

A metrics backend that is down, empty, slow or stale, and a NaN or an infinity, are no numbers: nothing may be decided
by them, neither for a candidate nor against it.
"""

import http.client
import io
import json
import math
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

_MOST_BYTES = 1 << 20
_PART_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Reading:
    """A finite number, and when it held (seconds since 1970)."""

    value: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Why there is no number, in a few words."""

    reason: str


Read: TypeAlias = Reading | Gap


class Source(Protocol):
    """Where one signal of one arm comes from; keeps what it has to remember from look to look."""

    def read(self, now_s: float) -> Read:
        """The number at `now_s`, seconds since 1970; looks of one moment are given the same."""
        ...


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A query that gives one number.

    Attributes:
        url: Of the server: http://127.0.0.1:9090.
        query: PromQL; {arm} was filled in before.
        age_query: PromQL for the seconds since the number was scraped, such as `time() - timestamp(up{job="x"})`; an
            instant query of Prometheus repeats a last value for five minutes, with a new time. Empty: nobody asks.
        max_age_s: Older is stale.
        timeout_s: For an answer.
    """

    url: str
    query: str
    age_query: str = ""
    max_age_s: float = 120.0
    timeout_s: float = 5.0

    def read(self, now_s: float) -> Read:
        """The number now."""
        found = self._ask(self.query)
        if isinstance(found, Gap):
            return found
        age_s = now_s - found.at_s
        if self.age_query:
            scraped = self._ask(self.age_query)
            if isinstance(scraped, Gap):
                return Gap(f"nobody knows how old it is: {scraped.reason}")
            age_s = max(age_s, scraped.value)
        if age_s > self.max_age_s:
            return Gap(f"stale: {age_s:.0f} s old, at most {self.max_age_s:.0f} are allowed")
        return found

    def _ask(self, query: str) -> Read:
        address = f"{self.url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        body = fetch(address, self.timeout_s, _MOST_BYTES, _why)
        if isinstance(body, Gap):
            return body
        try:
            return _number(json.loads(body))
        except (ValueError, RecursionError):
            return Gap("its answer is no JSON")


def fetch(address: str, timeout_s: float, most_bytes: int, why: Callable[[bytes], str]) -> bytes | Gap:
    """What a URL gives, whole.

    Args:
        address: With http or https.
        timeout_s: For all of it, not only for its next part: headers, redirections and the body of an error too. (To
            find the host's address takes what the system allows, and each of several addresses is given that long.)
        most_bytes: More is refused.
        why: What the body of an error says.
    """
    opener = urllib.request.build_opener(_InTime(time.monotonic() + timeout_s))
    try:
        with opener.open(address, timeout=timeout_s) as answer:
            return _whole(answer, most_bytes)
    except urllib.error.HTTPError as error:
        with error:
            return Gap(f"it answers {error.code}: {_told(error, why)}")
    except OSError as error:
        reason = getattr(error, "reason", error)
        late = isinstance(reason, TimeoutError)
        return Gap(f"no answer within {timeout_s:g} s" if late else f"it does not answer: {reason}")
    except (http.client.HTTPException, ValueError) as error:
        return Gap(f"it speaks no HTTP: {type(error).__name__}")


class _Until(io.RawIOBase):
    """What a socket gives until `ends_s`: its own limit is for each part, and parts may drip for ever."""

    def __init__(self, sock: socket.socket, ends_s: float) -> None:
        self._sock, self._ends_s = sock, ends_s
        self._parts = sock.makefile("rb", buffering=0)  # keeps the socket open until it is closed itself

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left_s(self._ends_s))
        return self._parts.readinto(buffer)

    def close(self) -> None:
        self._parts.close()
        super().close()


class _InTime(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens what has to be over at `ends_s`."""

    def __init__(self, ends_s: float) -> None:
        super().__init__()
        self._ends_s = ends_s

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(self._connection, http.client.HTTPSConnection), request)

    def _connection(
        self, kind: type[http.client.HTTPConnection], host: str, timeout: float
    ) -> http.client.HTTPConnection:
        connection = kind(host, timeout=min(timeout, _left_s(self._ends_s)))
        connection.response_class = self._response  # type: ignore[assignment]  # is called only
        return connection

    def _response(self, sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(sock, *args, **options)
        response.fp.close()
        response.fp = io.BufferedReader(_Until(sock, self._ends_s))
        return response


def _left_s(ends_s: float) -> float:
    if (left_s := ends_s - time.monotonic()) <= 0:
        raise TimeoutError
    return left_s


def _whole(answer: http.client.HTTPResponse, most_bytes: int) -> bytes | Gap:
    """The body."""
    body = b""
    try:
        while part := answer.read1(_PART_BYTES):
            body += part
            if len(body) > most_bytes:
                return Gap(f"its answer is longer than {most_bytes >> 20} MiB")
    except TimeoutError:
        return Gap("no whole answer in time")
    if len(body) < int(answer.headers.get("Content-Length") or 0):
        return Gap("its answer breaks off")
    return body


def _told(error: urllib.error.HTTPError, why: Callable[[bytes], str]) -> str:
    try:
        return why(error.read(2000))
    except (OSError, http.client.HTTPException):
        return "no reason given"


def _number(body: Any) -> Read:
    """The one number of an instant query's answer (https://prometheus.io/docs/prometheus/latest/querying/api/)."""
    if not isinstance(body, Mapping) or body.get("status") != "success":
        return Gap("it could not answer")
    data = body.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, Mapping) else (None, None)
    if kind == "vector" and isinstance(result, list):
        if len(result) != 1:
            return Gap("the query gives nothing" if not result else f"the query gives {len(result)} numbers, not one")
        result = result[0].get("value") if isinstance(result[0], Mapping) else None
    elif kind != "scalar":
        return Gap(f"the query gives a {kind}, and a vector of one number is wanted")
    if not isinstance(result, list):
        return Gap("its answer holds no number")
    try:
        at_s, value = float(result[0]), float(result[1])
    except (TypeError, ValueError, IndexError, OverflowError):
        return Gap("its answer holds no number")
    if not math.isfinite(value) or not math.isfinite(at_s):
        return Gap(f"the number is {value}")
    return Reading(value, at_s)


def _why(body: bytes) -> str:
    """Prometheus' own words for a query that it does not understand."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no reason given"
