"""Reading a study file for this machine, with what only its workload knows of parameters."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from autotuner.errors import UsageError
from autotuner.monitor import gpu, host
from autotuner.spec import Machine, load
from autotuner.spec.model import StudySpec


def read_spec(path: Path, overrides: Sequence[str] = ()) -> StudySpec:
    """Read a study file for this machine.

    Raises:
        UsageError: It does not describe a study that the workload understands.
        MachineError: It asks for a GPU and there is none.
    """
    spec = load(path, overrides, Machine(gpus=len(gpu.visible_gpus()), cpu_cores=host.available_cores()))
    known = spec.workload.traits
    for name in spec.parameters:
        if name not in known and not spec.workload.any_parameter:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "it has " + ", ".join(known)
            raise UsageError(f"{path}: parameters.{name}: {spec.workload.kind} has no such parameter", hint)
    try:
        spec.workload.check()
    except UsageError as error:
        raise UsageError(f"{spec.source}: {error.message}", error.hint) from None
    return spec
