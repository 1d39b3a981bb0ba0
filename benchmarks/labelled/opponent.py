"""What others would have said of the same runs: the five thresholds of torch-tb-profiler 0.4.3, and a utilisation rule.

The thresholds are those of `torch_tb_profiler/profiler/data.py`, in the order in which it gives advice: DataLoader
over 5 % of a step, communication over 10 %, GPU utilisation under 50 %, tensor cores unused although eligible ones run,
peak device memory over 90 %. A step is divided among exclusive roles as its `overall_parser.py` does it: communication
before data loading before operators; on a GPU kernels come first.

Two readings are scored. "strict": what it would print. On a CPU its last three rules cannot fire. "generous": the same
rules with the CPU in the place of the GPU (utilisation: share of a step inside operators; tensor cores: products or
convolutions in float32; memory: resident set against the study's limit), and loads that it cannot see because they
bypass torch's profiler, such as a socket to a parameter server, count by what the workload itself says it waited for.
Its advice is mapped to the label that it comes closest to: low utilisation ("increase batch size") is `host_launch`,
unused tensor cores ("enable mixed precision") is `compute`. No advice at all is `unknown`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from autotuner.types import Binding

DATALOADER_RATIO, COMMUNICATION_RATIO, UTILISATION_RATIO, MEMORY_RATIO = 0.05, 0.1, 0.5, 0.9
BUSY_RATIO = 0.8  # of the cores: what people call busy

# Operators that could use tensor cores, as torch-tb-profiler lists them (forward ones).
ELIGIBLE = frozenset(
    "aten::" + name
    for name in (
        "_convolution", "conv1d", "conv2d", "conv3d", "convolution", "prelu", "addmm", "addmv", "addr", "matmul",
        "mm", "mv", "linear", "addbmm", "baddbmm", "bmm", "chain_matmul", "linalg_multi_dot", "lstm_cell", "gru_cell",
        "rnn_tanh_cell",
    )
)  # fmt: skip
COMMUNICATION = frozenset(
    f"{library}:{name}" for library in ("gloo", "nccl")
    for name in ("broadcast", "reduce", "all_reduce", "all_gather", "reduce_scatter")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profile:
    """What torch.profiler shows of a step, and what the other rules look at.

    Attributes:
        dataloader_ratio: Share of a step in a DataLoader's `__next__`, exclusive.
        communication_ratio: Share of a step in collectives, exclusive.
        utilisation_ratio: Share of a step in which a GPU runs a kernel; None without a GPU.
        eligible_ratio: Share of the kernels' time in operators that could use tensor cores, and do not; None without.
        memory_ratio: Peak device memory of what there is; None without a GPU.
        cpu_utilisation_ratio: Share of a step inside operators.
        cpu_eligible: Operators that could use tensor cores ran.
        cpu_memory_ratio: Peak resident set of the study's limit; 0 without one.
        waited_input_ratio: Share of a step that the workload itself says it waited for data.
        waited_communication_ratio: The same for other processes.
    """

    dataloader_ratio: float
    communication_ratio: float
    utilisation_ratio: float | None = None
    eligible_ratio: float | None = None
    memory_ratio: float | None = None
    cpu_utilisation_ratio: float = 0.0
    cpu_eligible: bool = False
    cpu_memory_ratio: float = 0.0
    waited_input_ratio: float = 0.0
    waited_communication_ratio: float = 0.0


def strict(profile: Profile) -> Binding:
    """The first advice that torch-tb-profiler prints."""
    if profile.dataloader_ratio > DATALOADER_RATIO:
        return Binding.INPUT
    if profile.communication_ratio > COMMUNICATION_RATIO:
        return Binding.COMMUNICATION
    if profile.utilisation_ratio is not None and profile.utilisation_ratio < UTILISATION_RATIO:
        return Binding.HOST_LAUNCH
    if profile.eligible_ratio is not None and profile.eligible_ratio > 0:
        return Binding.COMPUTE
    if profile.memory_ratio is not None and profile.memory_ratio > MEMORY_RATIO:
        return Binding.CAPACITY
    return Binding.UNKNOWN


def generous(profile: Profile) -> Binding:
    """The same rules with the CPU in the place of the GPU where there is none."""
    on_cpu = profile.utilisation_ratio is None
    return strict(
        Profile(
            max(profile.dataloader_ratio, profile.waited_input_ratio),
            max(profile.communication_ratio, profile.waited_communication_ratio),
            profile.cpu_utilisation_ratio if on_cpu else profile.utilisation_ratio,
            float(profile.cpu_eligible) if on_cpu else profile.eligible_ratio,
            profile.cpu_memory_ratio if on_cpu else max(profile.memory_ratio or 0.0, profile.cpu_memory_ratio),
        )
    )


def by_utilisation(busy_ratio: float) -> Binding:
    """The folk rule: a busy device computes, an idle one waits for its input."""
    return Binding.COMPUTE if busy_ratio >= BUSY_RATIO else Binding.INPUT


Ranges = list[tuple[float, float]]


def exclusive_ratios(roles: Mapping[str, Ranges], begin: float, end: float) -> dict[str, float]:
    """Shares of [begin, end] by role; where roles overlap the earlier one counts.

    >>> exclusive_ratios({"a": [(0, 4)], "b": [(2, 8)]}, 0, 10)
    {'a': 0.4, 'b': 0.4}
    """
    taken: Ranges = []
    shares = {}
    for role, ranges in roles.items():
        before = _length(taken)
        taken = _merged(
            taken + [(max(begin, low), min(end, high)) for low, high in ranges if low < end and high > begin]
        )
        shares[role] = (_length(taken) - before) / (end - begin)
    return shares


def _merged(ranges: Ranges) -> Ranges:
    merged: Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _length(ranges: Ranges) -> float:
    return sum(high - low for low, high in ranges)
