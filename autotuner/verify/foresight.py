"""How long comparisons will take, by what the search has seen: what comes first must leave enough for the contest."""

import math
from collections.abc import Callable, Iterable, Sequence

from autotuner.jobs import MIN_WINDOW_BLOCKS
from autotuner.types import Measurement, MeasurementProtocol, Trial
from autotuner.verify.contest import MIN_LAUNCHES

_PAIRS_PER_LAUNCH = 2


def opening_s(trials: Iterable[Trial], seen: Sequence[Trial]) -> float:
    """Seconds to open and warm up some trials in fresh processes.

    A trial that found its workload open says nothing of that: it counts as the slowest opening of the search.

    Args:
        trials: To open, all measured.
        seen: Of the search.
    """
    fresh_s = {trial.number: _ready_s(trial) for trial in seen if _is_fresh(trial)}
    slowest_s = max(fresh_s.values(), default=0.0)
    return sum(fresh_s.get(trial.number, slowest_s) for trial in trials)


def contest_s(protocol: MeasurementProtocol, leader: Trial, seen: Sequence[Trial]) -> float:
    """Seconds that the fewest launches and pairs of a contest between a trial and the baseline, trial 0, will take."""
    return MIN_LAUNCHES * comparison_s(protocol, (leader, seen[0]), seen, _PAIRS_PER_LAUNCH)


def comparison_s(protocol: MeasurementProtocol, arms: Sequence[Trial], seen: Sequence[Trial], rounds: int) -> float:
    """Seconds of one launch in which each of some trials is opened, and measured so many times."""
    return opening_s(arms, seen) + rounds * sum(_window_s(protocol, trial) for trial in arms)


def share_of(deadline: Callable[[], float], share: float, reserve_s: float) -> Callable[[], float]:
    """A deadline after `share` of the time that is left now; earlier where `reserve_s` is needed of what remains."""
    left_s = deadline()
    kept_s = max((1 - share) * left_s, reserve_s) if math.isfinite(left_s) else 0.0
    return lambda: deadline() - kept_s


def _is_fresh(trial: Trial) -> bool:
    return isinstance(trial.outcome, Measurement) and not trial.outcome.reused


def _ready_s(trial: Trial) -> float:
    assert isinstance(trial.outcome, Measurement), trial
    compared_s = sum(trial.outcome.samples.get("outputs_s", ()))
    return trial.outcome.setup_s + trial.outcome.warmup_s + compared_s


def _window_s(protocol: MeasurementProtocol, trial: Trial) -> float:
    assert isinstance(trial.outcome, Measurement), trial
    blocks = len(trial.outcome.samples.get("block_step_s", ()))  # of whole cycles, which may be many steps
    block_s = max(protocol.block_s, trial.outcome.duration_s / max(1, blocks))
    wanted_s = max(protocol.min_measure_s, max(MIN_WINDOW_BLOCKS, protocol.min_blocks) * block_s)
    return max(block_s, min(wanted_s, protocol.max_measure_s)) + block_s / 2
