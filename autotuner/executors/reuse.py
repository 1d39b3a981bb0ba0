"""When an opened workload can take another job over, whichever executor holds it."""

from autotuner.plugins import Job
from autotuner.types import Config


def reuse_key(job: Job) -> tuple[object, ...]:
    """What two jobs of one launch must share so that the second finds its workload open."""
    return job.workload, job.device, fixed_part(job.config, job.live)


def fixed_part(config: Config, live: frozenset[str]) -> tuple[tuple[str, object], ...]:
    """What cannot change without reopening the workload.

    >>> fixed_part({"batch_size": 8, "dtype": "float32"}, frozenset({"batch_size"}))
    (('dtype', "'float32'"),)
    """
    return tuple(sorted((name, repr(value)) for name, value in config.items() if name not in live))
