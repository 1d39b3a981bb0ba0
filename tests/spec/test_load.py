import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from autotuner import plugins
from autotuner.errors import AutotuneError, MachineError, UsageError
from autotuner.plugins import Executor, Probe, Workload
from autotuner.spec import Machine, load, restore
from autotuner.spec import yaml as yaml_door

GOOD = """\
workload:
  kind: tiny
  tokens: 8
parameters:
  batch_size: {powers_of_two: [1, 16], default: 4}
  threads: {choices: [1, 2, cpu_cores], default: cpu_cores}
  dtype:
    choices: [float32, bfloat16, null]
    default: float32
    when: batch_size > 1
  workers: {int: [0, cpu_cores], default: 0, step: 2, tier: exact}
  compiled: {bool: true, default: false}
rules:
  - forbid: dtype == 'bfloat16' and device == 'cpu'
    because: slow
objectives:
  - maximize: throughput_tokens_per_s
limits:
  - latency_p95_s <= 150 ms
  - peak_memory_bytes <= 120 % of baseline
budget: {trials: 5}
"""
TWO_CORES = Machine(gpus=0, cpu_cores=2)


class Tiny(Workload):
    """Does nothing."""

    kind: Literal["tiny"] = "tiny"
    tokens: int = Field(1, ge=1)
    folder: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seen: ClassVar[int] = 0

    @contextmanager
    def open(self, config: Any, device: str) -> Iterator[Any]:
        yield None


class Quiet(Probe):
    """Sees nothing."""

    kind: Literal["quiet"] = "quiet"
    every_s: float = 1.0

    @contextmanager
    def open(self, device: str) -> Iterator[Any]:
        yield None


class Remote(Quiet):
    """Needs an option, so nobody gets it unasked."""

    kind: Literal["remote"] = "remote"  # type: ignore[assignment]
    url: str


class Here(Executor):
    """Runs nothing."""

    kind: Literal["process"] = "process"
    slots: int = 1

    @contextmanager
    def open(self, preload: Any = ()) -> Iterator[Any]:
        yield None


@dataclass(frozen=True)
class Entry:
    """An installed plugin; a real entry point would have to be importable by name."""

    name: str
    kind: type

    def load(self) -> type:
        return self.kind


INSTALLED = {
    "autotuner.workloads": [Entry("tiny", Tiny)],
    "autotuner.executors": [Entry("process", Here)],
    "autotuner.probes": [Entry("quiet", Quiet), Entry("remote", Remote)],
}


@pytest.fixture(autouse=True, scope="module")
def _installed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins.registry, "entry_points", lambda group: INSTALLED[group])
        yield


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "tiny study.yaml"
    path.write_text(GOOD)
    return path


def said(path: Path, *overrides: str, machine: Machine = TWO_CORES) -> str:
    with pytest.raises(UsageError) as caught:
        load(path, overrides, machine)
    text = str(caught.value)
    for foreign in (
        "\n",
        "Tiny",
        "StudySpec",
        "Parameter",
        "Budget",
        "Protocol",
        "dict",
        "tuple",
        "NoneType",
        "pydantic",
    ):
        assert foreign not in text
    return text


def test_a_good_file_becomes_a_spec(good):
    spec = load(good, machine=TWO_CORES)
    assert spec.name == "tiny-study"
    assert (spec.source, spec.device, spec.cpu_cores) == (str(good), "cpu", 2)
    assert spec.workload == Tiny(tokens=8)
    assert spec.executor == Here()
    assert spec.probes == (Quiet(),)
    assert spec.parameters["threads"].values == (1, 2)
    assert spec.parameters["workers"].values == (0, 2)
    assert spec.baseline == {"batch_size": 4, "threads": 2, "dtype": "float32", "workers": 0, "compiled": False}
    assert [limit.bound for limit in spec.limits] == [0.15, 1.2]
    assert spec.budget.trials == 5


@pytest.mark.parametrize(("cores", "threads"), [(1, (1, 2)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 8))])
def test_the_word_cpu_cores_is_a_number_on_every_machine(good, cores, threads):
    spec = load(good, ["parameters.batch_size={powers_of_two: [1, cpu_cores], default: 1}"], Machine(0, cores))
    assert spec.parameters["threads"].values == threads
    assert spec.parameters["threads"].default == cores
    assert spec.parameters["batch_size"].values[-1] <= cores < 2 * spec.parameters["batch_size"].values[-1]


def test_the_device_is_what_the_workload_wishes_and_the_machine_has(good):
    assert load(good, machine=Machine(1, 2)).device == "cuda"
    assert load(good, ["workload.device=cpu"], Machine(1, 2)).device == "cpu"
    with pytest.raises(MachineError, match=r"--set workload.device=cuda: workload.device: .* no GPU"):
        load(good, ["workload.device=cuda"], TWO_CORES)


def test_restore_is_the_inverse_of_dump(good):
    options = ["workload.folder=./my-model", "probes=[{kind: remote, url: x}, quiet]", "budget.minutes=1.5",
               "executor.slots=3", "seed=7", "equivalence.guard=false", "protocol.block_s=0.1"]  # fmt: skip
    for overrides in ([], options, ["probes=[]"]):
        spec = load(good, overrides, Machine(1, 3))
        again = restore(json.loads(json.dumps(spec.dump())))
        assert again == spec
        assert again.legal(again.baseline)
        assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(UsageError, match=r"the recorded study: workload.kind: unknown workload 'gone'"):
        restore({**spec.dump(), "workload": {"kind": "gone"}})


def test_overrides_reach_everything(good):
    spec = load(good, ["parameters.batch_size.default=2", "limits.0=latency_p95_s <= 2 x baseline", "name=mine",
                       "parameters.kv_cache={choices: [1], default: 1}", "protocol.block_s=0.1",
                       "rules=[]", "workload.tokens=3"], TWO_CORES)  # fmt: skip
    assert spec.baseline["batch_size"] == 2
    assert spec.limits[0].relative
    assert (spec.name, spec.rules, spec.protocol.block_s) == ("mine", (), 0.1)
    assert spec.workload == Tiny(tokens=3)


def test_a_dotted_parameter_can_be_overridden(good):
    good.write_text(GOOD.replace("  compiled:", "  kv.cache:"))
    assert load(good, ["parameters.kv.cache.default=true"], TWO_CORES).baseline["kv.cache"] is True


OVERRIDES = [
    ("budget.trails=7", "--set budget.trails=7: budget.trails: unknown key (did you mean trials?)"),
    ("budjet.trials=7", "--set budjet.trials=7: budjet: unknown key (did you mean budget?)"),
    ("workload.token=1", "--set workload.token=1: workload.token: unknown key (did you mean tokens?)"),
    ("workload.tokens=0", "workload.tokens: should be greater than or equal to 1, found 0"),
    ("workload.kind=tony", "workload.kind: unknown workload 'tony' (did you mean tiny?)"),
    ("workload=null", "workload: is missing (installed: tiny)"),
    ("workload=[]", "workload: expected a section with `kind: NAME`"),
    ("executor=ray", "executor.kind: unknown executor 'ray'"),
    ("probes=[loud]", "probes.0.kind: unknown probe 'loud'"),
    ("probes=quiet", "probes: expected a list"),
    ("probes=[remote]", "probes.0.url: is missing"),
    ("name=x y", "name: 'x y' has characters that are not allowed"),
    ("device=cpu", "device: unknown key"),
    ("source=x", "source: unknown key"),
    ("seed=-1", "seed: should be greater than or equal to 0, found -1"),
    ("seed=true", "seed: expected a number, found true"),
    ("budget.trials='5'", "budget.trials: expected a number, found '5' (leave the quotes out)"),
    ("budget.trials=1.5", "budget.trials: expected a whole number, found 1.5"),
    ("budget=5", "budget: expected a section of `key: value` lines, found 5"),
    ("equivalence.guard='no'", "equivalence.guard: expected true or false, found 'no'"),
    ("strategy=luck", "strategy: expected 'gp', 'tpe', 'random' or 'grid', found 'luck'"),
    ("protocol.blok_s=1", "protocol.blok_s: unknown key (did you mean block_s?)"),
    ("protocol.block_s=-1", "protocol.block_s: should be above 0, found -1.0"),
    ("protocol.min_blocks=0", "protocol.min_blocks: should be above 0, found 0"),
    ("protocol.max_measure_s=0.1", "min_measure_s = 0.5 is more than max_measure_s, 0.1"),
    ("parameters={}", "parameters: has 0 items, needs at least 1"),
    ("parameters.dtype.choices=[]", "parameters.dtype.choices: has 0 items, needs at least 1"),
    ("parameters.dtype.choices=[[1]]", "parameters.dtype.choices.0: expected a single value, found a list"),
    ("parameters.batch_size.default=3", "parameters.batch_size: default 3 is not one of the values [1, 2, 4, 8, 16]"),
    ("parameters.workers.int=[0, 99999999999]", "parameters.workers.int: more than 100,000 values"),
    ("parameters.workers.int=[0, x]", "parameters.workers.int: expected two whole numbers: [from, to]"),
    ("parameters.workers.int=[3, 1]", "parameters.workers: the range [3, 1] is empty"),
    ("parameters.workers.defualt=1", "parameters.workers.defualt: unknown key (did you mean default?)"),
    ("parameters.new.choices=[1]", "parameters.new.default: is missing"),
    ("parameters.device={choices: [1], default: 1}", "parameters: a parameter cannot be called device"),
    ("parameters.dtype.when=dtype == 1", "parameters.dtype.when: 'dtype' is no other parameter"),
    ("objectives=[]", "objectives: has 0 items, needs at least 1"),
    ("objectives.0.maximize=speed", "objectives.0.maximize: unknown metric 'speed'"),
    ("objectives.0.maximize=score", "objectives.0.maximize: score is what several objectives make"),
    ("objectives.0.weight=0", "objectives.0.weight: "),
    ("objectives.0.maximise=setup_s", "objectives.0.maximise: unknown key (did you mean maximize?)"),
    ("objectives.0.minimize=setup_s", "objectives.0: give either maximize or minimize"),
    ("limits.0=latency_p9_s <= 3 s", "limits.0: unknown metric 'latency_p9_s' (did you mean latency_p9"),
    ("limits.0=5", "limits.0: a limit is a text such as"),
    ("limits.9=5", "--set limits.9=5: limits has 2 items, counted from 0"),
    ("rules.0.forbid=batch_sise > 3", "rules.0.forbid: 'batch_sise' is no other parameter, nor device, devices or"),
    ("rules.0.forbid=dtype > 3", "rules.0.forbid: 'dtype > 3' cannot be decided for dtype ="),
    ("rules.0.forbid=batch_size / workers > 9", "rules.0.forbid: 'batch_size / workers > 9' cannot be calculated"),
    ("rules.0.forbid=batch_size =", "rules.0.forbid: 'batch_size =' is no expression"),
    ("rules.0.forbid=batch_size == 4", "'batch_size == 4' forbids the baseline (batch_size = 4)"),
    ("try_first=[{change: {batch_sise: 2}}]", "try_first.0.change.batch_sise: there is no parameter batch_sise (did"),
    ("try_first=[{change: {batch_size: 3}}]", "try_first.0.change.batch_size: 3 is not one of its values (it may be 1"),
    ("try_first=[{change: {dtype: bfloat16}}]", "try_first.0.change: this is not allowed (a rule forbids it"),
    ("try_first=[{change: {}}]", "try_first.0.change: has 0 items, needs at least 1"),
    ("budget.trials=off", "--set budget.trials=off: `off` means false in YAML"),
    ("budget.trials", "--set budget.trials: give a key and a value"),
    ("=1", "--set =1: give a key and a value"),
    ("budget.trials.x=1", "--set budget.trials.x=1: budget.trials is a value and has no keys below it"),
    ("a." * 50 + "b=1", "nested more than 32 levels deep"),
    ("name={a: [", "--set name={a: [: this is not YAML"),
]


@pytest.mark.parametrize(("override", "expected"), OVERRIDES, ids=lambda text: text[:40])
def test_every_mistake_is_one_line_that_says_where_and_what(good, override, expected):
    assert expected in said(good, override)


def test_a_mistake_in_the_file_names_its_line_and_how_many_more(good):
    good.write_text(GOOD.replace("trials: 5", "trails: 5, minutes: -1"))
    assert said(good) == f"{good}:21: budget.trails: unknown key (and 1 more) (did you mean trials?)"


def test_an_override_that_breaks_a_section_is_named_beside_it(good):
    assert said(good, "parameters.batch_size.default=3").startswith(
        f"{good}:5 with --set parameters.batch_size.default=3:"
    )


def test_what_is_no_file(tmp_path):
    assert "none.yaml: no such file" in said(tmp_path / "none.yaml")
    assert ": a directory, not a file" in said(tmp_path)
    assert "name too long" in said(tmp_path / ("x" * 5000))
    assert "no such file" in said(tmp_path / "a\0b")
    os.mkfifo(tmp_path / "fifo")
    assert "no such file" in said(tmp_path / "fifo")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ":1: the file is empty"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", ":1: not UTF-8 text"),
        (b"a: 1\nb: \x00\x01", ":2: the character"),
        (b"# " + b"x" * 10_000_000, ": more than 1 MiB"),
        (b"hello", ":1: a study file consists of `key: value` lines"),
        (b"- 1", ":1: a study file consists of `key: value` lines"),
        (b"workload: " + b"[" * 100, ":1: nested more than 32 levels deep"),
        (b"name: a\nname: b", ":2: 'name' was already given in line 1"),
        (b"name: a", ":1: workload: is missing"),
        (b"workload: {kind: tiny}\nparameters: {a: {choices: [1], default: 1}}", ":1: objectives: is missing"),
        (b"workload: tiny\nparameters:\n  a: 5\nobjectives: [{maximize: setup_s}]", ":3: parameters.a: expected"),
        (b'"a\\nb": 1\nworkload: tiny\nparameters: 1\nobjectives: 1', ":1: a b: unknown key (and 2 more)"),
    ],
)
def test_bad_content(tmp_path, content, expected):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert said(path).startswith(f"{path}{expected}")


def test_ten_megabytes_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"a: 1\n" * 2_000_000)
    monkeypatch.setattr(yaml_door.yaml, "parse", None)
    assert "more than 1 MiB" in said(path)


LINES = st.lists(st.sampled_from(GOOD.splitlines()), max_size=40)
WORDS = st.sampled_from(
    ["1", "-1", "true", "off", "[]", "{}", "null", "cpu_cores", "012", "'x'", "[1, 2]", "*a", "9" * 30]
)


CONTENT = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    LINES.map(lambda lines: "\n".join(lines).encode()),
)


def is_study_or_plain_error(path: Path) -> bool:
    try:
        load(path, (), TWO_CORES)
    except AutotuneError as error:
        return str(error).isprintable()
    return True


@settings(max_examples=150, deadline=5000, derandomize=True)
@given(content=CONTENT)
def test_any_file_is_a_study_or_a_plain_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    assert is_study_or_plain_error(path)


@settings(max_examples=200, deadline=5000, derandomize=True)
@given(line=st.integers(0, len(GOOD.splitlines()) - 1), word=WORDS, key=st.booleans())
def test_a_good_file_with_one_wrong_word_is_a_study_or_a_plain_error(tmp_path_factory, line, word, key):
    lines = GOOD.splitlines()
    before, colon, after = lines[line].partition(":")
    lines[line] = f"{before[: len(before) - len(before.lstrip())]}{word}:{after}" if key else f"{before}{colon} {word}"
    path = tmp_path_factory.getbasetemp() / "nearly.yaml"
    path.write_text("\n".join(lines))
    assert is_study_or_plain_error(path)
