"""What a reader must know of a candidate that does not compute what the baseline computes, as its file allows."""

import math

from autotuner.analyze.gradient_noise import noise_scale
from autotuner.spec.model import StudySpec
from autotuner.types import Config, Measurement, Outcome, Tier

_BATCH = "global_batch"


def warn(spec: StudySpec, config: Config, baseline: Outcome) -> str:
    """Name the parameters that change what is computed; of a global batch also what the gradients say of its size.

    Args:
        spec: The study.
        config: The candidate.
        baseline: Trial 0, which was asked for the squared norms of its gradients.

    Returns:
        Empty when the candidate moves none of them.
    """
    moved = {
        name: value
        for name, value in spec.baseline.items()
        if config[name] != value and spec.trait(name).tier is Tier.FREE
    }
    if not moved:
        return ""
    changed = ", ".join(f"{name} {value} → {config[name]}" for name, value in moved.items())
    text = f"{changed}: it computes something else, as the file allows, and its outputs were not compared."
    return f"{text} {_of_the_batch(baseline)}" if _BATCH in moved and isinstance(baseline, Measurement) else text


def _of_the_batch(baseline: Measurement) -> str:
    """McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", section 2: what the noise scale means."""
    advice = "Choose the learning rate anew."
    samples = baseline.samples
    if not samples.get("gradient_global_squared"):
        return f"{advice} The gradient noise scale is not known."
    small, whole = (round(samples[f"gradient_{which}_samples"][0]) for which in ("small", "global"))
    steps = len(samples["gradient_global_squared"])
    found = noise_scale(small, whole, samples["gradient_small_squared"], samples["gradient_global_squared"])
    if found is None:
        return f"{advice} The gradient noise scale is not known: {steps} steps are too few."
    if math.isinf(found.value):
        least = f"at least {found.low:,.0f} samples by {steps} early steps, which are too noisy to say more"
        return f"{advice} The gradient noise scale is {least}."
    scale = f"about {found.value:,.0f} samples [{found.low:,.0f}, {found.high:,.0f}] over {steps} early steps"
    return f"{advice} The gradient noise scale is {scale}: a batch far above it learns little more from each step."
