"""The four seams: what a third party writes to tune, observe, run or export something new.

A plugin is a frozen pydantic model with one method. Its fields are its options, so that validation, pickling, the
record and the plugin are one class. Built-ins register through the same entry-point groups as everybody else.
"""

from autotuner.plugins.opened import (
    Accounting,
    Characterised,
    Delegating,
    OpenWorkload,
    Paced,
    Relievable,
    Sized,
    Step,
    Uneven,
    Warming,
)
from autotuner.plugins.registry import load_class, modules_of, names
from autotuner.plugins.seams import (
    Executor,
    Exporter,
    Job,
    Plugin,
    Preload,
    Probe,
    ProbeReader,
    Rank,
    Rival,
    Trait,
    WorkerPool,
    Workload,
)

__all__ = [
    "Accounting", "Characterised", "Delegating", "Executor", "Exporter", "Job", "OpenWorkload", "Paced", "Plugin",
    "Preload", "Probe", "ProbeReader", "Rank", "Relievable", "Rival", "Sized", "Step", "Trait", "Uneven", "Warming",
    "WorkerPool", "Workload", "load_class", "modules_of", "names",
]  # fmt: skip
