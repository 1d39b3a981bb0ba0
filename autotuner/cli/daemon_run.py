"""`autotune daemon run`."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotuner.cli.exits import say
from autotuner.cli.interruption import interruptible
from autotuner.cli.options import Db

if TYPE_CHECKING:
    from autotuner.daemon.keeper import Keeper
    from autotuner.daemon.pulse import Pulse
    from autotuner.daemon.spec import ServiceSpec
    from autotuner.types import ServiceState

_PATIENCE_S = 5.0  # between two turns that wait for something outside
_LISTEN_S = 1.0  # between two looks at what a person says


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The daemon's: a YAML file.", show_default=False)],
    once: Annotated[bool, typer.Option("--once", help="One turn, for cron.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Answer programs here, on loopback; 0: a free port.", show_default=False),
    ] = None,
    db: Db = None,
) -> None:
    """Keep a service tuned: watch it, tune again, prove beside it, promote, take back.

    Everything is in the record: stopped or killed anywhere, the next one goes on. Ends with 0 when it is stopped.
    """
    try:
        with interruptible():
            _keep(file, once, port, db)
    except KeyboardInterrupt:
        say("stopped; the next one goes on where this one was")


def _keep(file: Path, once: bool, port: int | None, db: str | None) -> None:
    from autotuner import telemetry
    from autotuner.daemon.pulse import Pulse, patience_of
    from autotuner.daemon.service import opened
    from autotuner.daemon.spec import load_service
    from autotuner.errors import MachineError, UsageError

    spec = load_service(file)
    if missing := spec.missing_program():
        raise UsageError(f"{file}: {missing}", "a path starts at the folder in which the daemon is started")
    pulse = Pulse(patience_of(spec))
    with telemetry.session(), opened(spec, db, pulse.move) as service, _answering(spec, port, once, db, pulse):
        keeper, before = service.keeper(), ""
        try:
            while True:
                told, pause_s = _turned(keeper, spec, once, pulse.beat)
                if told != before:
                    say(told)
                    before = told
                if once:
                    return
                _wait(pause_s, keeper.attend)
        finally:
            with suppress(MachineError):  # the lease lapses by itself
                keeper.leave()


@contextmanager
def _answering(spec: "ServiceSpec", port: int | None, once: bool, db: str | None, pulse: "Pulse") -> Iterator[None]:
    """Answer over HTTP where somebody wants it."""
    from autotuner.errors import UsageError

    if once and port is not None:
        raise UsageError("--once does one turn and answers nobody", "leave --port out")
    wanted = spec.http if port is None else port
    if once or wanted is None:
        yield
        return
    from autotuner.daemon.http_api import serving

    with serving(spec.service, db, wanted, pulse) as (address, token):
        say(f"over HTTP: {address} with the token in {token}")
        yield


def _turned(keeper: "Keeper", spec: "ServiceSpec", once: bool, beat: Callable[[str], None]) -> tuple[str, float]:
    """One turn: what to say of it, and how long to wait.

    Raises:
        AutotuneError: There is to be no other turn.
        OSError: Likewise.
    """
    from autotuner.errors import AutotuneError

    try:
        state = keeper.turn()
    except (AutotuneError, OSError) as error:  # a record that is locked, a full disk, a file that is being written
        if once:
            raise
        message = error.message if isinstance(error, AutotuneError) else str(error)
        beat(message)
        return f"{message}: trying again", _PATIENCE_S
    beat("")
    return _told(state), _pause_s(state, spec)


def _told(state: "ServiceState | None") -> str:
    if state is None:
        return "another daemon leads: waiting"
    from autotuner.daemon.words import NEXT

    place = "" if state.reached else " (not in place yet)"
    after = f"; {NEXT[state.phase]}" if state.phase in NEXT else ""
    return f"{state.phase}: {state.reason}{place}{after}"


def _wait(seconds: float, attend: Callable[[], bool]) -> None:
    """Until the time has passed, or a person says something."""
    from autotuner.errors import MachineError

    ends_s = time.monotonic() + seconds
    while (left_s := ends_s - time.monotonic()) > 0:
        time.sleep(min(_LISTEN_S, left_s))
        with suppress(MachineError):  # the next turn says it
            if attend():
                return


def _pause_s(state: "ServiceState | None", spec: "ServiceSpec") -> float:
    from autotuner.types import Phase

    if state is None or state.phase in (Phase.APPROVAL, Phase.ALARM):
        return min(_PATIENCE_S, spec.watch.interval)
    watches = state.phase is Phase.WATCHING and (state.reached or spec.dry_run)
    return spec.watch.interval if watches else 0.0
