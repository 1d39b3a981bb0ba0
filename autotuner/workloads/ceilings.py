"""What a machine can do at most, one operation at a time: the workload that `autotune doctor` measures.

A ceiling is measured by the same recorder, in the same blocks and under the same watch for contention as the
configurations that are held against it afterwards.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field

from autotuner.errors import InvalidConfigError
from autotuner.plugins import OpenWorkload, Preload, Step, Trait, Workload
from autotuner.types import Config
from autotuner.workloads import allreduce, device_rates, file_reads
from autotuner.workloads.operation import Run

Opener = Callable[["Ceiling", str], AbstractContextManager[Run]]


def _matmul(form: str) -> Opener:
    return lambda options, device: device_rates.matmul(form, device)


FORMATS = ("float32", "tf32", "bfloat16", "float16", "float8_e4m3fn")
OPERATIONS: Mapping[str, Opener] = {
    **{f"matmul-{form}": _matmul(form) for form in FORMATS},
    "copy": lambda options, device: device_rates.copy(device, options.cache_bytes),
    "triad": lambda options, device: device_rates.triad(device, options.cache_bytes),
    "upload-pinned": lambda options, device: device_rates.upload(device, pinned=True),
    "upload-pageable": lambda options, device: device_rates.upload(device, pinned=False),
    "launch": lambda options, device: device_rates.launch(device),
    "graph-launch": lambda options, device: device_rates.graph_launch(device),
    "disk-read": lambda options, device: file_reads.disk_read(options.folder, options.file_bytes),
    "page-cache-read": lambda options, device: file_reads.page_cache_read(options.folder, options.file_bytes),
    "allreduce": lambda options, device: allreduce.between_two(device),
}


class Ceiling(Workload):
    """Does one kind of work and nothing else, as fast as this machine can."""

    kind: Literal["ceiling"] = "ceiling"
    cache_bytes: int = Field(2**25, ge=0, description="All last-level caches of the CPU: its arrays are 4 times that.")
    threads: int | None = Field(None, ge=1, description="Of the CPU's operations; null leaves torch's default.")
    folder: str | None = Field(None, description="Where the file lies that is read; default the temporary folder.")
    file_bytes: int = Field(2**27, gt=0, multiple_of=2**23, description="Size of that file.")

    traits: ClassVar[Mapping[str, Trait]] = {
        "operation": Trait(live=True, text="what one step does: " + ", ".join(OPERATIONS)),
        "message_bytes": Trait(live=True, text="what one all-reduce sums up, 8 B and more"),
    }

    def preload(self) -> Preload:
        """Torch."""
        return ("torch",)

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Get ready; each operation sets itself up in its first step, and cleans up before the next one's."""
        import torch

        unknown = config.keys() - self.traits.keys()
        if unknown:
            raise InvalidConfigError(f"ceiling has no parameter {min(unknown)!r}")
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with torch.inference_mode(), ExitStack() as resources:
            yield OpenCeiling(self, device, resources)


class OpenCeiling:
    """Runs one operation at a time; what it holds is given back before another one begins."""

    def __init__(self, options: Ceiling, device: str, resources: ExitStack) -> None:
        self._options, self._device, self._resources = options, device, resources
        self._name = ""
        self._run: Run | None = None

    def step(self, config: Config) -> Step:
        """Some milliseconds of the operation."""
        name = str(config.get("operation", "copy"))
        if name not in OPERATIONS:
            raise InvalidConfigError(f"unknown operation {name!r}: use one of {', '.join(OPERATIONS)}")
        if self._run is None or name != self._name:
            self._run = None  # first: what goes wrong below must not leave a closed operation behind
            self._resources.close()
            self._run = self._resources.enter_context(OPERATIONS[name](self._options, self._device))
            self._name = name
        return self._run(config)

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Nothing: only the rate counts."""
        return {}
