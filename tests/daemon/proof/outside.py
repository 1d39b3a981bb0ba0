"""What stands around a service: users, and servers in the foreground."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

from autotuner.load.plan import Call, Plan
from autotuner.load.process import LoadClient


def program(name):
    """Where one of Debian's servers is; None where it is not."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


class Users:
    """Our own client, as users: requests at an even rate until the end, each counted.

    Each is another user: on a kept connection that was closed the client would ask once more, as it may, and a request
    that was lost would not be seen.

    Args:
        url: That they know.
        rate_per_s: Of all together.
    """

    def __init__(self, url, rate_per_s=40):
        self.url, self.rate_per_s = url, rate_per_s
        self.answered, self.failures, self._over = 0, Counter(), threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self):
        self._client = LoadClient()
        self._client.__enter__()
        self._started = False
        return self

    def begin(self):
        """From now on requests come."""
        self._started = True
        self._thread.start()

    def _ask(self):
        calls = tuple(Call({"q": 1}, number / self.rate_per_s) for number in range(self.rate_per_s // 2))
        while not self._over.is_set():
            episode = self._client.run(
                Plan(self.url, calls, api="json", headers={"Connection": "close"}, timeout_s=30.0)
            )
            for reply in episode.replies:
                if reply.answer.failure:
                    self.failures[reply.answer.failure] += 1
                else:
                    self.answered += 1

    def __exit__(self, *what):
        self._over.set()
        if self._started:
            self._thread.join(60)
        self._client.__exit__(None, None, None)


def environment():
    """The nginx of the tests is found by the hook's own name of it."""
    beside = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}"}


def free_ports(count):
    """Below those that the kernel gives away by itself, so that no client's connection takes one meanwhile."""
    found, port = [], random.randrange(10000, 30000)
    while len(found) < count:
        port += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


@contextmanager
def running(argv, folder, log, port):
    """A server in the foreground, from when it answers to the end of the block."""
    with (
        (folder / log).open("ab") as output,
        subprocess.Popen(
            argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or is_open(port))
            assert process.poll() is None, (folder / log).read_text()
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def fetched(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return ""


def wait_until(condition, limit_s=60.0):
    ends_s = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < ends_s, "nothing happened"
        time.sleep(0.02)
    return found


def write(path, data):
    """At once: servers read it at every request."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(data))
    new.replace(path)
