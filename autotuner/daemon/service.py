"""A service as its file describes it: the keeper's world, of the user's programs, its numbers and the loop itself."""

import json
import math
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from autotuner import api
from autotuner.adjust.space import Space
from autotuner.daemon.alerts import Alerts
from autotuner.daemon.bundles import Bundles
from autotuner.daemon.hooks import MOST_OUTPUT, HookError, observe, put_in_place, run_hook, said_environment
from autotuner.daemon.keeper import Keeper, World
from autotuner.daemon.measuring import Measuring
from autotuner.daemon.retention import forget_studies
from autotuner.daemon.spec import ServiceSpec
from autotuner.daemon.working import work
from autotuner.daemon.world import StudyError
from autotuner.errors import AutotuneError, MachineError
from autotuner.exporting import make_exporter, recommendation, unverified
from autotuner.monitor import environment
from autotuner.plugins import Exporter
from autotuner.spec.model import StudySpec
from autotuner.store import Record, Study
from autotuner.types import Binding, Config, Decision, Deployment, Phase, Recommendation, ServiceState, Value, Window

CONFIG = "config.json"  # of a bundle: the configuration that its files say
_CYCLES = 20  # whose evidence and logs are kept


class Service:
    """A service and its bundles.

    Args:
        spec: Its file.
        record: Where studies and the journal go.
        db: The record as the user named it.
        measuring: Reads its numbers.
    """

    def __init__(self, spec: ServiceSpec, record: Record, db: str | None, measuring: Measuring) -> None:
        self.spec, self._record, self._db, self._measuring = spec, record, db, measuring
        self._folder = record.service_folder(spec.service)
        self.bundles = Bundles(self._folder / "bundles")
        self.journal = record.journal(spec.service)
        self.alerts = Alerts(self.journal, spec.alert, spec.webhook_url())
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
            read=self._measuring.look,
            environment=self._environment,
            tune=self._tune,
            window=self._window,
            alert=self.alerts.take_up,
            collect=self._collect,
            tidy=self._tidy,
            devices=self._devices,
            name=self._name,
            damage=self.bundles.damage,
        )

    def _study(self) -> StudySpec:
        return api.read_spec(self.spec.study, ())

    def _environment(self) -> Mapping[str, str]:
        """Hardware, driver and versions of this machine, the model's hash, and what the user's own program adds.

        Raises:
            HookError: That program fails.
        """
        study, hooks = self._study(), self.spec.hooks
        said = said_environment(hooks.environment, hooks.deadline) if hooks.environment else {}
        return {**environment.fingerprint(study.device, study.workload.identity()), **said}

    def _devices(self) -> int:
        study = self._study()
        return Space(study).most_ranks() if study.device == "cuda" else 1

    def _first(self) -> str:
        """What runs today: the study file's defaults."""
        spec = self._study()
        return self._bundle(spec.baseline, unverified(spec.dump(), self.spec.service))

    def _bundle(self, config: Config, found: Recommendation) -> str:
        """The target's files of a configuration, and the configuration itself, kept for good.

        The service's name stands in them, not the study's: the same configuration is the same bundle whichever study
        found it, and a program of the user's finds each file where it was.
        """
        files = dict(self._exporter.draft(config, replace(found, study=self.spec.service)).files)
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

    def _name(self, cycle: int) -> str:
        """What somebody else has called so, or an older life of the service, is not the study of this cycle."""
        taken, first = {*self._record.names()}, f"{self.spec.service}-{cycle}"
        return next(name for name in chain([first], (f"{first}-{n}" for n in count(2))) if name not in taken)

    def _tune(self, state: ServiceState, most_s: float, stop: Callable[[], bool]) -> tuple[str, str] | None:
        """The study of a cycle, begun or taken up, in a process of its own; its baseline is what serves today."""
        study = self._studied(state, most_s, stop)
        if study is None:
            return None
        try:
            found, bound = recommendation(study), _bound(study)
            proof = found.verification
            if proof.decision is not Decision.BETTER:
                return "", f"study {study.name}: {proof.decision}: {proof.reason}{bound}"
            gain = f"{proof.metric} {proof.gain_ratio:.2f}x by {_changes(found)}"
            return self._bundle(found.config, found), f"study {study.name}: {gain}{bound}"
        except MachineError:  # a record that is locked, a full disk: the study stays, and another turn can do it
            raise
        except AutotuneError as error:  # no verdict, or the exporter refuses it: so it would be in every turn
            raise StudyError(f"what the study {study.name} found cannot be used: {error.message}") from None

    def _studied(self, state: ServiceState, most_s: float, stop: Callable[[], bool]) -> Study | None:
        """The finished study; None when it was told to stop."""
        name, logs = state.study, self._folder / "logs"
        begun = name in self._record.names()
        if begun and self._record.study(name).events("finished"):
            return self._record.study(name)
        request: dict[str, object] = {"do": "resume", "name": name, "db": self._db, "most_s": most_s}
        if not begun:
            try:
                today = self._config(state.last_good)
            except MachineError as error:  # a damaged bundle stays damaged
                raise StudyError(f"the study {name} cannot begin from what serves: {error.message}") from None
            overrides = self._overrides(self._study(), today, most_s)
            request |= {"do": "start", "file": str(self.spec.study), "overrides": overrides}
        try:
            if work(request, logs / f"{name}.log", stop) is None:
                return None
        except AutotuneError as error:
            raise StudyError(f"the study {name} could not be run: {error.message}") from None
        keep_newest(logs)
        return self._record.study(name)

    @staticmethod
    def _overrides(study: StudySpec, today: Mapping[str, Value], most_s: float) -> Sequence[str]:
        """What serves becomes the baseline, as far as the study file still knows it; and no more than the time left."""
        known = {key: value for key, value in today.items() if key in study.parameters}
        legal = {key: value for key, value in known.items() if study.parameters[key].allows(value)}
        overrides = [f"parameters.{key}.default={json.dumps(value)}" for key, value in legal.items()]
        minutes = min(most_s / 60, study.budget.minutes or math.inf)
        return [*overrides, f"budget.minutes={minutes:.3f}"] if math.isfinite(minutes) else overrides

    def _window(self) -> Window:
        state = self.journal.state()
        return self._measuring.window(promoted=state is not None and state.phase is Phase.PROBATION)

    def _tidy(self, needed: Collection[str]) -> None:
        """Only these bundles are needed any more."""
        self.bundles.forget(needed)
        try:
            serving = [self._config(bundle) for bundle in needed if bundle]
        except MachineError:  # a bundle that is damaged: what it came from is not known
            return
        forget_studies(self._record, self._db, self.journal, self.spec.keep_studies, serving)

    def _config(self, bundle: str) -> Mapping[str, Value]:
        return dict(json.loads((self.bundles.path(bundle) / CONFIG).read_text()))

    def _collect(self, state: ServiceState, stop: Callable[[], bool]) -> Mapping[str, Any]:
        """What serves, profiled on this machine, and what the user's own program finds, in a folder of the cycle."""
        incidents = self._folder / "incidents"
        folder = incidents / f"{state.cycle:06d}"
        found: dict[str, object] = {"folder": str(folder)}
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found["environment"] = self._environment()
        except HookError as error:
            found["environment"] = str(error)
        if self.spec.watch.profile:
            request: dict[str, object] = {
                "do": "profile",
                "file": str(self.spec.study),
                "folder": str(folder / "profile"),
            }
            try:
                request["config"] = self._config(state.last_good)
                found |= work(request, folder / "profile.log", stop) or {"profile": "stopped"}
            except AutotuneError as error:
                found["profile"] = error.message
        if self.spec.hooks.evidence:
            try:
                said = run_hook("evidence", self.spec.hooks.evidence, {"folder": str(folder)}, self.spec.hooks.deadline)
                found["evidence"] = said[-MOST_OUTPUT:]
            except HookError as error:
                found["evidence"] = str(error)
        keep_newest(incidents)
        return found


def keep_newest(folder: Path) -> None:
    """Drop all but the newest of what cycles leave in a folder."""
    if folder.is_dir():
        for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-_CYCLES]:
            with suppress(OSError):  # what others own, or just dropped
                shutil.rmtree(old) if old.is_dir() else old.unlink()


def _changes(found: Recommendation) -> str:
    """What is another value now: a person who is to approve it must know."""
    before = found.baseline
    return ", ".join(f"{key} {before.get(key)} → {new}" for key, new in found.config.items() if new != before.get(key))


def _bound(study: Study) -> str:
    """What bound the service as it was, in a clause."""
    found = next((trial.verdict.diagnosis for trial in study.trials() if trial.verdict), None)
    return f"; as it was: {found.sentence.rstrip('.')}" if found and found.binding is not Binding.UNKNOWN else ""


@contextmanager
def opened(spec: ServiceSpec, db: str | None, moved: Callable[[], None] = lambda: None) -> Iterator[Service]:
    """A service on its record.

    Args:
        spec: Its file.
        db: URL or path of the record.
        moved: Is called when something long goes on.

    Raises:
        UsageError: There is a mistake in its study file.
    """
    api.read_spec(spec.study, ())  # a mistake that is made later costs turns, and not the daemon
    with api.open_record(db, create=True) as record, Measuring(spec, moved) as measuring:
        service = Service(spec, record, db, measuring)
        with service.alerts:
            yield service
