"""Which parameters act on what binds, and which cannot help."""

from autotuner.spec.model import StudySpec
from autotuner.types import Binding

AT_CEILING_RATIO = 0.8  # below it a resource is not used up, and anything may still help to use it better


def try_next(spec: StudySpec, binding: Binding) -> tuple[str, ...]:
    """Parameters that change the demand for a resource; those that only do that first, then those of unknown effect."""
    acting = [name for name in _free(spec) if _acts(spec, name, binding)]
    unknown = [name for name in _free(spec) if not spec.trait(name).acts_on and name not in acting]
    if binding is Binding.CAPACITY:
        unknown = []  # what drives memory is known of every parameter
    return (*sorted(acting, key=lambda name: len(spec.trait(name).acts_on)), *unknown)


def cannot_help(spec: StudySpec, binding: Binding, ceiling_ratio: float | None) -> tuple[str, ...]:
    """Parameters that are known to act on other resources only.

    Arithmetic and memory count as used up from `AT_CEILING_RATIO` on; waiting and the host's work always do, for what
    shortens nothing of them cannot shorten the step by much.
    """
    shared = binding in (Binding.COMPUTE, Binding.MEMORY_BANDWIDTH)
    if shared and (ceiling_ratio is None or ceiling_ratio < AT_CEILING_RATIO):
        return ()
    return tuple(name for name in _free(spec) if spec.trait(name).acts_on and not _acts(spec, name, binding))


def _acts(spec: StudySpec, name: str, binding: Binding) -> bool:
    known = spec.trait(name)
    return binding in known.acts_on or (binding is Binding.CAPACITY and known.memory)


def _free(spec: StudySpec) -> list[str]:
    return [name for name, parameter in spec.parameters.items() if len(parameter.values) > 1]
