"""A service as its people run it: the example's own hooks and files, HAProxy or nginx before it, Prometheus, users.

Only ports are others than in examples/daemon, and what serves is `faulty.py`, which does what a test tells it.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.parse
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from outside import Users, environment, fetched, free_ports, program, running, wait_until, write

from autotuner.store import open_record

EXAMPLE = Path(__file__).parents[3] / "examples" / "daemon"
PROGRAM = "from autotuner.cli.main import app; app()"
NEAR = {"round_trip_s": 0.002, "waste_s_per_kib": 0.0015}  # of storage: 8 KiB is best, with 28 ms
FAR = {"round_trip_s": 0.012, "waste_s_per_kib": 0.0001}  # 8 KiB takes 97 ms, 64 KiB takes 18 ms
PORTS = ("8001", "8002", "8080", "8404", "9090")  # that the example's files name
LIMIT_S = 180.0


class Stage:
    """A folder with the example in it; everything that it starts ends with the `with`.

    Args:
        folder: Of its own.
        proxy: haproxy or nginx.
        record: The folder of a record to go on from, from `snapshot`.
        changes: Of the daemon's file: what to write instead of what.
    """

    def __init__(self, folder, proxy="haproxy", record=None, changes=()):
        self.folder, self.proxy = folder, proxy
        shutil.copytree(EXAMPLE, folder)
        shutil.copy(Path(__file__).with_name("faulty.py"), folder)
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
        for path in folder.iterdir():
            if path.is_file():
                self._edit(path, *self.ports.items())
        self._edit(folder / "arms.py", ('"server.py"', '"faulty.py"'))
        self.file = folder / f"daemon-{proxy}.yaml"
        for old, new in changes:
            assert old in self.file.read_text(), old
            self._edit(self.file, (old, new))
        if record:
            shutil.copytree(record, folder / "record")
        (folder / "record").mkdir(exist_ok=True)
        self.db = str(folder / "record" / "autotune.db")
        self.is_live(NEAR)
        self._stack = ExitStack()

    def _edit(self, path, *pairs):
        text = path.read_text()
        for old, new in pairs:
            text = text.replace(old, new)
        path.write_text(text)

    def __enter__(self):
        with ExitStack() as stack:
            stack.callback(self._end_servers)
            stack.enter_context(self._proxy())
            self.prometheus = stack.enter_context(self.run_prometheus())
            self.users = stack.enter_context(Users(f"http://127.0.0.1:{self.ports['8080']}/"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        self._stack.__exit__(*what)

    # what is so

    def is_live(self, environment, **faults):
        """How the storage is where the service runs, and what else is wrong there."""
        write(self.folder / "live.json", {**environment, **faults})

    def in_study(self, environment):
        """How it is where studies run."""
        write(self.folder / "environment.json", environment)

    def state(self):
        if not Path(self.db).exists():
            return None
        with open_record(self.db) as record:
            return record.journal("shop").state()

    def entries(self, *kinds):
        with open_record(self.db) as record:
            return list(record.journal("shop").entries(kinds=kinds or None))

    def config(self, bundle):
        return json.loads((self.bundle(bundle) / "config.json").read_text())

    def bundle(self, name):
        return self.folder / "record" / "_services" / "shop" / "bundles" / name

    def observe(self):
        return json.loads(self.hook("observe"))

    def hook(self, *words):
        argv = [str(self.folder / f"{self.proxy}.py"), *words]
        done = subprocess.run(
            argv, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60, env=environment()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # what is done

    @contextmanager
    def daemon(self):
        """A real one; stopped by SIGTERM at the end, if it still runs."""
        argv = [sys.executable, "-c", PROGRAM, "daemon", "run", self.file.name, "--db", self.db]
        with (
            (self.folder / "daemon.log").open("ab") as log,
            subprocess.Popen(argv, cwd=self.folder, stdout=log, stderr=log, env=environment()) as process,
        ):
            try:
                yield process
            finally:
                process.terminate()
                try:
                    process.wait(30)
                finally:
                    process.kill()

    def say(self, word):
        """As `autotune daemon WORD` does."""
        with open_record(self.db) as record:
            record.journal("shop").tell(word, {"by": "somebody"})

    def until(self, condition, process=None, limit_s=LIMIT_S):
        """The state as soon as it is so."""
        ends_s = time.monotonic() + limit_s
        while (state := self.state()) is None or not condition(state):
            assert process is None or process.poll() is None, self.log()
            assert time.monotonic() < ends_s, (state, self.log())
            time.sleep(0.05)
        return state

    def log(self):
        return (self.folder / "daemon.log").read_text()[-3000:]

    def resume(self, stable):
        """Let a bundle of the record serve, as it did when the snapshot was taken."""
        self.hook("apply", str(self.bundle(stable)), stable, "", "", "0", "1")

    def snapshot(self, into):
        """The record as it is now, to go on from."""
        shutil.copytree(self.folder / "record", into, ignore=shutil.ignore_patterns("autotune.db*"))
        with sqlite3.connect(self.db) as source, sqlite3.connect(into / "autotune.db") as target:
            source.backup(target)
        return into

    # what runs

    @contextmanager
    def _proxy(self):
        argv = {
            "haproxy": [program("haproxy"), "-f", "haproxy.cfg"],
            "nginx": [*f"{program('nginx')} -p {self.folder} -c nginx.conf -e nginx.log -g".split(), "daemon off;"],
        }[self.proxy]
        with running(argv, self.folder, f"{self.proxy}.out", self.ports["8080"]):
            yield

    @contextmanager
    def run_prometheus(self, config="prometheus.yml"):
        port = self.ports["9090"]
        argv = [
            program("prometheus"), f"--config.file={config}", "--storage.tsdb.path=tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ]  # fmt: skip
        with running(argv, self.folder, "prometheus.out", port) as process:
            wait_until(lambda: fetched(f"http://127.0.0.1:{port}/-/ready"))
            yield process

    def ask(self, query, arm):
        """What Prometheus says of an arm, as it says it."""
        words = urllib.parse.urlencode({"query": query.replace("{arm}", arm)})
        text = fetched(f"http://127.0.0.1:{self.ports['9090']}/api/v1/query?{words}")
        result = json.loads(text)["data"]["result"] if text else []
        return result[0]["value"][1] if result else ""

    def arms(self):
        """Ports of the service's processes that live."""
        return sorted(self.processes().values())

    def processes(self):
        """Number and port of each."""
        arms = {}
        for one in psutil.process_iter(["cmdline", "status"]):
            words = one.info["cmdline"] or []
            if str(self.folder / "faulty.py") in words and one.info["status"] != psutil.STATUS_ZOMBIE:
                arms[one.pid] = words[-1]
        return arms

    def strays(self):
        """Hooks and studies that nobody waits for."""
        names = [str(self.folder / name) for name in ("haproxy.py", "nginx.py")] + ["./haproxy.py", "./nginx.py"]
        found = []
        for one in psutil.process_iter(["cmdline", "cwd"]):
            words = one.info["cmdline"] or []
            if one.info["cwd"] == str(self.folder) and (
                any(name in words for name in names) or "autotuner.daemon.working" in words or "server.py" in words
            ):
                found.append((one.pid, words))
        return found

    def _end_servers(self):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
