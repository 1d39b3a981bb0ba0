"""What the diagnosis of the leading trial says about where to look."""

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.adjust.ending import is_rate
from autotuner.adjust.scores import best_trial
from autotuner.spec.model import StudySpec
from autotuner.types import Binding, Trial


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
    return Hints(diagnosis.binding, diagnosis.try_next, diagnosis.cannot_help if is_rate(spec) else ())
