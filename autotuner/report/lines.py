"""The listener for pipes and logs: one line an event, no colour."""

import math
from typing import TextIO

from autotuner.events import (
    Event,
    Listener,
    Note,
    PairMeasured,
    StageStarted,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)
from autotuner.report.text import (
    bounds,
    describe,
    factor,
    failure_text,
    gain,
    one_line,
    percent,
    plural,
    print_value,
    shorten,
    value_of,
    violation,
)
from autotuner.types import Failure, Origin

_EVERY_PAIRS = 5
_MESSAGE_WIDTH = 240  # long enough for what to do; what a library adds to its own message may be without end


def write_lines(stream: TextIO) -> Listener:
    """A listener that writes one line a trial to `stream`, and one for every fifth pair of a verification."""
    printer = _Lines()

    def listen(event: Event) -> None:
        for line in printer.lines(event):
            stream.write(line + "\n")
        stream.flush()

    return listen


class _Lines:
    """Remembers the study and its baseline, to say factors."""

    def __init__(self) -> None:
        self.study: StudyStarted | None = None
        self.baseline_value = math.nan

    def lines(self, event: Event) -> list[str]:
        """The lines that an event is worth."""
        match event:
            case StudyStarted():
                self.study, self.baseline_value = event, event.baseline_value
                return _introduce(event)
            case TrialEnded():
                return [self._trial(event)]
            case StageStarted(stage="bench"):
                return [f"bench: {one_line(event.text)}"]
            case StageStarted():
                return [f"verify, {event.stage}: {one_line(event.text)}"]
            case PairMeasured(count=count) if count % _EVERY_PAIRS == 0:
                interval = bounds(event.gain_interval)
                return [f"pair {count}: gain {factor(event.gain_ratio)} {interval}".rstrip()]
            case Note():
                return [f"note: {one_line(event.text)}"]
            case PairMeasured() | TrialStarted() | StudyEnded():
                return []

    def _trial(self, event: TrialEnded) -> str:
        trial, what = event.trial, describe(event.changed)
        if isinstance(trial.outcome, Failure):
            return f"trial {trial.number}: failed, {shorten(failure_text(trial.outcome), _MESSAGE_WIDTH)}: {what}"
        assert self.study is not None, "a study starts before its trials"
        assert trial.verdict is not None
        value = value_of(trial, self.study.metric)
        if trial.origin is Origin.BASELINE:
            self.baseline_value = value
        parts = [print_value(self.study.metric, value)]
        if trial.verdict.precision_ratio > 0:
            known = math.isfinite(trial.verdict.precision_ratio)
            parts[0] += f" ±{percent(trial.verdict.precision_ratio)}" if known else " (how precisely is not known)"
        times = gain(value, self.baseline_value, self.study.maximize)
        if trial.origin is not Origin.BASELINE and math.isfinite(times):
            parts.append(factor(times))
        if trial.outcome.contended:
            parts.append("the machine was busy with something else")
        if not trial.verdict.feasible:
            parts.append(violation(trial.verdict))
        elif event.best == trial.number and trial.origin is not Origin.BASELINE:
            parts.append("best so far")
        return f"trial {trial.number}: {', '.join(parts)}: {what}"


def introduce(study: StudyStarted) -> str:
    """`maximize throughput_tokens_per_s; 6 parameters, 288 configurations, at most 30 trials`."""
    direction = "maximize" if study.maximize else "minimize"
    size = "" if study.legal_size is None else f", {plural(study.legal_size, 'configuration')}"
    return f"{direction} {study.metric}; {plural(study.parameters, 'parameter')}{size}"


def _introduce(study: StudyStarted) -> list[str]:
    kept = f", {study.kept_trials} kept" if study.kept_trials else ""
    budget = f", at most {plural(study.max_trials, 'trial')}{kept}"
    return [f"study {study.name}: {introduce(study)}{budget}", f"machine: {one_line(study.machine)}"]
