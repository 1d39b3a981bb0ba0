"""When nothing is left to look for: the winner stands at the machine's limit, or little is expected of the rest."""

import math
from collections.abc import Sequence

import numpy as np

from autotuner.adjust.expectation import believed_scores
from autotuner.adjust.promise import expected_gain
from autotuner.adjust.pruning import worth_trying
from autotuner.adjust.scores import best_trial, evidence
from autotuner.adjust.space import Space
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Trial

AT_CEILING_RATIO = 0.9
_MISCOUNTED_RATIO = 1.1  # more than the machine can do: the count is wrong, and nothing may be concluded
LITTLE_RATIO = 0.005  # of the best: what is not worth another trial
_LITTLE_FOR = 4  # trials in a row
_FEWEST_TRIALS = 15  # before a model may say that it knows enough
_MOST_ROWS = 20_000  # larger spaces would take longer to ask about than is saved


def at_ceiling(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> str:
    """Why the search may end early, in words; empty while something could still be faster.

    The objective must be a rate of work. The leading trial must stand at the measured limit of arithmetic or memory,
    confirmed by a probe, and every single change of a parameter that may act on that resource must have been tried
    from there.
    """
    best = best_trial(spec, trials)
    if best is None or best.verdict is None or not is_rate(spec):
        return ""
    found = best.verdict.diagnosis
    share = found.ceiling_ratio or 0.0
    bounded = found.binding in (Binding.COMPUTE, Binding.MEMORY_BANDWIDTH) and found.confirmed
    if not bounded or not AT_CEILING_RATIO <= share <= _MISCOUNTED_RATIO:
        return ""
    moves = [space.move(best.config, name, v) for name in found.try_next for v in spec.parameters[name].values]
    rows = space.matrix(space.encode(move) for move in moves if move is not None)
    if worth_trying(space, trials, rows).any():
        return ""
    resource = found.binding.replace("_", " ")
    return f"trial {best.number} stands at {share:.0%} of this machine's {resource}, and nothing left needs less of it"


def is_rate(spec: StudySpec) -> bool:
    """Whether the objective is work by time: a diagnosis says what binds a step, not what a request waits for."""
    return spec.objective.metric.startswith("throughput_")


def little_expected(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> str:
    """Why the search may end early, in words; empty while the model still expects something.

    Four trials in a row, all trials that are left may not have promised more than half a percent together. What the
    model could not explain of the trials counts as chance of a gain: where neighbours differ for reasons that it does
    not see, it hardly ever says so. It is an expectation, and no claim that the best was found.
    """
    if spec.strategy != "gp" or space.rows is None or len(space.rows) > _MOST_ROWS:
        return ""
    left = int(worth_trying(space, trials, space.rows).sum())
    if len(trials) < _FEWEST_TRIALS + _LITTLE_FOR - 1 or left <= spec.budget.trials - len(trials):
        return ""  # too early, or all of it can be tried
    most = 0.0
    for count in range(len(trials), len(trials) - _LITTLE_FOR, -1):
        most = max(most, _expected_of_all(spec, space, trials[:count]))
        if most > LITTLE_RATIO:
            return ""
    return f"the model expects no more than {math.expm1(most):.1%} of all trials that are left"


def _expected_of_all(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> float:
    """The sum of what the most promising configurations are expected to gain, as many as may still be tried.

    As a logarithm; infinite where it cannot be told. More they cannot gain together, if the model is right.
    """
    assert space.rows is not None
    seen, rows = evidence(spec, space, trials), space.rows[worth_trying(space, trials, space.rows)]
    if not len(rows):
        return 0.0
    if not seen.are_logs or not seen.feasible.any():
        return math.inf
    gains = expected_gain(space.shape, seen, rows, *believed_scores(spec, space, trials, seen.rows, rows))
    return float(np.sort(gains)[max(0, len(gains) - spec.budget.trials + len(trials)) :].sum())
