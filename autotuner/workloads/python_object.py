"""The user's own code: any training loop, or anything else that can be done step by step.

The object is a generator function that yields after each step, a function that calls `report` after each step, or a
class with a method `step`; see `python_source` for how it is found and `stepping` for how it is run.
"""

import hashlib
import importlib.util
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from autotuner.errors import UsageError
from autotuner.plugins import OpenWorkload, Preload, Trait, Workload
from autotuner.types import Binding, Config, Tier
from autotuner.workloads.background import WORKERS
from autotuner.workloads.python_source import (
    GIVEN,
    Definition,
    Form,
    check_call,
    definition_in,
    definition_of,
    imported,
    locate,
)
from autotuner.workloads.stepping import Instance, Loop, OpenObject, Runner, as_generator

CAPACITY, COMMUNICATION, COMPUTE = Binding.CAPACITY, Binding.COMMUNICATION, Binding.COMPUTE
HOST, INPUT, MEMORY = Binding.HOST_LAUNCH, Binding.INPUT, Binding.MEMORY_BANDWIDTH

_BATCH = Trait(memory=True, acts_on=(HOST, MEMORY, CAPACITY), text="samples of a step")
_LOADING = Trait(tier=Tier.EXACT, acts_on=(INPUT,), text="how data are loaded, not which")
_COPYING = Trait(tier=Tier.EXACT, acts_on=(INPUT,), needs_gpu=True, text="how batches reach the GPU")
_PRECISION = Trait(tier=Tier.PRECISION, acts_on=(MEMORY, COMPUTE, CAPACITY), text="number format")
_LAYOUT = Trait(acts_on=(MEMORY, COMPUTE), text="how tensors lie in memory")
_KERNEL = Trait(acts_on=(MEMORY, COMPUTE, HOST, CAPACITY), text="which kernel computes it")
_SAVING = Trait(acts_on=(CAPACITY, COMPUTE), text="compute again what does not fit")


class PythonObject(Workload):
    """Steps the user's own loop: `file.py:name` or `package.module:name`."""

    kind: Literal["python"] = "python"
    object: str = Field(description="file.py:name, from the working directory, or package.module:name.")
    options: Mapping[str, Any] = Field(default_factory=dict, description="Keyword arguments for it.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    imports: tuple[str, ...] = Field(
        ("torch",), description="Libraries that are imported once for all processes; never your own files."
    )
    guard_steps: int = Field(20, ge=1, description="First steps whose losses are compared with the baseline's.")
    rank_parameters: tuple[str, ...] = Field(
        (), description="Parameters whose product is the number of processes that run a configuration."
    )
    stochastic: bool = Field(
        False, description="Chance plays a part in each step, as with dropout: losses are judged by the band of seeds."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of torch, numpy and random, before the object is called.")

    any_parameter: ClassVar[bool] = True
    # What usual names mean; a study file says otherwise where they do not.
    traits: ClassVar[Mapping[str, Trait]] = {
        **dict.fromkeys(("batch_size", "micro_batch", "micro_batch_size", "per_device_train_batch_size"), _BATCH),
        **dict.fromkeys(WORKERS, _LOADING),
        **dict.fromkeys(("prefetch_factor", "persistent_workers"), _LOADING),
        **dict.fromkeys(("pin_memory", "non_blocking"), _COPYING),
        **dict.fromkeys(("dtype", "precision", "autocast", "amp", "bf16", "fp16", "tf32"), _PRECISION),
        **dict.fromkeys(("memory_format", "channels_last"), _LAYOUT),
        **dict.fromkeys(("attention", "attn_implementation", "fused", "foreach", "optimizer"), _KERNEL),
        **dict.fromkeys(("activation_checkpointing", "gradient_checkpointing"), _SAVING),
        "compile": Trait(acts_on=(HOST, MEMORY), text="torch.compile, or none"),
        "threads": Trait(acts_on=(COMPUTE, MEMORY, HOST), text="threads of the CPU within an operation"),
        "bucket_cap_mb": Trait(acts_on=(COMMUNICATION,), text="gradients that are reduced together"),
    }

    @field_validator("object")
    @classmethod
    def _names_something(cls, value: str) -> str:
        where, _, name = value.rpartition(":")
        if not where or not name.isidentifier():
            raise ValueError("expected file.py:name or package.module:name")
        return value

    @field_validator("options")
    @classmethod
    def _leaves_ours(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in GIVEN:
            if name in value:
                raise ValueError(f"{name} cannot be an option: it is passed to whoever has a parameter of this name")
        return value

    def preload(self) -> Preload:
        """The libraries that the file names; the user's own code is imported afresh in each process."""
        return self.imports

    def fixed(self, config: Config) -> frozenset[str]:
        """Everything, unless each step is handed the configuration."""
        definition = definition_in(locate(self.object))
        return frozenset() if definition is not None and definition.live else frozenset(config)

    @property
    def sized(self) -> bool:
        """Where the class has a `worst_step`, or only running the code could tell."""
        definition = definition_in(locate(self.object))
        return definition is None or definition.sized

    def ranks(self, config: Config) -> int:
        """The product of the rank parameters.

        Raises:
            UsageError: One of them is no parameter, or no number of processes.
        """
        for name in self.rank_parameters:
            value = config.get(name)
            if type(value) is not int or value < 1:
                raise UsageError(
                    f"workload.rank_parameters: {name} is {value!r}",
                    "parameters.{name} must give whole numbers from 1 on",
                )
        return math.prod(int(str(config[name])) for name in self.rank_parameters)

    def identity(self) -> Mapping[str, str]:
        """Name of the object, and hash of its file and options."""
        return self._identity

    @cached_property
    def _identity(self) -> Mapping[str, str]:
        source = locate(self.object)
        text = source.path.read_bytes() if source.path is not None else b""
        content = text + json.dumps(dict(self.options), sort_keys=True).encode()
        name = f"{source.path.name if source.path is not None else source.module}:{source.name}"
        return {"model": name, "model_hash": hashlib.sha256(content).hexdigest()[:16]}

    def sources(self) -> Sequence[Path]:
        """The module's file."""
        path = locate(self.object).path
        return () if path is None else (path,)

    def check(self) -> None:
        """Whether the object is there and can be called, as far as its text tells."""
        for name in self.imports:
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                raise UsageError(f"workload.imports: there is no module {name}", "install it, or take it out")
        definition = definition_in(locate(self.object))
        if definition is not None:
            check_call(self.object, definition, self.options)

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[OpenWorkload]:
        """Import the user's code and call it with the configuration."""
        for module in self.imports:
            importlib.import_module(module)
        set_seed(self.seed)  # a module may draw numbers when it is imported
        with imported(locate(self.object)) as target:
            definition = definition_of(target)
            check_call(self.object, definition, self.options)

            def start(config: Config, seed_offset: int) -> Runner:
                set_seed(self.seed + seed_offset)
                return self._call(target, definition, config, device)

            with closing(OpenObject(start, config, self.guard_steps, stochastic=self.stochastic)) as opened:
                yield opened

    def _call(self, target: Any, definition: Definition, config: Config, device: str) -> Runner:
        keywords = definition.keywords(self.options, device)
        if definition.form is Form.CLASS:
            return Instance(target(dict(config), **keywords), live=definition.live)
        if definition.form is Form.GENERATOR:
            return Loop(target(dict(config), **keywords))
        return Loop(as_generator(target, dict(config), **keywords))


def set_seed(seed: int) -> None:
    """Seed every global generator of this process."""
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
