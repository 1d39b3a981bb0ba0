"""The only door to Optuna: a tree-structured Parzen estimator (TPE) over the record.

The study lives in memory and is rebuilt from the record for every suggestion, so that a suggestion is a function of
the seed and the trials alone. Failures and broken limits are told as violated constraints, never as FAIL: samplers
forget a failed trial and propose it again (optuna issues #332, #566, #3472). Ordered parameters are told as integer
indices, the others as categorical ones.

Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Watanabe, arXiv:2304.11127.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autotuner.adjust.scores import scores
from autotuner.adjust.space import Row, Space
from autotuner.types import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

_FAILED = 1e3  # violation of a trial without a measurement: worse than any limit that was missed by a factor
_STARTUP_TRIALS = 4


def suggest(space: Space, trials: Sequence[Trial], seed: int) -> Row:
    """What TPE would try next; may be illegal or tried already: the caller takes the nearest that are neither.

    Args:
        space: What may be tried.
        trials: The record so far.
        seed: Of the sampler; the same seed and record give the same suggestions.
    """
    with _quiet():
        import optuna

        study = optuna.create_study(direction="maximize", sampler=_sampler(seed))
        distributions = _distributions(space)
        for trial, score in zip(trials, scores(space.spec, trials), strict=True):
            study.add_trial(_told(space, trial, score, distributions))
        params = study.ask(dict(distributions)).params
    return tuple(int(params.get(name, 0)) for name in space.names)


def _sampler(seed: int) -> "BaseSampler":
    """TPE with constraints. Optuna 4 looks at them only when a function is given; 5 deprecates the function."""
    import optuna

    options: dict[str, Any] = {"multivariate": True, "constant_liar": False}
    if int(optuna.__version__.split(".")[0]) < 5:
        options["constraints_func"] = lambda trial: trial.system_attrs["constraints"]
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS, **options)


def _distributions(space: Space) -> Mapping[str, "BaseDistribution"]:
    """Indices of the values of every parameter that has more than one."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        name: IntDistribution(0, size - 1) if ordered else CategoricalDistribution(range(size))
        for name, size, ordered in zip(space.names, space.sizes, space.ordered, strict=True)
        if size > 1
    }


def _told(
    space: Space, trial: Trial, score: float | None, distributions: Mapping[str, "BaseDistribution"]
) -> "FrozenTrial":
    """A trial as Optuna keeps it: a positive constraint is one that was violated."""
    from optuna.trial import TrialState, create_trial

    indices = dict(zip(space.names, space.encode(trial.config), strict=True))
    violation = _FAILED if trial.verdict is None else max(trial.verdict.violations.values(), default=-1.0)
    return create_trial(
        state=TrialState.PRUNED if score is None else TrialState.COMPLETE,
        value=score,
        params={name: indices[name] for name in distributions},
        distributions=dict(distributions),
        system_attrs={"constraints": [violation if math.isfinite(violation) else _FAILED]},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna's log lines and warnings are for its own users: nothing here can be done about them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import optuna

        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)
