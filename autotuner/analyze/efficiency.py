"""How well a trial uses what it was given: its share of the matrix products' ceiling, and what more processes bring."""

from collections.abc import Sequence

from autotuner.analyze.judge import all_values
from autotuner.analyze.scaling import scaling
from autotuner.spec.model import StudySpec
from autotuner.types import Ceilings, Measurement, Metrics, Trial


def efficiency(spec: StudySpec, trial: Trial, trials: Sequence[Trial], ceilings: Ceilings | None) -> Metrics:
    """Numbers to stand beside a diagnosis.

    Args:
        spec: The study.
        trial: What was measured.
        trials: The record before it.
        ceilings: Of this machine.

    Returns:
        `mfu_ratio` where it is known; of several processes `ranks`, and `scaling_efficiency_ratio` where the same on
        one was measured before.
    """
    assert isinstance(trial.outcome, Measurement), trial
    found: dict[str, float] = {}
    ranks = spec.workload.ranks(trial.config)
    mfu_ratio = all_values(trial.outcome, ceilings).get("mfu_ratio")
    if mfu_ratio is not None:  # of rank 0: a GPU's ceiling is one GPU's, a CPU's is that of all cores together
        found["mfu_ratio"] = mfu_ratio * ranks if spec.device == "cpu" else mfu_ratio
    if ranks > 1:
        found["ranks"] = float(ranks)
        for row in scaling(spec, [*trials, trial]):
            if row.trial == trial.number:
                found["scaling_efficiency_ratio"] = row.scaling_efficiency_ratio
    return found
