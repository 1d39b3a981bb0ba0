"""The recorder on workloads with known truth: what is measured, when it stops, and what becomes of failures."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal

import pytest

from autotuner.errors import InvalidConfigError, MachineError, UnsupportedError
from autotuner.metrics import median, value_of
from autotuner.monitor import recorder
from autotuner.monitor.gpu import Condition
from autotuner.monitor.recorder import Recorder, _first_line, classify
from autotuner.monitor.window import NotFiniteError
from autotuner.plugins import Job, Probe, ProbeReader, Rival, Step, Workload
from autotuner.testing.replay import Replay
from autotuner.types import Failure, FailureKind, Measurement, MeasurementProtocol, Metrics

QUICK = MeasurementProtocol(
    block_s=0.01, warmup_min_s=0.02, warmup_max_s=0.5, min_measure_s=0.05, max_measure_s=0.5, contended_retries=0
)


pytestmark = pytest.mark.usefixtures("simulated_clock")


def job(workload: Workload | None = None, protocol: MeasurementProtocol = QUICK, **more: Any) -> Job:
    return Job(workload or Replay(step_s="0.002 * size", tokens="10"), {"size": 1}, protocol, **more)


def measure(what: Job) -> Measurement:
    with Recorder() as opened:
        outcome = opened.measure(what)
    assert isinstance(outcome, Measurement), outcome
    return outcome


class Growing(Workload):
    """Gets faster with every step, like a clock that ramps up."""

    kind: Literal["growing"] = "growing"
    steps: ClassVar[list[int]] = []

    @contextmanager
    def open(self, config: Any, device: str) -> Iterator[Any]:
        self.steps.clear()
        yield self

    def step(self, config: Any) -> Step:
        self.steps.append(1)
        time.sleep(max(0.002, 0.04 - 0.002 * len(self.steps)))
        return Step(work={"samples": 1})

    def outputs(self, config: Any, reference: Any) -> dict[str, Any]:
        return {}


class Turns(Growing):
    """One step in four is slow, as where gradients are accumulated; it says so, or not."""

    kind: Literal["turns"] = "turns"  # type: ignore[assignment]
    uneven: bool

    def step(self, config: Any) -> Step:
        self.steps.append(1)
        time.sleep(0.09 if len(self.steps) % 4 == 0 else 0.01)
        return Step(work={"samples": 1})


class TwoFaced(Growing):
    """Half of the steps, by chance, are six times slower, for ever: the median never settles."""

    kind: Literal["two-faced"] = "two-faced"  # type: ignore[assignment]

    def step(self, config: Any) -> Step:
        self.steps.append(1)
        time.sleep(0.012 if Random(len(self.steps)).random() < 0.5 else 0.002)
        return Step(work={"samples": 1})


class Serving(Growing):
    """Gets warm by itself; of each step of 40 ms 20 are its work, in which it answered two requests."""

    kind: Literal["serving"] = "serving"  # type: ignore[assignment]
    second_s: float = 0.03
    warmed: ClassVar[list[Any]] = []

    def warm_up(self, config: Any) -> None:
        self.warmed.append(dict(config))

    def step(self, config: Any) -> Step:
        self.steps.append(1)
        time.sleep(0.04)
        return Step({"requests": 2}, {}, {"latency_s": (0.01, self.second_s)}, 0.02)

    def processes(self) -> list[int]:
        return [os.getpid()]


class Disturbed(Probe):
    """Reports contention in its first windows."""

    kind: Literal["disturbed"] = "disturbed"
    windows: int

    @contextmanager
    def open(self, device: str) -> Iterator[ProbeReader]:
        yield DisturbedReader(self.windows)


class DisturbedReader:
    def __init__(self, windows: int) -> None:
        self._reads, self._windows = 0, windows

    def read(self) -> Metrics:
        self._reads += 1  # each window reads twice: before and after
        disturbed = self._reads <= 2 * self._windows
        return {"cpu_steal_ratio": 0.5 if disturbed else 0.0}


def test_rate_latency_and_work_agree() -> None:
    seen = measure(job())
    rate = value_of("throughput_tokens_per_s", seen.samples)
    step_s = median(seen.samples["block_step_s"])
    assert rate == pytest.approx(10 / step_s, rel=0.05)
    assert min(seen.samples["latency_s"]) >= 0.002
    assert len(seen.samples["block_step_s"]) == len(seen.samples["throughput_tokens_per_s"]) >= 5


def test_blocks_are_long_enough_and_single_steps_are_not_evidence() -> None:
    seen = measure(job())
    steps, blocks = len(seen.samples["latency_s"]), len(seen.samples["block_step_s"])
    assert steps >= 3 * blocks


@pytest.mark.parametrize(("uneven", "step_s"), [(True, 0.03), (False, 0.01)])
def test_where_steps_take_turns_all_work_counts_over_all_time(uneven: bool, step_s: float) -> None:
    seen = measure(job(Turns(uneven=uneven), replace(QUICK, precision_ratio=0.0, max_measure_s=2.4)))
    assert value_of("throughput_samples_per_s", seen.samples) == pytest.approx(1 / step_s, rel=0.05)
    assert value_of("step_s", seen.samples) == pytest.approx(step_s, rel=0.05)
    mfu = {**seen.samples, "mfu_ratio": tuple(0.005 / block_s for block_s in seen.samples["block_step_s"])}
    assert value_of("mfu_ratio", mfu) == pytest.approx(0.005 / step_s, rel=0.05)


def test_first_step_counts_as_setup_not_as_warm_up() -> None:
    seen = measure(job(Replay(step_s="0.05", open_s=0.1), replace(QUICK, warmup_min_steps=1)))
    assert seen.setup_s >= 0.15


def test_warm_up_lasts_until_the_slope_is_gone() -> None:
    seen = measure(job(Growing(), replace(QUICK, warmup_max_s=5)))
    assert median(seen.samples["latency_s"]) < 0.015, "most of the ramp from 40 ms to 2 ms must lie in the warm-up"


def test_warm_up_is_capped() -> None:
    seen = measure(job(Growing(), replace(QUICK, warmup_max_s=0.1)))
    assert seen.warmup_s < 0.3


def test_second_window_of_a_warm_workload_warms_up_one_step() -> None:
    with Recorder() as opened:
        first, second = opened.measure(job()), opened.measure(job())
    assert isinstance(first, Measurement)
    assert isinstance(second, Measurement)
    assert second.reused
    assert second.setup_s < 0.001
    assert second.warmup_s < first.warmup_s / 2


def test_live_change_warms_up_again() -> None:
    with Recorder() as opened:
        opened.measure(job())
        changed = opened.measure(replace(job(), config={"size": 3}))
    assert isinstance(changed, Measurement)
    assert changed.reused
    assert changed.warmup_s >= QUICK.warmup_min_s


def test_stops_at_precision_or_at_the_limit() -> None:
    assert measure(job(protocol=replace(QUICK, precision_ratio=10.0))).reason == "precision"
    assert measure(job(TwoFaced(), replace(QUICK, precision_ratio=1e-9, max_measure_s=0.2))).reason == "max_measure_s"


def test_stops_when_more_samples_do_not_help() -> None:
    endless = replace(QUICK, block_s=1e-6, precision_ratio=1e-6, max_measure_s=120)
    assert measure(job(TwoFaced(), endless)).reason == "plateau"


@pytest.mark.parametrize(("times_as_fast", "is_far"), [(0.2, False), (1.0, False), (4.0, True)])
def test_what_is_far_behind_the_best_is_not_measured_to_the_end(times_as_fast: float, is_far: bool) -> None:
    long = replace(QUICK, precision_ratio=1e-9, max_measure_s=2.0)
    alone = measure(job(TwoFaced(), long))
    best = times_as_fast * value_of("throughput_samples_per_s", alone.samples)
    seen = measure(job(TwoFaced(), long, rival=Rival("throughput_samples_per_s", best)))
    assert seen.reason == ("far behind the best so far" if is_far else alone.reason)
    assert (seen.duration_s < 0.6 * alone.duration_s) == is_far
    assert len(seen.samples["block_step_s"]) >= long.min_blocks  # it has an interval all the same


def test_where_steps_take_turns_the_rate_over_all_time_is_compared() -> None:
    """The median of its blocks is a third of it."""
    long = replace(QUICK, precision_ratio=1e-9, max_measure_s=4.0)
    alone = measure(job(Turns(uneven=True), long))
    best = value_of("throughput_samples_per_s", alone.samples)
    seen = measure(job(Turns(uneven=True), long, rival=Rival("throughput_samples_per_s", best)))
    assert seen.reason == alone.reason


def test_contended_window_is_measured_again() -> None:
    seen = measure(job(protocol=replace(QUICK, contended_retries=1), probes=(Disturbed(windows=1),)))
    assert not seen.contended


def test_contention_that_stays_is_marked_with_its_reason() -> None:
    seen = measure(job(protocol=replace(QUICK, contended_retries=1), probes=(Disturbed(windows=9),)))
    assert seen.contended
    assert seen.reason not in ("", "precision", "plateau", "max_measure_s")


def test_baseline_leaves_a_reference_and_others_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    baseline = measure(job(reference_path=path, writes_reference=True))
    assert baseline.samples["output_identical"] == (1.0,)
    off = measure(job(Replay(step_s="0.001", output_error="0.01"), reference_path=path))
    assert off.samples["output_identical"] == (0.0,)
    assert off.samples["output_error_ratio"][0] == pytest.approx(0.01)


def test_not_finite_outputs_are_a_failure(tmp_path: Path) -> None:
    broken = Replay(step_s="0.001", fault={"not_finite": "True"})
    with Recorder() as opened:
        outcome = opened.measure(job(broken, reference_path=tmp_path / "r.npz", writes_reference=True))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.NOT_FINITE
    assert not (tmp_path / "r.npz").exists()


def test_interrupt_is_not_a_failure_of_the_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder.Recorder, "_measure", interrupt)
    with Recorder() as opened, pytest.raises(KeyboardInterrupt):
        opened.measure(job())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), FailureKind.OUT_OF_MEMORY),
        (NotFiniteError("loss is nan"), FailureKind.NOT_FINITE),
        (UnsupportedError("no kernel"), FailureKind.UNSUPPORTED),
        (NotImplementedError("later"), FailureKind.UNSUPPORTED),
        (InvalidConfigError("no"), FailureKind.INVALID_CONFIG),
        (KeyError("x"), FailureKind.CRASHED),
        (SystemExit(1), FailureKind.CRASHED),
    ],
)
def test_classify(error: BaseException, kind: FailureKind) -> None:
    assert classify(error) is kind


@pytest.mark.parametrize(("state", "is_machines"), [("gpu_lost", True), ("reset_required", True), ("ready", False)])
def test_a_gpu_that_is_gone_is_the_machines_fault(monkeypatch, state: str, is_machines: bool) -> None:
    """Injected: what NVML says of the GPU after the step has failed."""
    monkeypatch.setattr(recorder.gpu, "state", lambda device: Condition(state, "the GPU is lost", "restart"))
    broken = job(Replay(fault={"error": "size > 0"}), device="cuda")
    with Recorder() as opened:
        if is_machines:
            with pytest.raises(MachineError, match="the GPU is lost"):
                opened.measure(broken)
        else:
            assert isinstance(opened.measure(broken), Failure)


def test_what_a_step_says_of_its_own_latencies_and_time():
    Serving.warmed.clear()
    found = measure(job(Serving(second_s=math.inf)))
    assert Serving.warmed == [{"size": 1}]
    assert len(Serving.steps) == len(found.samples["throughput_steps_per_s"])  # none was spent on getting warm
    assert found.samples["throughput_requests_per_s"][0] == pytest.approx(100, rel=0.01)  # 2 in 20 ms, not in 40
    assert set(found.samples["latency_s"]) == {0.01, math.inf}  # what never came is a sample as well
    assert found.samples["peak_memory_bytes"][0] > 1e6


def test_a_latency_that_is_no_number_fails_the_trial():
    with Recorder() as opened:
        outcome = opened.measure(job(Serving(second_s=math.nan)))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.NOT_FINITE


def test_a_foreign_error_tells_its_place_in_the_users_own_file(tmp_path):
    """Not the library's in which it was raised, whatever that is called; ours speak for themselves."""
    file = tmp_path / "autotuner_mine" / "train.py"
    file.parent.mkdir()
    file.write_text("import json\n\n\ndef load():\n    return json.loads('{')\n")
    code = compile(file.read_text(), str(file), "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    with pytest.raises(json.JSONDecodeError) as caught:
        names["load"]()
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # this file is the user's as well
    assert _first_line(caught.value).endswith("(train.py:5)")
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    caught.value.__traceback__ = caught.value.__traceback__.tb_next
    assert "(" not in _first_line(caught.value).partition("char")[2]
    assert _first_line(InvalidConfigError("no such file")) == "no such file"
