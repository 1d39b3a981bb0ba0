"""Every built-in passes the suites that plugin authors use, and each suite catches what it is for."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from autotuner import plugins
from autotuner.executors.inline import InlineExecutor
from autotuner.executors.process import ProcessExecutor
from autotuner.exporters.accelerate import AccelerateExporter
from autotuner.exporters.deepspeed import DeepspeedExporter
from autotuner.exporters.env_file import EnvExporter
from autotuner.exporters.json_file import JsonExporter
from autotuner.exporters.kserve import KserveExporter
from autotuner.exporters.kubernetes import KubernetesExporter
from autotuner.exporters.llama_cpp import LlamaCppExporter
from autotuner.exporters.optuna_storage import OptunaExporter
from autotuner.exporters.patch_file import PatchExporter
from autotuner.exporters.python_file import PythonExporter
from autotuner.exporters.sglang import SglangExporter
from autotuner.exporters.torchrun import TorchrunExporter
from autotuner.exporters.transformers import TransformersExporter
from autotuner.exporters.triton import TritonExporter
from autotuner.exporters.vllm import VllmExporter
from autotuner.load.traffic import Traffic
from autotuner.monitor.gpu import GpuProbe
from autotuner.monitor.host import HostProbe
from autotuner.monitor.torch import TorchProbe
from autotuner.plugins import Plugin, Step, Trait
from autotuner.testing import probes
from autotuner.testing.executors import check_executor
from autotuner.testing.exporters import check_exporter
from autotuner.testing.options import check_options
from autotuner.testing.probes import check_probe
from autotuner.testing.replay import Replay
from autotuner.testing.workloads import check_live, check_outputs, check_preload, check_steps, check_workload
from autotuner.types import Config, Draft, Recommendation
from autotuner.workloads.ceilings import Ceiling
from autotuner.workloads.command import Command
from autotuner.workloads.python_object import PythonObject
from autotuner.workloads.server import Server
from autotuner.workloads.training.data import Data
from autotuner.workloads.transformers_inference import TransformersInference
from autotuner.workloads.transformers_training import TransformersTraining

sys.path.insert(0, str(Path(__file__).parents[1] / "exporters"))
import recommended

GLM4: Mapping[str, Any] = {
    "model_type": "glm4", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 128, "pad_token_id": 0,
}  # fmt: skip
BERT: Mapping[str, Any] = {
    "model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "vocab_size": 128,
}  # fmt: skip
LLAMA: Mapping[str, Any] = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 64,
}  # fmt: skip
CONFIGS = [{}, {"batch_size": 3}, {"attention": "eager", "batch_size": 2}, {"dtype": "bfloat16"}]
GENERATE = TransformersInference(config=GLM4, prompt_tokens=4, new_tokens=3, probe_requests=2)
ENCODE = TransformersInference(config=BERT, task="encode", prompt_tokens=4, probe_requests=2)
CEILING = Ceiling(cache_bytes=2**20)
REPLAY = Replay(step_s="0", tokens="batch", output_error="mode * 1e-3", fault={"error": "batch > 9"})
LOOP = """
def loop(config):
    while True:
        yield {"samples": config["batch"], "loss": 1 / config["batch"]}
"""
PROBES = [HostProbe(), GpuProbe(), TorchProbe()]
SUBJECTS: Sequence[tuple[plugins.Exporter, Recommendation]] = [
    (JsonExporter(), recommended.PLAIN), (EnvExporter(), recommended.PLAIN), (PythonExporter(), recommended.INFERENCE),
    (TransformersExporter(), recommended.TRAINING), (AccelerateExporter(), recommended.SHARDED),
    (DeepspeedExporter(), recommended.SHARDED), (TorchrunExporter(), recommended.SHARDED),
    (TritonExporter(), recommended.INFERENCE), (VllmExporter(), recommended.VLLM),
    (SglangExporter(), recommended.SGLANG), (LlamaCppExporter(), recommended.LLAMA_CPP),
    (KubernetesExporter(), recommended.VLLM),
    (KserveExporter(), recommended.VLLM),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workload", [GENERATE, ENCODE], ids=lambda workload: workload.task)
def test_transformers_inference(workload: TransformersInference) -> None:
    check_workload(workload, CONFIGS)


def test_replay() -> None:
    check_workload(REPLAY, [{"batch": 1, "mode": 0}, {"batch": 8, "mode": 1}])


def test_ceiling() -> None:
    check_workload(
        CEILING, [{"operation": "launch"}, {"operation": "copy"}, {"message_bytes": 64, "operation": "launch"}]
    )


@pytest.mark.slow
def test_transformers_training(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a short story about a long road, told twice. " * 100)
    names = ("workers", "prefetch_factor", "persistent_workers", "pin_memory", "non_blocking")
    live: list[Config] = [*({name: 1} for name in names), {"collate": "batch"}, {"micro_batch": 2}]
    data = Data(path=str(tmp_path / "text.txt"), sequence_tokens=16)
    workload = TransformersTraining(config=LLAMA, data=data, global_batch=4, guard_steps=2)
    check_workload(workload, [{}, *live, {"attention": "eager"}])


def test_python(tmp_path: Path) -> None:
    """Their forms, live parameters and guards are tested with the workload itself."""
    (tmp_path / "loop.py").write_text(LOOP)
    check_workload(PythonObject(object=f"{tmp_path}/loop.py:loop", guard_steps=4), [{"batch": 2}, {"batch": 8}])


def test_command() -> None:
    """What it reads and how it fails is tested with the workload itself."""
    check_workload(Command(argv=("true", "{n}")), [{"n": 1}, {"n": 2}])


def test_server() -> None:
    """A fake one; real ones, and what they can do wrong, are tested with the workload itself."""
    argv = ("{python}", str(Path(__file__).parents[1] / "servers" / "faulty.py"), "{port}", "good", "--places", "{n}")
    load = Traffic(requests=4, concurrency=2, prompt_words=4, output_tokens=2)
    check_workload(Server(argv=argv, api="completions", load=load, stop_s=0.5), [{"n": 1}, {"n": 2}])


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.kind)
def test_probe(probe: plugins.Probe) -> None:
    check_probe(probe)


def test_process_executor(tmp_path: Path) -> None:
    check_executor(ProcessExecutor(), tmp_path)


def test_inline_executor(tmp_path: Path) -> None:
    check_executor(InlineExecutor(), tmp_path, isolated=False)


@pytest.mark.parametrize(("exporter", "subject"), SUBJECTS, ids=[exporter.kind for exporter, _ in SUBJECTS])
def test_exporter(exporter: plugins.Exporter, subject: Recommendation) -> None:
    check_exporter(exporter, subject)


def test_exporter_of_a_patch(tmp_path: Path) -> None:
    file = tmp_path / "settings.py"
    file.write_text("batch_size = 8\ncompile = False\n")
    check_exporter(PatchExporter(file=file), recommended.PLAIN)


def test_exporter_of_trials() -> None:
    check_options(OptunaExporter(), "exporters")  # it tells of trials, not of a configuration: tests/exporters


def test_no_builtin_is_forgotten() -> None:
    checked = {
        type(plugin)
        for plugin in (
            GENERATE,
            CEILING,
            REPLAY,
            *PROBES,
            ProcessExecutor(),
            InlineExecutor(),
            *(exporter for exporter, _ in SUBJECTS),
        )
    } | {OptunaExporter, PatchExporter, Command, PythonObject, Server, TransformersTraining}
    groups = ("workloads", "probes", "executors", "exporters")
    entries = [entry for group in groups for entry in plugins.names(group).values()]
    assert {entry.load() for entry in entries if entry.module.startswith("autotuner.")} == checked


class Broken(Replay):
    """A replay that breaks one rule of the contract, by name."""

    rule: str = ""
    traits: ClassVar[Mapping[str, Trait]] = {"batch": Trait(live=True)}

    @contextmanager
    def open(self, config: Config, device: str) -> Iterator[Any]:
        yield OpenBroken(self, config)

    def preload(self) -> plugins.Preload:
        return ("no_such_module",) if self.rule == "preload" else ()


class OpenBroken:
    """Counts how often any was opened, so that two openings can differ."""

    openings = 0

    def __init__(self, broken: Broken, config: Config) -> None:
        OpenBroken.openings += 1
        self._rule, self._opened_with = broken.rule, config

    def step(self, config: Config) -> Step:
        if self._rule == "infinite work":
            return Step(work={"tokens": math.inf})
        if self._rule == "no work":
            return Step(work={})
        amount = self._opened_with["batch"] if self._rule == "dead live parameter" else config["batch"]
        return Step(work={"tokens": float(amount) + (OpenBroken.openings if self._rule == "other work" else 0)})

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        import numpy as np

        if self._rule == "no reference" and reference is not None:
            return {"vector": np.full((1, 4), 2.0)}
        if self._rule == "other shape":
            return {"vector": np.ones((1, 4 * int(config["batch"])))}
        value = float(OpenBroken.openings) if self._rule == "other outputs" else 1.0
        return {"vector": np.full((1, 4), math.nan if self._rule == "not finite" else value)}


@pytest.mark.parametrize(
    ("rule", "check", "sentence"),
    [
        ("infinite work", check_steps, "work tokens is inf"),
        ("no work", check_steps, "how much work"),
        ("other work", check_steps, "same work"),
        ("dead live parameter", check_live, "after the change"),
        ("other outputs", check_outputs, "same every time"),
        ("no reference", check_outputs, "follow its own reference"),
        ("other shape", check_outputs, "have shapes"),
        ("not finite", check_outputs, "not finite"),
    ],
)
def test_a_broken_workload_is_caught(rule: str, check: Any, sentence: str) -> None:
    configs = [{"batch": 1}, {"batch": 2}]
    arguments = {check_steps: (configs[0], "cpu"), check_outputs: (configs, "cpu"), check_live: (configs, "cpu", 1e-4)}
    check(Broken(), *arguments[check])
    with pytest.raises(AssertionError, match=sentence):
        check(Broken(rule=rule), *arguments[check])


def test_a_live_parameter_that_nobody_changes_is_not_checked_in_silence() -> None:
    with pytest.raises(AssertionError, match="changes only batch_size"):
        check_live(GENERATE, [{}, {"dtype": "bfloat16"}], "cpu", 1e-4)


def test_preloading_what_is_not_there_is_caught() -> None:
    with pytest.raises(AssertionError, match="no_such_module"):
        check_preload(Broken(rule="preload"))


class Nameless(Plugin):
    """No entry point carries its name."""

    kind: Literal["nameless"] = "nameless"


def test_a_plugin_without_its_entry_point_is_caught() -> None:
    with pytest.raises(AssertionError, match="no entry point"):
        check_options(Nameless(), "probes")
    with pytest.raises(AssertionError, match="not <class"):
        check_options(Broken(), "workloads")


class Reader:
    """Gives what it was told."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def read(self) -> Mapping[str, Any]:
        return {"signal": self.value}


@pytest.mark.parametrize(("value", "sentence"), [(math.nan, "is nan"), (1, "not a float"), (None, "not a float")])
def test_a_probe_of_no_numbers_is_caught(value: Any, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(plugins.Probe):
        """Odd."""

        kind: Literal["host"] = "host"

        @contextmanager
        def open(self, device: str) -> Iterator[Reader]:
            yield Reader(value)

    monkeypatch.setattr(probes, "check_options", lambda *_: None)
    with pytest.raises(AssertionError, match=sentence):
        check_probe(Odd())


class Careless(plugins.Exporter):
    """Breaks one rule."""

    kind: Literal["json"] = "json"
    target_version: ClassVar[str] = "1"
    rule: str = ""

    def draft(self, config: Config, recommendation: Recommendation) -> Draft:
        import os
        import random

        kept = {name: value for name, value in config.items() if name != "compile" or self.rule != "drops one"}
        lines = [str(kept), str(dict(os.environ)) if self.rule == "leaks" else ""]
        lines += [str(random.random())] if self.rule == "throws dice" else []
        name = {"leaves": "../x.txt", "takes a name": "evidence.json"}.get(self.rule, "x.txt")
        left_out = {"colour": "no such parameter"} if self.rule == "invents" else {}
        return Draft({name: "\n".join(lines).encode()}, "" if self.rule == "is silent" else "read it", left_out)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("", ""),
        ("drops one", "compile changes nothing in the files"),
        ("leaks", "must not leave the machine"),
        ("throws dice", "same bytes"),
        ("leaves", "must lie in the bundle"),
        ("takes a name", "a name of the bundle's own"),
        ("invents", "no parameter"),
        ("is silent", "says how its target takes"),
    ],
)
def test_a_careless_exporter_is_caught(rule: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from autotuner.testing import exporters

    monkeypatch.setattr(exporters, "check_options", lambda *_: None)
    if not rule:
        return check_exporter(Careless())
    with pytest.raises(AssertionError, match=sentence):
        check_exporter(Careless(rule=rule))
    return None
