"""The user's own code: every form of it, every mistake in it, in real processes where that is what counts."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autotuner.errors import InvalidConfigError, UsageError
from autotuner.executors.process import ProcessExecutor
from autotuner.monitor.recorder import Recorder
from autotuner.monitor.torch.counting import count_step
from autotuner.plugins import Job
from autotuner.testing.workloads import check_workload
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol, Outcome
from autotuner.workloads.python_object import PythonObject
from autotuner.workloads.python_source import definition_in, definition_of, imported, locate
from autotuner.workloads.stepping import as_generator, read

QUICK = MeasurementProtocol(block_s=0.001, warmup_min_s=0, warmup_max_s=0.1, min_measure_s=0, max_measure_s=0.1)

GENERATOR = """
import random
def train(config, lr=1.0):
    try:
        loss = 10.0
        while True:
            loss -= lr * random.random()
            yield {"samples": config["batch"], "loss": loss, "gradient_norm": lr}
    finally:
        open("closed", "w").close()
"""
REPORTING = """
import random
def train(config, report, lr=1.0):
    try:
        loss = 10.0
        while True:
            loss -= lr * random.random()
            report(samples=config["batch"], loss=loss, gradient_norm=lr)
    finally:
        open("closed", "w").close()
"""
CLASS = """
import random
class train:
    def __init__(self, config, lr=1.0):
        self.config, self.lr, self.loss = config, lr, 10.0
    def step(self):
        self.loss -= self.lr * random.random()
        return {"samples": self.config["batch"], "loss": self.loss, "gradient_norm": self.lr}
    def close(self):
        open("closed", "w").close()
"""
FORMS = {"generator": GENERATOR, "reporting": REPORTING, "class": CLASS}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code(text: str, **options: Any) -> PythonObject:
    Path("code_under_test.py").write_text(text)
    return PythonObject(**{"object": "code_under_test.py:train", "guard_steps": 4, "imports": (), **options})


def measure(workload: PythonObject, config: Any = None, **job: Any) -> Outcome:
    """In a process of its own."""
    with ProcessExecutor().open(workload.preload()) as pool:
        return pool.submit(Job(workload, config or {"batch": 2}, QUICK, log_path=Path("t.log"), **job)).result(60)


def failure(workload: PythonObject) -> Failure:
    found = measure(workload)
    assert isinstance(found, Failure), found
    return found


# --- the three forms


@pytest.mark.parametrize("form", FORMS)
def test_each_form_keeps_the_contract(form):
    workload = code(FORMS[form], options={"lr": 0.5})
    check_workload(workload, [{"batch": 2}, {"batch": 8}])
    with workload.open({"batch": 8}, "cpu") as opened:
        step = opened.step({"batch": 8})
    assert step.work == {"samples": 8.0}
    assert step.metrics["gradient_norm"] == 0.5, "options arrive"
    assert step.metrics["loss"] < 10


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_unwound_when_it_is_closed(form):
    with code(FORMS[form]).open({"batch": 2}, "cpu") as opened:
        opened.step({"batch": 2})
        assert not Path("closed").exists()
    assert Path("closed").exists()
    assert "code_under_test" not in sys.modules
    assert str(Path.cwd()) not in sys.path


@pytest.mark.parametrize("form", FORMS)
def test_each_form_trains_alike_and_the_seed_decides(form):
    losses = {}
    for seed in (0, 1):
        with code(FORMS[form], seed=seed).open({"batch": 2}, "cpu") as opened:
            opened.step({"batch": 2})
            outputs = opened.outputs({"batch": 2}, None)
            assert (opened.outputs({"batch": 2}, outputs)["losses"] == outputs["losses"]).all(), "it begins anew"
        losses[seed] = outputs["losses"]
        assert outputs["losses"].shape == outputs["gradient_norms"].shape == (1, 4)
        assert outputs["_other_losses"].shape == (3, 4)
        assert (outputs["_other_losses"] != outputs["losses"]).any()
    with code(GENERATOR, seed=0).open({"batch": 2}, "cpu") as opened:
        for _ in range(9):  # more than are compared
            opened.step({"batch": 2})
        again = opened.outputs({"batch": 2}, outputs)
    assert again.keys() == {"losses", "gradient_norms"}, "other seeds are the baseline's business"
    assert (again["losses"] == losses[0]).all()
    assert (losses[0] != losses[1]).all()


def test_code_that_seeds_itself_has_no_band():
    seeding = GENERATOR.replace("loss = 10.0", "random.seed(3); loss = 10.0")
    with code(seeding).open({"batch": 2}, "cpu") as opened:
        assert "_other_losses" not in opened.outputs({"batch": 2}, None)


def test_nothing_is_compared_when_no_loss_is_told():
    with code('def train(config):\n    while True:\n        yield {"tokens": 3}').open({}, "cpu") as opened:
        assert opened.outputs({}, None) == {}


@pytest.mark.parametrize("asks", [True, False])
def test_the_device_goes_to_whoever_asks_for_it(asks):
    text = "def train(config%s):\n    while True:\n        yield {'samples': 1, 'on_gpu': %s}"
    filled = text % ((", device", "device == 'cuda'") if asks else ("", "False"))
    with code(filled).open({}, "cuda") as opened:
        assert opened.step({}).metrics["on_gpu"] == asks


# --- a loop that somebody else owns


def test_a_reporting_loop_is_counted_like_any_other():
    text = """
import threading, torch
def train(config, report):
    weights = torch.ones(8, 8)
    with torch.no_grad():
        while True:
            weights @ weights
            report(samples=1, main=threading.current_thread() is threading.main_thread())
"""
    with code(text).open({}, "cpu") as opened:
        opened.step({})
        counts = count_step(lambda: opened.step({}), "cpu", 2**20)
        assert counts["step_flops"] == 2 * 8**3, "dispatch modes belong to a thread: the loop must run on this one"
        assert opened.step({}).metrics["main"] == 1.0, "signal handlers can be installed on the main thread alone"


def test_a_loop_that_passes_over_exceptions_ends_all_the_same():
    text = """
def train(config, report):
    while True:
        try:
            report(samples=1)
        except Exception:
            pass
"""
    with code(text).open({}, "cpu") as opened:
        opened.step({})
    with (
        pytest.raises(RuntimeError, match="went on after"),
        code(text.replace("Exception", "BaseException")).open({}, "cpu") as opened,
    ):
        opened.step({})


def test_reporting_from_another_thread_is_an_error():
    errors: list[BaseException] = []

    def loop(report: Any) -> None:
        def other() -> None:
            try:
                report(samples=1)
            except UsageError as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    assert list(as_generator(loop)) == []
    assert "another thread" in str(errors[0])


def test_a_loop_broken_by_its_counting_begins_anew():
    text = """
def train(config):
    for number in range(100):
        if open("break").read() == "now":
            raise ValueError("not under a dispatch mode")
        yield {"samples": number, "loss": float(number)}
"""
    Path("break").write_text("")
    with code(text).open({}, "cpu") as opened:
        assert [opened.step({}).work["samples"] for _ in range(3)] == [0, 1, 2]
        Path("break").write_text("now")
        with pytest.raises(ValueError, match="dispatch"):
            opened.step({})
        Path("break").write_text("")
        assert opened.step({}).work["samples"] == 0


# --- classes have more to offer

LIVE = """
class train:
    def __init__(self, config):
        self.opened_with, self.steps = config["batch"], 0
    def step(self, config):
        self.steps += 1
        return {"samples": config["batch"], "opened_with": self.opened_with, "loss": 1 / self.steps}
"""


def test_a_class_whose_step_takes_the_configuration_is_live():
    workload = code(LIVE)
    assert workload.fixed({"batch": 2}) == frozenset()
    with workload.open({"batch": 2}, "cpu") as opened:
        opened.step({"batch": 2})
        step = opened.step({"batch": 4})
        assert (step.work["samples"], step.metrics["opened_with"]) == (4, 2)
        losses = opened.outputs({"batch": 4}, {})["losses"]
        assert losses.tolist() == [[1, 1 / 2, 1 / 3, 1 / 4]], "of the first steps with this value"
        assert opened.step({"batch": 4}).metrics["opened_with"] == 4


@pytest.mark.parametrize("form", FORMS)
def test_what_is_handed_the_configuration_once_cannot_be_live(form):
    assert code(FORMS[form]).fixed({"batch": 2}) == {"batch"}


def test_a_class_may_give_its_own_outputs_and_largest_step():
    text = """
import torch
class train:
    def __init__(self, config): pass
    def step(self): return {"samples": 1}
    def worst_step(self): return {"samples": 100}
    def outputs(self): return {"answers": torch.ones(3, dtype=torch.bfloat16), "rows": [[1, 2], [3, 4]]}
"""
    with code(text).open({}, "cpu") as opened:
        assert opened.worst_step({}).work == {"samples": 100}
        outputs = opened.outputs({}, None)
        assert {name: array.shape for name, array in outputs.items()} == {"answers": (1, 3), "rows": (2, 2)}
    with code(CLASS).open({"batch": 1}, "cpu") as opened:
        assert not hasattr(opened, "worst_step"), "its absence says that all steps are alike"


# --- what a step says


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (None, "a step said nothing and not a dict"),
        (32, "a step said a int and not a dict"),
        ({}, "no amount of work, only nothing"),
        ({"loss": 1.0}, "no amount of work, only loss"),
        ({"samples": "many"}, "samples is a str and not a number"),
        ({"samples": 1, "loss": [1.0, 2.0]}, "loss is a list and not a number"),
    ],
)
def test_a_report_that_says_too_little_is_told_what_to_say(report, sentence):
    with pytest.raises(InvalidConfigError, match=sentence) as raised:
        read(report, waits=True)
    assert "\n" not in str(raised.value)


def test_what_lies_on_a_gpu_is_not_waited_for_at_every_step():
    loss = SimpleNamespace(device="cuda:0", item=lambda: 2.0)
    assert read({"samples": 1, "loss": loss}, waits=True).metrics == {"loss": 2.0}
    assert read({"samples": 1, "loss": loss, "input_wait_s": 0.1}, waits=False).metrics == {"input_wait_s": 0.1}
    assert read({"samples": 1, "gradient_norm": None}, waits=True).metrics == {}


WORKING_AHEAD = """
import multiprocessing as mp, time

def prepare(count):
    while True:
        with count.get_lock():
            count.value += 1
        time.sleep(0.001)

def train(config):
    count = mp.Value("i", 0)
    worker = mp.Process(target=prepare, args=(count,), daemon=True)
    worker.start()
    try:
        while True:
            yield {"samples": 1, "prepared": count.value}
    finally:
        worker.terminate()  # which a stopped process does not hear
        worker.join(10)
"""


def test_what_works_ahead_is_stopped_between_windows():
    """Its own children only; and they work again for the next step, and to end."""
    config = {"num_workers": 2}
    with subprocess.Popen(["sleep", "60"]) as other, code(WORKING_AHEAD).open(config, "cpu") as opened:

        def prepared():
            return opened.step(config).metrics["prepared"]

        assert opened.cycle_steps(config) == 2
        assert opened.cycle_steps({"num_workers": 0}) == 1
        while not prepared():
            time.sleep(0.01)
        opened.idle()
        assert psutil.Process(other.pid).status() != psutil.STATUS_STOPPED
        before = prepared()  # by which they go on
        while prepared() == before:
            time.sleep(0.01)
        opened.idle()
        stopped = [child for child in psutil.Process().children() if child.status() == psutil.STATUS_STOPPED]
        assert len(stopped) == 1
        other.kill()
    assert not psutil.pid_exists(stopped[0].pid)


# --- mistakes that the text shows


@pytest.mark.parametrize(
    ("text", "target", "sentence"),
    [
        (GENERATOR, "nowhere.py:train", "there is no nowhere.py"),
        (GENERATOR, "no_such_module_:train", "there is no module no_such_module_"),
        (GENERATOR, "code_under_test.py:trian", "has no 'trian' \\(did you mean train\\?"),
        ("def train(config):\n    yield (", None, "code_under_test.py, line 2: '\\(' was never closed"),
        ("def train(config): return 1", None, "cannot be stepped"),
        ("async def train(config): yield 1", None, None),
        ("class train:\n    def run(self): ...", None, "cannot be stepped"),
        ("def train(): yield 1", None, "too many positional"),
        ("def train(config, lr): yield 1", None, "missing a required argument: 'lr'"),
        ("def train(config, *, lr): yield 1", None, "missing a required argument: 'lr'"),
        ("class train:\n    def __init__(self, config, lr): ...\n    def step(self): ...", None, "'lr'"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(text, target, sentence):
    workload = code(text, **({"object": target} if target else {}))
    if sentence is None:
        workload.check()  # only importing it tells
        assert failure(workload).kind is FailureKind.INVALID_CONFIG
        return
    with pytest.raises(UsageError, match=sentence) as raised:
        workload.check()
    assert "\n" not in str(raised.value)


def test_an_option_that_it_does_not_take_is_named():
    with pytest.raises(UsageError, match=r"unexpected keyword argument 'lrr' .*\(config, lr\)"):
        code(GENERATOR, options={"lrr": 1}).check()
    with pytest.raises(ValueError, match="device cannot be an option"):
        code(GENERATOR, options={"device": "cpu"})
    with pytest.raises(ValueError, match=r"file\.py:name"):
        PythonObject(object="train.py")


def test_nothing_is_run_to_check_it():
    code("raise SystemExit\n" + GENERATOR).check()
    Path("a_package").mkdir()
    Path("a_package/__init__.py").write_text("raise SystemExit")
    Path("a_package/loop.py").write_text(GENERATOR)
    PythonObject(object="a_package.loop:train").check()
    with pytest.raises(UsageError, match="has no 'brain'"):
        PythonObject(object="a_package.loop:brain").check()


DEFINITIONS = """
from functools import wraps
def generator(config, /, a, b=1, *more, c, d=2, **rest): yield 1
def reporting(config, report): ...
def neither(config):
    def inner(): yield 1
    return [i for i in inner()]
def within(config):
    if config:
        for _ in (): yield 1
class stepped:
    def __init__(self, config, lr=1): ...
    def step(self): ...
class live:
    def step(self, config): ...
class unstepped: ...
"""


def test_the_text_and_the_imported_object_say_the_same():
    Path("definitions.py").write_text(DEFINITIONS)
    for name in ("generator", "reporting", "neither", "within", "stepped", "live", "unstepped"):
        source = locate(f"definitions.py:{name}")
        seen = definition_in(source)
        assert seen is not None
        with imported(source) as target:
            found = definition_of(target)
        assert (seen.form, seen.live) == (found.form, found.live), name
        shapes = [
            [(p.name, p.kind, p.default is p.empty) for p in definition.signature.parameters.values()]
            for definition in (seen, found)
        ]
        assert shapes[0] == shapes[1], name


def test_what_the_text_hides_is_left_to_the_worker():
    hidden = "import functools\ndef loop(config, n): yield {'samples': n}\ntrain = functools.partial(loop, n=3)"
    workload = code(hidden)
    workload.check()
    assert workload.fixed({"a": 1}) == {"a"}
    with workload.open({}, "cpu") as opened:
        assert opened.step({}).work == {"samples": 3}


def test_a_file_with_the_name_of_another_module_is_refused():
    Path("json.py").write_text(GENERATOR)
    with (
        pytest.raises(UsageError, match="another module is called json"),
        PythonObject(object="json.py:train", imports=()).open({}, "cpu"),
    ):
        pass
    assert sys.modules["json"] is json


# --- in processes of their own


@pytest.mark.parametrize("form", ["generator", "reporting"])
def test_memory_that_runs_out_in_the_loop_is_recognised(form):
    text = FORMS[form].replace("loss -= lr", "if loss < 8: raise MemoryError('no room')\n            loss -= lr")
    found = failure(code(text))
    assert found.kind is FailureKind.OUT_OF_MEMORY
    log = Path("t.log").read_text()
    assert "MemoryError: no room" in log
    assert 'code_under_test.py", line' in log, "the user's own lines are in the traceback"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (GENERATOR.replace("while True", "for _ in range(12)"), FailureKind.INVALID_CONFIG, "ended after 12 steps"),
        (REPORTING.replace("while True", "for _ in range(12)"), FailureKind.INVALID_CONFIG, "ended after 12 steps"),
        (REPORTING.replace("while True", "while lr // 0"), FailureKind.CRASHED, "ZeroDivisionError"),
        (CLASS.replace("self.loss -=", "self.lost -="), FailureKind.CRASHED, "AttributeError: 'train' object has no"),
        (GENERATOR.replace("loss = 10.0", "loss = float('nan')"), FailureKind.NOT_FINITE, "loss is nan"),
        ("import no_such_library\n" + GENERATOR, FailureKind.CRASHED, "No module named 'no_such_library'"),
        ("if 1: train = 3", FailureKind.INVALID_CONFIG, "cannot be stepped"),
    ],
)
def test_a_failure_is_the_users_own(text, kind, message):
    found = failure(code(text))
    assert found.kind is kind, found
    assert message in found.message
    assert found.log_path == "logs/t.log"


def test_losses_are_compared_across_processes():
    reference, workload = Path("reference.npz").resolve(), code(GENERATOR)
    first = measure(workload, reference_path=reference, writes_reference=True)
    again = measure(workload, {"batch": 4}, reference_path=reference)
    other = measure(code(GENERATOR, options={"lr": 2.0}), reference_path=reference)
    assert isinstance(first, Measurement)
    assert isinstance(again, Measurement)
    assert isinstance(other, Measurement)
    assert again.samples["output_identical"] == (1.0,)
    assert again.environment["model"] == "code_under_test.py:train"
    assert other.samples["output_identical"] == (0.0,)
    assert other.samples["loss_error_ratio"][0] > 0.05
    assert other.samples["gradient_norm_error_ratio"][0] == pytest.approx(1.0)
    assert math.isfinite(other.samples["loss_band_ratio"][0])


def test_each_process_imports_the_file_afresh():
    assert isinstance(measure(code(GENERATOR)), Measurement)
    text = "from beside import train"
    Path("beside.py").write_text(GENERATOR)
    assert isinstance(measure(code(text)), Measurement), "its folder is on the path"
    Path("beside.py").write_text("def train(config): yield 1 / 0")
    with ProcessExecutor().open() as pool:
        jobs = [Job(code(text), {"batch": n}, QUICK, launch=str(n)) for n in (1, 2)]
        assert "ZeroDivisionError" in pool.submit(jobs[0]).result(60).message
        Path("beside.py").write_text(GENERATOR)
        assert isinstance(pool.submit(jobs[1]).result(60), Measurement)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loader_processes_find_the_users_classes(start):
    text = f"""
import torch
from torch.utils.data import DataLoader, Dataset
class Numbers(Dataset):
    def __len__(self): return 64
    def __getitem__(self, index): return torch.tensor(float(index))
def train(config):
    loader = DataLoader(Numbers(), 4, num_workers=2, multiprocessing_context={start!r}, persistent_workers=True)
    while True:
        for batch in loader:
            yield {{"samples": len(batch), "loss": batch.mean()}}
"""
    found = measure(code(text, imports=("torch",)))
    assert isinstance(found, Measurement), found


def test_recorder_measures_it_in_this_process_too():
    with Recorder() as recorder:
        found = recorder.measure(Job(code(CLASS), {"batch": 3}, QUICK))
    assert isinstance(found, Measurement)
    assert len(found.samples["throughput_samples_per_s"]) >= 5
    assert found.samples["loss"]


# --- what it says of itself


def test_identity_is_the_text_and_the_options():
    first = code(GENERATOR).identity()
    assert first["model"] == "code_under_test.py:train"
    assert code(GENERATOR).identity() == first
    assert code(GENERATOR + "\n# more").identity() != first
    assert code(GENERATOR, options={"lr": 2}).identity() != first


def test_ranks_are_the_product_of_their_parameters():
    assert code(GENERATOR).ranks({"batch": 4}) == 1
    workload = code(GENERATOR, rank_parameters=("data_parallel", "tensor_parallel"))
    assert workload.ranks({"data_parallel": 2, "tensor_parallel": 3}) == 6
    for config in ({"data_parallel": 2}, {"data_parallel": 2, "tensor_parallel": "two"}):
        with pytest.raises(UsageError, match="tensor_parallel"):
            workload.ranks(config)


@pytest.fixture(autouse=True)
def _restores_the_seed() -> Iterator[None]:
    import random

    state = random.getstate()
    yield
    random.setstate(state)
