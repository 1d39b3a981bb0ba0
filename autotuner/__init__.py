"""autotune: closed-loop auto-tuning for PyTorch and transformers workloads.

>>> import autotuner
>>> summary = autotuner.tune("search_spaces/inference.yaml")  # doctest: +SKIP
>>> summary.decision, summary.verification.gain_ratio  # doctest: +SKIP
(<Decision.BETTER: 'BETTER'>, 11.7)

`tune` runs a study from a file or a `StudySpec` and returns a `StudySummary`; `load_study` opens a study of the record.
Everything else is imported from its own module; importing this package imports nothing heavy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotuner.api import tune
    from autotuner.records import load_study

__all__ = ["load_study", "tune"]


def __getattr__(name: str) -> Any:
    """Import the programming interface when it is first used: `import autotuner.cli` must stay instant."""
    if name == "load_study":
        from autotuner.records import load_study

        return load_study
    if name == "tune":
        from autotuner.api import tune

        return tune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
