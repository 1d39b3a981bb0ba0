"""How much gradients differ: squared norms over a part and over the whole of the same global batches.

McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", appendix A.1, tells the gradient noise scale from
the two; `analyze.gradient_noise` does.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from autotuner.workloads.training.models import targets_of
from autotuner.workloads.training.parallel import Parallel
from autotuner.workloads.training.samples import Batch


def squared_norms(
    enough: Callable[[int], bool],
    take: Callable[[], list[Batch]],
    add_gradients: Callable[[list[Batch], float], object],
    end_step: Callable[[], None],
    parallel: Parallel,
) -> Mapping[str, Sequence[float]]:
    """Train, and look at the gradients of each step twice.

    Args:
        enough: Whether so many steps are; says the same on every rank.
        take: Gives this rank's micro-batches of the next global batch.
        add_gradients: Adds those of some micro-batches, each loss times a factor.
        end_step: Takes the optimizer's step and forgets the gradients.
        parallel: Whose gradients.

    Returns:
        `gradient_small_samples` and `gradient_global_samples`, how many samples over all ranks the part and the whole
        have; `gradient_small_squared` and `gradient_global_squared`, |G|^2 for each step. Nothing where a rank's
        share is a single sample, which has no part.
    """
    found = defaultdict[str, list[float]](list)
    while not enough(len(found["gradient_global_squared"])):
        part, rest = _cut(take())
        if not rest:
            return {}
        targets = [parallel.sum(float(sum(map(targets_of, batches)))) for batches in (part, rest)]
        scale = parallel.data_ranks / max(1.0, sum(targets))
        add_gradients(part, scale)
        found["gradient_small_squared"].append((parallel.gradient_norm() * sum(targets) / max(1.0, targets[0])) ** 2)
        add_gradients(rest, scale)
        found["gradient_global_squared"].append(parallel.gradient_norm() ** 2)
        end_step()
        sizes = [sum(len(batch["labels"]) for batch in batches) * parallel.data_ranks for batches in (part, rest)]
        found["gradient_small_samples"], found["gradient_global_samples"] = [float(sizes[0])], [float(sum(sizes))]
    return found


def _cut(batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
    """The first micro-batch and the others; a single one is halved."""
    if len(batches) > 1:
        return batches[:1], batches[1:]
    (whole,) = batches
    half = len(whole["labels"]) // 2
    if not half:
        return batches, []
    first = {name: value[:half] for name, value in whole.items()}
    return [first], [{name: value[half:] for name, value in whole.items()}]
