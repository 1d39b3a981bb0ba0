"""The front of a study with several objectives: the trials that no other trial beats in all of them."""

from collections.abc import Mapping, Sequence

from autotuner.types import Trial


def pareto_front(trials: Sequence[Trial], signs: Mapping[str, int]) -> list[Trial]:
    """The feasible trials that no feasible trial dominates: is at least as good in every objective, better in one.

    Args:
        trials: Of a study.
        signs: `{metric: 1 when larger is better, else -1}`, of every objective.

    Returns:
        By the first objective, best first; of equal ones the first that was measured.
    """
    measured = {
        trial.number: tuple(sign * trial.verdict.objectives[name] for name, sign in signs.items())
        for trial in trials
        if trial.verdict is not None and trial.verdict.feasible and signs.keys() <= trial.verdict.objectives.keys()
    }
    kept: list[tuple[float, ...]] = []
    front = []
    for trial in sorted((t for t in trials if t.number in measured), key=lambda t: measured[t.number], reverse=True):
        point = measured[trial.number]  # whoever dominates it comes before it in this order
        if not any(all(map(_at_least, other, point)) for other in kept):
            kept.append(point)
            front.append(trial)
    return front


def _at_least(value: float, other: float) -> bool:
    return value >= other
