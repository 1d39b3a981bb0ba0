"""A daemon's file: which service, what is watched, how a candidate is brought in, and by which programs."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from autotuner.daemon.alerts import WebHook
from autotuner.daemon.hooks import Hooks
from autotuner.daemon.machine import Plan
from autotuner.daemon.promql import looks_back_s
from autotuner.daemon.sections import CanarySection, HooksSection, Seconds, Section, WatchSection
from autotuner.daemon.signals import ARM, CANDIDATE, STABLE, Arms, LoadSection, Signal, find_prompts
from autotuner.daemon.sources import Prometheus
from autotuner.daemon.watching import Pauses, Watch
from autotuner.daemon.world import Terms
from autotuner.errors import UsageError
from autotuner.metrics import goal
from autotuner.spec.draft import read
from autotuner.spec.expressions import Limit
from autotuner.spec.problems import explain
from autotuner.types import CanaryRules, Guard

_MOST_SHARED = 2  # windows over which a number may be taken: neighbours share half, which the judge's correlation meets


class ServiceSpec(Section):
    """The file."""

    # with a number behind it, it names the study of a cycle, of 64 characters at most
    service: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,55}$", description="Its name in the record.")
    study: Path = Field(description="The study file by which it is tuned.")
    target: str = Field("json", description="The exporter whose files a bundle consists of.")
    settings: tuple[str, ...] = Field((), description="Of the exporter: option=value.")
    prometheus: str | None = Field(None, description="URL of the server for all signals.")
    signals: Mapping[str, Signal] = Field(min_length=1)
    arms: Arms = Arms()
    load: LoadSection | None = Field(None, description="Requests of our own, of which signals and windows tell.")
    watch: WatchSection = WatchSection()
    canary: CanarySection
    hooks: HooksSection
    lease: Seconds = Field(30.0, description="So long after a daemon's last sign of life another one takes over.")
    keep_studies: int = Field(20, ge=1, description="Of the newest cycles; and as many that found something better.")
    approval: bool = Field(False, description="A person lets every canary begin.")
    dry_run: bool = Field(False, description="Everything is decided, nothing is put in place.")
    alert: tuple[str, ...] = Field((), description="A program that is given what somebody must know as its last word.")
    webhook: WebHook | None = Field(None, description="URL to which what somebody must know is posted as JSON.")
    http: int | None = Field(
        None, strict=True, ge=0, le=65535, description="Port on loopback to ask and steer it; 0: a free one."
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        judged, watch = {*self.canary.guards, self.aim.metric}, self.watch
        wanted = {*judged, *watch.drift, *watch.traffic, *(limit.metric for limit in self.levels)}
        if missing := sorted(wanted - self.signals.keys()):
            raise ValueError(f"signals: nothing tells {', '.join(missing)}")
        if relative := next((limit.text for limit in self.levels if limit.relative), None):
            raise ValueError(f"watch.slo: {relative}: nothing serves as baseline while watching: write a number")
        for name, signal in self.signals.items():
            self._readable(name, signal)
            if name in judged and not signal.tells_arms_apart:
                raise ValueError(f"canary: {name} is read at one place for both arms: write {ARM} where it is asked")
        if self.load is not None:
            self.arms.check(self.load.url)
            if self.canary.requests or self.canary.failures:
                raise ValueError("canary: under a load: the client itself counts: leave requests and failures out")
        self._countable()
        self._within_windows()
        return self

    def _countable(self) -> None:
        """Whether failing requests are counted, of each arm, where somebody wants them counted.

        Raises:
            ValueError: They would not be.
        """
        queries = {name: getattr(self.canary, name) for name in ("requests", "failures")}
        if not any(queries.values()):
            return
        for name, query in queries.items():
            if not query:
                raise ValueError(f"canary: requests and failures are counted together: say {name}: too")
            if ARM not in query:
                raise ValueError(f"canary.{name}: both arms would be counted together: write {ARM} where it is asked")
        if self.prometheus is None:
            raise ValueError("canary.requests: say where its Prometheus is: prometheus: http://…")

    def _within_windows(self) -> None:
        """Whether each number that a canary is judged by is one of its window.

        Raises:
            ValueError: Windows would share what they tell, or tell of the time before a change.
        """
        judged = {f"signals.{name}": self.signals[name].query for name in (self.aim.metric, *self.canary.guards)}
        for key, query in judged.items():
            back_s = self._back_s(key, query or "", _MOST_SHARED)
            if back_s > self.canary.window and self.canary.warm_up_windows < _MOST_SHARED:
                told = f"{key} looks back {back_s:g} s, over more than one window"
                raise ValueError(f"canary.warm_up_windows: at least {_MOST_SHARED} are needed: {told}")
        for name in ("requests", "failures"):  # over two windows each would be counted twice
            self._back_s(f"canary.{name}", getattr(self.canary, name), 1)

    def _back_s(self, key: str, query: str, most_windows: int) -> float:
        """How far a query looks back.

        Raises:
            ValueError: Nobody can tell, or too far.
        """
        try:
            back_s = max(looks_back_s(self.arms.fill(query, arm)) for arm in (STABLE, CANDIDATE))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        if back_s <= most_windows * self.canary.window:
            return back_s
        most = f"at most {'twice ' if most_windows > 1 else ''}canary.window, {most_windows * self.canary.window:g} s"
        mend = f"shorten its range, or say canary: {{window: {back_s / most_windows:g} s}}"
        raise ValueError(f"{key}: its query looks back {back_s:g} s: {most}, or windows share their numbers; {mend}")

    def _readable(self, name: str, signal: Signal) -> None:
        """Whether it is known where a signal is read, and which direction of it is better.

        Raises:
            ValueError: It is not.
        """
        try:
            if name not in self.watch.traffic or name in {*self.canary.guards, *self.watch.drift}:
                goal(name)  # but a change of traffic counts both ways, whatever it is called
            if signal.metrics is not None:
                self.arms.check(signal.metrics)
            if signal.load is not None and self.load is None:
                raise ValueError("say what our client sends, and where: load: {url: http://…}")
            if signal.load is not None and self.load is not None:
                self.load.check(signal.load)
            if signal.query is not None and signal.url is None and self.prometheus is None:
                raise ValueError("say where its Prometheus is: prometheus: http://…")
        except (UsageError, ValueError) as error:
            raise ValueError(f"signals.{name}: {error}") from None

    @property
    def levels(self) -> tuple[Limit, ...]:
        """The service level."""
        return tuple(Limit.parse(text) for text in self.watch.slo)

    @property
    def aim(self) -> Guard:
        """What a candidate must be better at."""
        metric = self.canary.maximize or self.canary.minimize
        assert metric is not None
        return Guard(metric, self.canary.maximize is not None, self.canary.margin)

    def counted(self, query: str, arm: str) -> Prometheus | None:
        """Where requests are counted; None where they are not."""
        return Prometheus(self.prometheus, self.arms.fill(query, arm)) if query and self.prometheus else None

    def terms(self) -> Terms:
        """For the keeper."""
        canary, watch = self.canary, self.watch
        rules = CanaryRules(canary.least_windows, canary.most_windows, failure_ratio=canary.failure_ratio)
        probation = CanaryRules(canary.least_windows, canary.probation_windows, failure_ratio=canary.failure_ratio)
        guards = tuple(Guard(name, self._rising(name), margin) for name, margin in canary.guards.items())
        return Terms(
            self.aim, guards, Plan(canary.percents, self.approval), rules, probation,
            Pauses(watch.cooldown, watch.per_day, watch.device_s_per_day, watch.quiet), self.lease, self.dry_run,
            self.levels, watch.breaches, canary.warm_up_windows, self.hooks.deadline,
        )  # fmt: skip

    def watching(self) -> Watch:
        """For the keeper."""
        watch = self.watch
        rising = [name for name in watch.drift if self._rising(name)]
        return Watch(self.levels, watch.drift, watch.breaches, watch.every, rising, watch.traffic)

    def _rising(self, name: str) -> bool:
        return self.signals[name].more_is_better(name)

    def webhook_url(self) -> str:
        """Where alerts are posted; empty for nowhere."""
        return self.webhook.get_secret_value() if self.webhook else ""

    def missing_program(self) -> str:
        """The first hook whose program is not there, or may not be run, in words; empty when all are."""
        programs = ((name, argv) for name, argv in self.hooks if isinstance(argv, tuple) and argv)
        missing = (
            f"hooks.{name}: there is no program {argv[0]}" for name, argv in programs if not shutil.which(argv[0])
        )
        return next(missing, "")

    def programs(self) -> Hooks:
        """For the keeper."""
        return Hooks(self.hooks.apply, self.hooks.observe, self.hooks.smoke, self.hooks.deadline)


def load_service(path: Path) -> ServiceSpec:
    """Read a daemon's file; paths in it start at its folder.

    Raises:
        UsageError: It does not describe a service; one line with the file, the line and the key.
    """
    draft = read(path)
    find_prompts(draft, path.parent)
    try:
        spec = ServiceSpec.model_validate(draft.data)
    except ValidationError as error:
        raise explain(error, ServiceSpec, draft.data, draft, ()) from None
    except UsageError as error:
        raise draft.error((), error.message, error.hint) from None
    study = path.parent / spec.study
    if not study.is_file():
        raise UsageError(draft.locate(("study",), f"there is no file {study}"))
    return spec.model_copy(update={"study": study})
