"""Which numbers of the two arms a verification shows besides the one that it compares."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from autotuner.metrics import SCORE, metric, value_of
from autotuner.spec.model import StudySpec
from autotuner.types import Metrics
from autotuner.verify.limits import percentile_is_claimable

REPORTED = (  # besides objectives and limits
    "goodput_requests_per_s", "slo_attainment_ratio", "latency_p50_s", "latency_p95_s", "ttft_p50_s", "ttft_p95_s",
    "tpot_p50_s", "input_wait_ratio", "exposed_communication_ratio", "energy_per_sample_j", "energy_per_token_j",
    "cost_per_million_tokens", "top1_accuracy_ratio", "top5_accuracy_ratio", "error_ratio", "peak_memory_bytes",
    "setup_s",
)  # fmt: skip


Samples: TypeAlias = Mapping[str, Sequence[float]]


def reported(spec: StudySpec, samples: Samples, baseline: Samples) -> Metrics:
    """Values of one arm; a percentile only when its requests are enough to claim it.

    Args:
        spec: The study.
        samples: Of the arm.
        baseline: Of the baseline, whose score is 1 where several objectives make one.
    """
    goal = spec.objective
    score = {SCORE: goal.value(samples) / goal.value(baseline)} if len(goal.objectives) > 1 and samples else {}
    names = dict.fromkeys([*spec.objective.metrics, *(limit.metric for limit in spec.limits), *REPORTED])
    return score | {name: value_of(name, samples) for name in names if _is_reportable(name, samples)}


def _is_reportable(name: str, samples: Samples) -> bool:
    row = metric(name)
    raw = samples.get(row.samples, ())
    if row.reduction in ("p95", "p99"):
        return percentile_is_claimable(raw, int(row.reduction[1:]) / 100)
    return bool(raw)
