"""Putting in place what is wanted: once, for there is a way back; but the way back itself until it is late."""

import logging
from collections.abc import Callable
from datetime import timedelta

from autotuner.daemon.hooks import HookError
from autotuner.daemon.leading import Leadership
from autotuner.daemon.world import World
from autotuner.types import Phase, ServiceState

logger = logging.getLogger(__name__)
_PAUSE_S = 2.0


def put_back_or_forward(
    world: World, lease: Leadership, state: ServiceState, stop: Callable[[], bool], back_s: float
) -> bool:
    """Put in place what a state wants; whether it is there: not, when something else is to be done first.

    Args:
        world: Whose hooks do it.
        lease: Of the daemon.
        state: Rolling back, a failure is no answer until it is late: what failed once may be well in a moment.
        stop: Whether to stop trying, for a person has said something or another daemon leads.
        back_s: So long the way back is tried, from when this daemon began to.

    Raises:
        HookError: It failed; on the way back the last time that it was tried, or there is no use in trying again.
        LeaseLostError: Another daemon leads.
    """
    ends = world.clock() + timedelta(seconds=back_s)
    again = int(back_s / _PAUSE_S) if state.phase is Phase.ROLLING_BACK else 0  # whatever the clock is set to
    while True:
        try:
            world.place(state.wanted, lease.token)
        except HookError as error:
            if not again or world.clock() + timedelta(seconds=_PAUSE_S) > ends or world.damage(state.wanted.stable):
                raise
            logger.warning("the way back failed, and is tried again: %s", error)
        else:
            return True
        again -= 1
        world.pause(_PAUSE_S)
        if stop():
            return False
        lease.check()  # it may have slept
