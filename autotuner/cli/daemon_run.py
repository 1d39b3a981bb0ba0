"""`autotune daemon run`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.exits import say
from autotuner.cli.interruption import interruptible
from autotuner.cli.options import Db

if TYPE_CHECKING:
    from autotuner.types import ServiceState

_PATIENCE_S = 5.0  # between two turns that wait for something outside
_LISTEN_S = 1.0  # between two looks at what a person says


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The daemon's: a YAML file.", show_default=False)],
    once: Annotated[bool, typer.Option("--once", help="One turn, for cron.")] = False,
    db: Db = None,
) -> None:
    """Keep a service tuned: watch it, tune again, prove beside it, promote, take back.

    Everything is in the record: stopped or killed anywhere, the next one goes on. Ends with 0 when it is stopped.
    """
    try:
        with interruptible():
            _keep(file, once, db)
    except KeyboardInterrupt:
        say("stopped; the next one goes on where this one was")


def _keep(file: Path, once: bool, db: str | None) -> None:
    from autotuner import telemetry
    from autotuner.daemon.service import opened
    from autotuner.daemon.spec import load_service

    spec = load_service(file)
    with telemetry.session(), opened(spec, db) as service:
        keeper, before = service.keeper(), ""
        try:
            while True:
                state = keeper.turn()
                told = _told(state)
                if told != before:
                    say(told)
                    before = told
                if once:
                    return
                _wait(_pause_s(state, spec.watch.interval), keeper.is_called)
        finally:
            keeper.leave()


def _told(state: "ServiceState | None") -> str:
    if state is None:
        return "another daemon leads: waiting"
    place = "" if state.reached else ", to be put in place"
    return f"{state.phase}: {state.reason}{place}"


def _wait(seconds: float, is_called: Callable[[], bool]) -> None:
    """Until the time has passed, or a person says something."""
    ends_s = time.monotonic() + seconds
    while (left_s := ends_s - time.monotonic()) > 0:
        time.sleep(min(_LISTEN_S, left_s))
        if is_called():
            return


def _pause_s(state: "ServiceState | None", interval_s: float) -> float:
    from autotuner.types import Phase

    if state is None or state.phase in (Phase.APPROVAL, Phase.ALARM):
        return min(_PATIENCE_S, interval_s)
    return interval_s if state.phase is Phase.WATCHING and state.reached else 0.0
