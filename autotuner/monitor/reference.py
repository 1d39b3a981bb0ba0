"""The baseline's outputs on disk, and how far another configuration's outputs are from them.

Outputs stay in the worker: the parent only ever sees the deviations.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotuner.errors import MachineError
from autotuner.monitor import answers

# Tolerance of a reordered computation by the number format it runs in: a small multiple of the format's rounding,
# since errors of a deep network add up like a random walk (compare torch.testing's defaults, 1.3e-6, 1e-3, 1.6e-2).
TOLERANCE_RATIO: Mapping[str, float] = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
ROUNDOFF_RATIO: Mapping[str, float] = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}


def save(path: Path, outputs: Mapping[str, Any]) -> None:
    """Write arrays so that a reader sees all of them or none.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    import numpy as np

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **outputs)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(f"cannot write {path}: {error.strerror}", "free some space") from error


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote; pickled objects are refused."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def is_finite(outputs: Mapping[str, Any]) -> bool:
    """Whether no compared output holds NaN or infinity."""
    import numpy as np

    return all(bool(np.isfinite(array).all()) for name, array in outputs.items() if not name.startswith("_"))


def compare(reference: Mapping[str, Any], outputs: Mapping[str, Any], dtype: str) -> dict[str, float]:
    """Deviations of `outputs` from `reference`, as samples of a measurement.

    Args:
        reference: The baseline's arrays; "logits" [positions, vocabulary], "losses" and "gradient_norms" [1, steps] of
            training, anything else [vectors, width]. "_other_losses" and "_other_norms" [seeds, steps]: the baseline's
            with other seeds. "_stochastic": whether chance plays a part in each step, as dropout does.
            Of servers what `answers.compare` takes.
        outputs: The candidate's, with the same names and shapes; what is not there is not compared.
        dtype: The coarser number format of the two; decides what counts as a near-tie.

    Returns:
        `output_identical` (1 or 0), `output_error_ratio` (largest relative L2 error of a row), `output_tolerance_ratio`
        (what reordering may cost in `dtype`) and, for logits, `output_kl_nats`, `top1_agreement_ratio` (positions whose
        two best tokens are nearer than `dtype` can resolve are left out) and `top5_agreement_ratio` (share of the
        candidate's five best that are among the baseline's, or nearer to its fifth than `dtype` can resolve). Of
        training instead what `_compare_training` returns.
    """
    import numpy as np

    if "_picked" in reference:
        return answers.compare(reference, outputs) if "_picked" in outputs else dict(answers.NOTHING_SAID)
    names = [name for name in reference if not name.startswith("_") and name in outputs]
    rows = {name: (np.asarray(reference[name], np.float64), np.asarray(outputs[name], np.float64)) for name in names}
    if not rows:
        return {}
    errors = [_row_error_ratio(base, other) for base, other in rows.values()]
    identical = all(np.array_equal(base, other) for base, other in rows.values())
    found = {
        "output_identical": float(identical),
        "output_error_ratio": float(max(errors)),
        "output_tolerance_ratio": TOLERANCE_RATIO.get(dtype, TOLERANCE_RATIO["bfloat16"]),
    }
    if "logits" in rows:
        found |= _compare_distributions(*rows["logits"], ROUNDOFF_RATIO.get(dtype, ROUNDOFF_RATIO["bfloat16"]))
    if "losses" in rows:
        found |= _compare_training(rows, reference)
    return found


def _compare_training(rows: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """How far a training run is from the baseline's with the same seed.

    Returns:
        `loss_error_ratio`, the largest relative deviation of the loss at any step, unless chance has a part in it;
        `loss_band_ratio`, the deviation of the curve (root mean square) relative to that between the baseline's curves
        with different seeds; and `gradient_norm_error_ratio`, the root mean square of the norms' relative deviations,
        less what other seeds show where chance has a part in it.
    """
    import numpy as np

    stochastic = bool(reference.get("_stochastic", False))
    base, other = (losses[0] for losses in rows["losses"])
    error_ratio = float(np.max(np.abs(other - base) / np.maximum(np.abs(base), 1e-12)))
    found = {} if stochastic else {"loss_error_ratio": error_ratio}
    other_losses = reference.get("_other_losses")
    if other_losses is not None and len(other_losses):
        band = np.sqrt(np.mean((np.asarray(other_losses, np.float64) - base) ** 2))
        deviation = np.sqrt(np.mean((other - base) ** 2))
        found["loss_band_ratio"] = float(deviation / band) if band > 0 else (math.inf if deviation > 0 else 0.0)
    if "gradient_norms" in rows:
        base, other = (norms[0] for norms in rows["gradient_norms"])
        seeds = reference.get("_other_norms", ()) if stochastic else ()
        chance_ratio = max((_rms_log_ratio(base, norms) for norms in seeds), default=0.0)
        found["gradient_norm_error_ratio"] = max(0.0, math.expm1(_rms_log_ratio(base, other)) - chance_ratio)
    return found


def _rms_log_ratio(base: Any, other: Any) -> float:
    import numpy as np

    logs = np.log(np.maximum(np.asarray(other, np.float64), 1e-30)) - np.log(np.maximum(base, 1e-30))
    return float(np.sqrt(np.mean(logs**2)))


def _row_error_ratio(base: Any, other: Any) -> float:
    import numpy as np

    scale = np.linalg.norm(base, axis=-1)
    error = np.linalg.norm(other - base, axis=-1)
    return float(np.max(error / np.where(scale > 0, scale, 1.0)))


def _compare_distributions(base: Any, other: Any, roundoff_ratio: float) -> dict[str, float]:
    """Mean KL(base || other) in nats, and agreement of the most likely tokens, near-ties left out of the first."""
    import numpy as np

    log_base, log_other = _log_softmax(base), _log_softmax(other)
    kl_nats = np.sum(np.exp(log_base) * (log_base - log_other), axis=-1)
    best_two = np.sort(np.partition(base, -2, axis=-1)[:, -2:], axis=-1)
    resolution = 2 * roundoff_ratio * np.max(np.abs(base), axis=-1)
    clear = best_two[:, 1] - best_two[:, 0] > resolution
    same_top1 = np.argmax(base, axis=-1) == np.argmax(other, axis=-1)
    width = min(5, base.shape[-1])
    fifth = np.partition(base, -width, axis=-1)[:, -width]
    chosen = np.take_along_axis(base, np.argpartition(other, -width, axis=-1)[:, -width:], axis=-1)
    overlap = np.mean(chosen >= (fifth - resolution)[:, None], axis=-1)
    return {
        "output_kl_nats": max(0.0, float(np.mean(kl_nats))),
        "top1_agreement_ratio": float(np.mean(same_top1[clear])) if clear.any() else 1.0,
        "top5_agreement_ratio": float(np.mean(overlap)),
    }


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
