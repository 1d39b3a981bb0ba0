"""A service as its file describes it: the keeper's world, of the user's programs, Prometheus and the loop itself."""

import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from autotuner import api
from autotuner.daemon.bundles import Bundles
from autotuner.daemon.hooks import HookError, observe, put_in_place
from autotuner.daemon.keeper import Keeper, World
from autotuner.daemon.sources import Gap, Prometheus, Reading
from autotuner.daemon.spec import CANDIDATE, STABLE, ServiceSpec
from autotuner.errors import AutotuneError, MachineError
from autotuner.exporting import make_exporter, recommendation, unverified
from autotuner.monitor import environment
from autotuner.plugins import Exporter
from autotuner.spec.model import StudySpec
from autotuner.store import Record
from autotuner.types import Config, Decision, Deployment, Recommendation, ServiceState, Value, Window

CONFIG = "config.json"  # of a bundle: the configuration that its files say


class Service:
    """A service and its bundles.

    Args:
        spec: Its file.
        record: Where studies and the journal go.
        db: The record as the user named it.
    """

    def __init__(self, spec: ServiceSpec, record: Record, db: str | None) -> None:
        self.spec, self._record, self._db = spec, record, db
        self.bundles = Bundles(record.folder(spec.service) / "bundles")
        self.journal = record.journal(spec.service)
        self._exporter: Exporter = make_exporter(spec.target, spec.settings)

    def keeper(self) -> Keeper:
        """Who keeps it tuned."""
        # in a container every daemon has the same number, and a restarted one must not be taken for the old one
        holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        return Keeper(self.journal, self._world(), self.spec.terms(), self.spec.watching(), holder)

    def _world(self) -> World:
        hooks = self.spec.programs()
        return World(
            clock=lambda: datetime.now(UTC),
            first=self._first,
            observe=lambda: observe(hooks, hooks.deadline_s),
            place=self._place,
            read=lambda: {name: self.spec.source(name, STABLE).read(time.time()) for name in self.spec.signals},
            environment=lambda: environment.fingerprint(self._study().device, {}),
            tune=self._tune,
            window=self._window,
            alert=self._alert,
        )

    def _study(self, overrides: tuple[str, ...] = ()) -> StudySpec:
        return api.read_spec(self.spec.study, overrides)

    def _first(self) -> str:
        """What runs today: the study file's defaults."""
        spec = self._study()
        return self._bundle(spec.baseline, unverified(spec.dump(), self.spec.service))

    def _bundle(self, config: Config, found: Recommendation) -> str:
        """The target's files of a configuration, and the configuration itself, kept for good."""
        files = dict(self._exporter.draft(config, found).files)
        files[CONFIG] = (json.dumps(dict(config), indent=1, sort_keys=True) + "\n").encode()
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return self.bundles.keep(Path(folder))

    def _place(self, wanted: Deployment, token: int) -> None:
        try:
            put_in_place(self.spec.programs(), wanted, token, self.bundles.path, time.monotonic)
        except MachineError as error:
            raise HookError(f"{error.message} ({error.hint})") from None

    def _tune(self, state: ServiceState) -> tuple[str, str]:
        """The study of a cycle, begun or taken up; its baseline is what serves today."""
        name = f"{self.spec.service}-{state.cycle}"
        try:
            if name not in self._record.names():
                today: Mapping[str, Value] = json.loads((self.bundles.path(state.last_good) / CONFIG).read_text())
                overrides = [f"parameters.{key}.default={json.dumps(value)}" for key, value in today.items()]
                api.start(self.spec.study, overrides=overrides, name=name, db=self._db)
            elif not self._record.study(name).events("finished"):
                api.resume(name, db=self._db)
        except AutotuneError as error:
            return "", f"the study {name} could not be run: {error.message}"
        found = recommendation(self._record.study(name))
        proof = found.verification
        if proof.decision is not Decision.BETTER:
            return "", f"study {name}: {proof.decision}: {proof.reason}"
        return self._bundle(found.config, found), f"study {name}: {proof.metric} {proof.gain_ratio:.2f}x"

    def _window(self) -> Window:
        """Both arms over the same seconds: the queries speak of the time that has just passed."""
        time.sleep(self.spec.canary.window)
        names = (self.spec.aim.metric, *self.spec.canary.guards)
        arms = {arm: self._numbers(names, arm) for arm in (STABLE, CANDIDATE)}
        counts = {
            (kind, arm): _count(self.spec.counted(query, arm))
            for kind, query in (("requests", self.spec.canary.requests), ("failures", self.spec.canary.failures))
            for arm in (STABLE, CANDIDATE)
        }
        return Window(
            arms[STABLE], arms[CANDIDATE], counts["requests", STABLE], counts["failures", STABLE],
            counts["requests", CANDIDATE], counts["failures", CANDIDATE],
        )  # fmt: skip

    def _numbers(self, names: Iterable[str], arm: str) -> dict[str, float]:
        """What has a number; a gap is left out, and the judge sees that it is missing."""
        found = {name: self.spec.source(name, arm).read(time.time()) for name in names}
        return {name: read.value for name, read in found.items() if isinstance(read, Reading)}

    def _alert(self, text: str) -> None:
        """By the user's program; that it fails is no reason to stop."""
        self.journal.tell("alert", {"text": text})
        if self.spec.alert:
            try:
                subprocess.run(
                    [*self.spec.alert, text], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                self.journal.tell("alert", {"text": f"the alert program failed: {error}"})


def _count(source: Prometheus | None) -> int:
    found = source.read(time.time()) if source else Gap("nobody counts")
    return max(0, round(found.value)) if isinstance(found, Reading) else 0


@contextmanager
def opened(spec: ServiceSpec, db: str | None) -> Iterator[Service]:
    """A service on its record."""
    with api.open_record(db, create=True) as record:
        yield Service(spec, record, db)
