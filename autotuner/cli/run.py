"""A study as the command line runs it: somebody watches, Ctrl-C and SIGTERM end it cleanly, the result is printed."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import typer

from autotuner.cli.exits import report_error, say
from autotuner.cli.interruption import interruptible
from autotuner.errors import AutotuneError

if TYPE_CHECKING:  # both are cheap, but `autotune --help` needs neither
    from autotuner.events import Event, Listener, StudySummary


def run(
    call: "Callable[[Listener], StudySummary]", db: str | None, as_json: bool, again: str = "resume"
) -> "StudySummary":
    """Run a study in the foreground and print how it ended.

    Args:
        call: Runs it, telling the listener that it is given.
        db: The record if the user named one, to be repeated in the commands that are suggested.
        as_json: Events to stderr as lines of JSON, the result to stdout as one object.
        again: The command of `autotune study` that takes up what was cut off.

    Raises:
        typer.Exit: With 130 when it was interrupted; what was measured is kept.
        AutotuneError: The call's own; when the study was under way, after a line that says how to go on.
    """
    watch = _Watch(again, db)
    try:
        with interruptible(), _listener(as_json) as listener:
            ended = call(watch.through(listener))
    except KeyboardInterrupt:
        raise typer.Exit(_interrupted(watch, as_json)) from None
    except AutotuneError:
        if watch.name:
            say(f"stopped: {watch.kept_text}. {again.capitalize()}: {watch.command}")
        raise
    _print(ended, db, as_json)
    return ended


class _Watch:
    """Counts what is kept, for the words at an interruption, and goes on when nobody reads any more."""

    def __init__(self, again: str, db: str | None) -> None:
        self.again, self.db = again, db
        self.name = ""
        self.kept = 0

    def through(self, listener: "Listener") -> "Listener":
        """`listener`, watched. A closed pipe or terminal, or a full disk, must not end a study: it falls silent."""
        from autotuner.events import StudyStarted, TrialEnded, ignore

        current = listener

        def listen(event: "Event") -> None:
            nonlocal current
            match event:
                case StudyStarted():
                    self.name, self.kept = event.name, event.kept_trials
                case TrialEnded():
                    self.kept += 1
                case _:
                    pass
            try:
                current(event)
            except OSError:
                current = ignore

        return listen

    @property
    def kept_text(self) -> str:
        """`3 trials kept`."""
        from autotuner.report.text import plural

        return f"{plural(self.kept, 'trial')} kept"

    @property
    def command(self) -> str:
        """What to type to go on."""
        from autotuner.report.sentences import resume_command

        return resume_command(self.name, self.db, self.again)


def _listener(as_json: bool) -> "AbstractContextManager[Listener]":
    """Progress goes to stderr, so that stdout holds the result alone."""
    from autotuner.report.json_lines import write_json_lines
    from autotuner.report.lines import write_lines
    from autotuner.report.live import can_animate, watch_live

    if as_json:
        return nullcontext(write_json_lines(sys.stderr))
    return watch_live(sys.stderr) if can_animate(sys.stderr) else nullcontext(write_lines(sys.stderr))


def _print(ended: "StudySummary", db: str | None, as_json: bool) -> None:
    from autotuner.report.json_lines import dump, summary_json
    from autotuner.report.terminal import show, summary

    if as_json:
        print(dump(summary_json(ended), indent=2))
    else:
        show(summary(ended, db))


def _interrupted(watch: _Watch, as_json: bool) -> int:
    if not watch.name:
        return report_error("interrupted before anything was measured", "", 130, as_json)
    if as_json:
        from autotuner.report.json_lines import dump

        print(dump({"error": f"interrupted: {watch.kept_text}", "hint": watch.command, "exit_code": 130}))
    say(f"interrupted: {watch.kept_text}. {watch.again.capitalize()}: {watch.command}")
    return 130


def exit_code(ended: "StudySummary") -> int:
    """0 when the study gave an answer, SAME included; 1 when every trial failed."""
    from autotuner.report.sentences import every_trial_failed

    return 1 if every_trial_failed(ended) else 0
