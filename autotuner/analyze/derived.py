"""Metrics that follow from others: shares of the steps' time, use of the arithmetic units, energy for a piece of work.

Whoever looks at `judge.all_samples` sees them like any other samples. What cannot be known is left out.
"""

import math
from collections.abc import Mapping, Sequence

from autotuner.analyze.roofline import IMPOSSIBLE_RATIO
from autotuner.types import Ceilings, Metrics

Samples = Mapping[str, Sequence[float]]

_SHARES = {"input_wait_ratio": "input_wait_s", "exposed_communication_ratio": "communication_s"}
_RATES = {"energy_per_sample_j": "throughput_samples_per_s", "energy_per_token_j": "throughput_tokens_per_s"}
_FLOPS = "step_flops_"


def derive(samples: Samples, signals: Metrics, ceilings: Ceilings | None) -> dict[str, tuple[float, ...]]:
    """Samples by the names of the table of metrics; a share has one for a window, the others one for a block.

    Args:
        samples: Of one window: `latency_s` of every step and its `input_wait_s` and `communication_s`,
            `block_step_s`, rates by block, `power_w`.
        signals: Of the same window: `step_flops_<dtype>`, as the worker counted them.
        ceilings: Of this machine; None leaves `mfu_ratio` out.
    """
    found = {name: _share(samples.get(part, ()), samples.get("latency_s", ())) for name, part in _SHARES.items()}
    found |= {name: _energy_j(samples.get("power_w", ()), samples.get(rate, ())) for name, rate in _RATES.items()}
    found["mfu_ratio"] = _mfu(samples.get("block_step_s", ()), signals, ceilings) if ceilings else ()
    return {name: values for name, values in found.items() if values}


def _share(part_s: Sequence[float], step_s: Sequence[float]) -> tuple[float, ...]:
    """Sums and not a mean of ratios: a loader with workers makes one step wait for all."""
    whole_s = math.fsum(step_s)
    return (math.fsum(part_s) / whole_s,) if part_s and whole_s > 0 else ()


def _energy_j(power_w: Sequence[float], rates_per_s: Sequence[float]) -> tuple[float, ...]:
    """Mean power times the time of one piece of work, block by block."""
    if not power_w or not rates_per_s or min(rates_per_s) <= 0:
        return ()
    mean_w = math.fsum(power_w) / len(power_w)
    return tuple(mean_w / rate for rate in rates_per_s)


def _mfu(block_step_s: Sequence[float], signals: Metrics, ceilings: Ceilings) -> tuple[float, ...]:
    """Chowdhery et al. 2022, "PaLM", appendix B, with a measured ceiling in the place of the data sheet's peak.

    The time that matrix products need at their formats' ceilings, over the time of a step. FLOPs are counted while the
    step runs, so that what activation checkpointing computes again counts too; PaLM calls that hardware FLOPs
    utilisation. Nothing is claimed where a format's ceiling is missing or was disturbed, nor where a step was faster
    than the ceilings allow: its products then ran in another format than their tensors', as tf32 does.
    """
    needed_s = _needed_s(signals, ceilings)
    ratios = tuple(needed_s / step_s for step_s in block_step_s) if needed_s else ()
    return ratios if max(ratios, default=0.0) <= IMPOSSIBLE_RATIO else ()


def _needed_s(signals: Metrics, ceilings: Ceilings) -> float | None:
    """Seconds of the matrix products of a step at their ceilings; None where one is not known."""
    needed_s = 0.0
    for signal, flops in signals.items():
        if signal.startswith(_FLOPS):
            name = f"matmul_{signal.removeprefix(_FLOPS)}_flops_per_s"
            rate = ceilings.value(name)
            if not rate or name in ceilings.contended:
                return None
            needed_s += flops / rate
    return needed_s or None
