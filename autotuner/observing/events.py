"""A study's events as metrics, log records and attributes of the current span."""

import json
import logging
import math
import time

from autotuner import telemetry
from autotuner.events import Event, Listener, Note, PairMeasured, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from autotuner.observing.workers import outcome_label
from autotuner.telemetry import Attributes
from autotuner.types import Failure, Trial


def observed(listener: Listener) -> Listener:
    """A listener that tells telemetry of every event, and then `listener`."""
    study = _Study()

    def listen(event: Event) -> None:
        study.observe(event)
        listener(event)

    return listen


class _Study:
    """Maps the events of one study to metrics, log records and attributes of the current span."""

    def __init__(self) -> None:
        self._about: Attributes = {}
        self._began_s = math.nan

    def observe(self, event: Event) -> None:
        """The only place where events become telemetry."""
        match event:
            case StudyStarted():
                self._about = {"autotune.study": event.name}
                telemetry.annotate({"autotune.metric": event.metric, "autotune.kept_trials": event.kept_trials})
            case TrialStarted():
                self._began_s = time.monotonic()
            case TrialEnded():
                self._trial(event, time.monotonic() - self._began_s)
            case PairMeasured():
                about = {**self._about, "autotune.stage": event.stage}
                contended = {"autotune.contended": event.pair.contended}
                telemetry.count("autotune.verification.pairs", 1, {**about, **contended}, "{pair}")
                _gain("autotune.verification.gain", event.gain_ratio, event.gain_interval, about)
            case Note():
                telemetry.log(event.text, self._about, logging.WARNING)
            case StudyEnded():
                self._end(event)
            case _:
                pass

    def _trial(self, event: TrialEnded, duration_s: float) -> None:
        trial, verdict = event.trial, event.trial.verdict
        outcome: Attributes = {**self._about, "autotune.outcome": outcome_label(trial.outcome)}
        kind: Attributes = {
            "autotune.origin": str(trial.origin),
            "autotune.binding": str(verdict.diagnosis.binding) if verdict else None,
        }
        telemetry.count("autotune.trials", 1, {**outcome, **kind}, "{trial}")
        telemetry.observe("autotune.trial.duration", duration_s, "s", outcome)
        telemetry.gauge("autotune.study.elapsed", event.elapsed_s, "s", self._about)
        for metric, value in (verdict.objectives if verdict else {}).items():
            about = {**self._about, "autotune.metric": metric}
            telemetry.gauge("autotune.trial.objective", value, "", about)
            if event.best == trial.number:
                telemetry.gauge("autotune.study.best", value, "", about)
        details = {**outcome, **kind, **_details(trial), "autotune.changed": json.dumps(dict(event.changed))}
        telemetry.annotate(details)
        failed = isinstance(trial.outcome, Failure)
        telemetry.log(
            f"trial {trial.number}: {outcome_label(trial.outcome)}",
            details,
            logging.WARNING if failed else logging.INFO,
        )

    def _end(self, event: StudyEnded) -> None:
        summary, decision = event.summary, {"autotune.decision": str(event.summary.decision)}
        telemetry.count("autotune.studies", 1, decision, "{study}")
        if found := summary.verification:
            _gain("autotune.study.gain", found.gain_ratio, found.gain_interval, {**self._about, **decision})
        for phase, seconds in summary.phases_s.items():
            telemetry.gauge("autotune.study.phase.duration", seconds, "s", {**self._about, "autotune.phase": phase})
        telemetry.annotate(decision)
        telemetry.log(f"{summary.decision}: {summary.reason}", {**self._about, **decision})


def _details(trial: Trial) -> Attributes:
    """Of a trial, for its span and log record: too many values for a metric."""
    details: dict[str, telemetry.AttributeValue] = {"autotune.trial": trial.number}
    if isinstance(trial.outcome, Failure):
        return {**details, "autotune.log": trial.outcome.log_path}  # the message may hold anything
    if trial.verdict:
        details |= {f"autotune.objective.{name}": value for name, value in trial.verdict.objectives.items()}
        details |= {
            "autotune.feasible": trial.verdict.feasible,
            "autotune.ceiling": trial.verdict.diagnosis.ceiling_ratio,
        }
    return details


def _gain(name: str, ratio: float, interval: tuple[float, float], about: Attributes) -> None:
    """A factor and its 95 % interval, once there is one."""
    bounds = {"estimate": ratio} | (dict(zip(("low", "high"), interval, strict=True)) if interval[1] < math.inf else {})
    for bound, value in bounds.items():
        telemetry.gauge(name, value, "1", {**about, "autotune.bound": bound})
