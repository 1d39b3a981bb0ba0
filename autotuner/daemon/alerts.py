"""Telling people: by a program of theirs, by a web hook, on a thread of its own, so that nobody waits for a receiver.

What is told stands in the journal before anybody is told, and so does every way that failed. Afterwards it is written
down that it was told: what a daemon that died has left untold, the next one tells.
"""

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from autotuner.daemon.leash import run_leashed
from autotuner.errors import MachineError
from autotuner.report.text import one_line
from autotuner.store.journal import Entry, Journal
from autotuner.types import Phase

ALERT = "alert"  # the kind of an entry; people are told of those that name a phase
TOLD = "told"  # the kind of an entry: up to which one people were told
PAUSES_S = (1.0, 4.0)  # between the attempts to reach a web hook
_TIMEOUT_S = 5.0  # of each attempt
_PROGRAM_LIMIT_S = 30.0
_PATIENCE_S = 60.0  # for what is still being told when the daemon ends by itself
_LAST_S = 2.0  # the same when somebody ends it


def _checked(hook: SecretStr) -> SecretStr:
    """Says what is wrong without the URL, which is a secret."""
    url = hook.get_secret_value()
    try:
        parts = urlsplit(url)
        complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        complete = False
    if not complete or not url.isascii() or any(char <= " " for char in url):
        raise ValueError("must be a URL that begins with http:// or https://, names a host and has no spaces")
    if parts.username is not None:
        raise ValueError("a name and a password before the host are not sent: put the secret into the path")
    return hook


WebHook = Annotated[SecretStr, AfterValidator(_checked)]  # its URL holds a secret: it is never printed


@dataclass(frozen=True, slots=True)
class Alert:
    """What somebody has to know.

    Attributes:
        service: Whose.
        phase: What the daemon was doing.
        text: In a sentence, on one line.
        at: When, ISO 8601 in UTC.
    """

    service: str
    phase: str
    text: str
    at: str


def told_of(service: str, phase: Phase, text: str) -> Mapping[str, Any]:
    """The entry of the kind `ALERT` that people are told."""
    return {"text": f"{service}: {text}", "phase": phase}


class Alerts:
    """The ways to tell people; ends with its `with` block, and waits a little for what is still under way.

    Args:
        journal: Of the service.
        program: Is given the text as its last word; empty for none.
        webhook: URL to which an alert is posted as JSON; empty for none. It is a secret, and never printed.
        pauses_s: Between the attempts; one more attempt than pauses.
    """

    def __init__(
        self, journal: Journal, program: Sequence[str] = (), webhook: str = "", pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        self._journal, self._program, self._webhook, self._pauses_s = journal, program, webhook, pauses_s
        self._waiting: deque[tuple[int, Alert]] = deque()  # with the numbers of their entries
        self._newest = 0  # number of the newest that waits or was told
        self._news, self._over = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        with self._news:
            self._news.wait_for(lambda: not self._waiting, _PATIENCE_S if kind is None else _LAST_S)
            self._over.set()
            self._news.notify_all()
            left = len(self._waiting)
        if left:
            self._journal.tell(ALERT, {"text": f"the daemon ended, and left {left} of its alerts to the next one"})

    def take_up(self) -> None:
        """Have told what the journal says and nobody was told yet; returns at once, and may be called at any time.

        Raises:
            MachineError: The journal cannot be read.
        """
        told = (entry.payload["alert"] for entry in self._journal.entries(kinds=(TOLD,), last=1))
        with self._news:
            self._newest = max(self._newest, *told, 0)
            for entry in self._journal.entries(after=self._newest, kinds=(ALERT,)):
                self._newest = entry.number
                if "phase" in entry.payload:
                    self._waiting.append((entry.number, self._alert(entry)))
            self._news.notify_all()

    def _alert(self, entry: Entry) -> Alert:
        text, at = one_line(entry.payload["text"]), entry.at.isoformat(timespec="seconds")
        return Alert(self._journal.service, entry.payload["phase"], text, at)

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._over.is_set())
                if self._over.is_set():
                    return
                number, alert = self._waiting[0]
            failures = [one for one in (run_program(self._program, alert.text), self._post(alert)) if one]
            if failures and self._over.is_set():  # nobody waited for it: the next daemon tries again
                return
            with suppress(MachineError):  # the record is locked or gone: the daemon's next turn says so
                for failure in failures:
                    self._journal.tell(ALERT, {"text": failure})
                self._journal.tell(TOLD, {"alert": number})
            with self._news:
                self._waiting.popleft()
                self._news.notify_all()

    def _post(self, alert: Alert) -> str:
        """Why no attempt reached the web hook; empty when one did, and where there is none."""
        failure = post(self._webhook, alert) if self._webhook else ""
        for pause_s in self._pauses_s:
            if not failure or self._over.wait(pause_s):
                break
            failure = post(self._webhook, alert)
        return f"{failure}, {1 + len(self._pauses_s)} times" if failure else ""


def run_program(argv: Sequence[str], text: str) -> str:
    """Why the user's program did not take it; empty when it did, and where there is none."""
    if not argv:
        return ""
    try:
        status, _ = run_leashed([*argv, text], _PROGRAM_LIMIT_S)  # what it prints may hold a secret
    except TimeoutError as error:
        return f"the alert program {error.strerror}"
    except (OSError, ValueError) as error:  # a word that the system cannot take is the latter
        return f"the alert program cannot be started: {argv[0]}: {getattr(error, 'strerror', '') or error}"
    return f"the alert program ended with {status}" if status else ""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Another place is no answer: following would make a GET of it."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, alert: Alert, timeout_s: float = _TIMEOUT_S) -> str:
    """Post an alert once; why it was not taken, without the URL's secrets, and empty when it was."""
    host = urlsplit(url).hostname
    headers = {"Content-Type": "application/json", "User-Agent": "autotune"}
    try:
        request = urllib.request.Request(url, json.dumps(asdict(alert)).encode(), headers, method="POST")
        with urllib.request.build_opener(_Stay).open(request, timeout=timeout_s):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"the web hook at {host} answers {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:  # whose words may quote the URL
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return f"the web hook at {host} gives no answer within {timeout_s:g} s"
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
        return f"the web hook at {host} cannot be reached: {why}"
