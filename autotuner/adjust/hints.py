"""What the diagnosis of the leading trial says about where to look, and when there is nothing left to look for."""

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.adjust.pruning import worth_trying
from autotuner.adjust.scores import best_trial
from autotuner.adjust.space import Space
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Trial

AT_CEILING_RATIO = 0.9
_MISCOUNTED_RATIO = 1.1  # more than the machine can do: the count is wrong, and nothing may be concluded


@dataclass(frozen=True, slots=True)
class Hints:
    """Parameters in the order in which they are worth moving.

    Attributes:
        binding: What binds the leading trial.
        first: Parameters that act on it.
        last: Parameters that are known to act on other things only. Put off, never excluded: a diagnosis can be wrong.
    """

    binding: Binding
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    def rank(self, name: str) -> int:
        """0 for what acts on the bound resource, 2 for what cannot help, 1 for the rest."""
        return 0 if name in self.first else 2 if name in self.last else 1


def hints(spec: StudySpec, trials: Sequence[Trial]) -> Hints:
    """From the diagnosis of the leading trial; nothing to prefer while it is unknown."""
    best = best_trial(spec, trials)
    if best is None or best.verdict is None:
        return Hints(Binding.UNKNOWN)
    diagnosis = best.verdict.diagnosis
    return Hints(diagnosis.binding, diagnosis.try_next, diagnosis.cannot_help if _is_rate(spec) else ())


def _is_rate(spec: StudySpec) -> bool:
    """Whether the objective is work by time: a diagnosis says what binds a step, not what a request waits for."""
    return spec.objective.metric.startswith("throughput_")


def at_ceiling(spec: StudySpec, space: Space, trials: Sequence[Trial]) -> str:
    """Why the search may end early, in words; empty while something could still be faster.

    The objective must be a rate of work. The leading trial must stand at the measured limit of arithmetic or memory,
    confirmed by a probe, and every single change of a parameter that may act on that resource must have been tried
    from there.
    """
    best = best_trial(spec, trials)
    if best is None or best.verdict is None or not _is_rate(spec):
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
