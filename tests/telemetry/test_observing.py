"""What a study's events and its workers' measurements become, as a receiver sees it."""

import math
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from autotuner import telemetry
from autotuner.errors import MachineError
from autotuner.events import Note, PairMeasured, StudyEnded, StudyStarted, StudySummary, TrialEnded, TrialStarted
from autotuner.monitor.gpu import Gpu
from autotuner.observing import ObservedPool, observed
from autotuner.plugins import Job
from autotuner.testing.replay import Replay
from autotuner.types import (
    Binding,
    Decision,
    Diagnosis,
    Failure,
    FailureKind,
    Measurement,
    MeasurementProtocol,
    Origin,
    Pair,
    Trial,
    Verdict,
    Verification,
)

AT = datetime(2026, 1, 2, tzinfo=UTC)
MEASURED = Measurement(
    samples={"block_step_s": (0.1,) * 5, "windows_s": (3.0,), "outputs_s": (0.25,)},
    setup_s=2.0,
    warmup_s=1.0,
    duration_s=1.5,
    telemetry={},
    environment={},
    started_at=AT,
    reason="precision",
)
SIGNALS = {
    "power_w": 350.0, "gpu_energy_j": 525.0, "temperature_celsius": 60.0, "memory_used_bytes": 2.0**30,
    "gpu_busy_ratio": 0.9, "sm_busy_ratio": 0.5, "dram_busy_ratio": 0.7, "sm_clock_hz": 1.9e9,
    "pcie_tx_bytes_per_s": 4e6, "throttle_power_cap_ratio": 0.1, "ecc_corrected_errors": 2.0, "cpu_busy_ratio": 0.3,
}  # fmt: skip
GPU = Gpu(0, "GPU-1", "NVIDIA H200", 2**32, "580.1", is_replay=False)
IDENTITY = {"hw.id": "GPU-1", "hw.name": "NVIDIA H200", "hw.vendor": "NVIDIA", "hw.driver_version": "580.1"}
JOB = Job(Replay(kind="replay", step_s="0.001"), {}, MeasurementProtocol(), launch="search")


class Answers:
    """A pool that answers at once, with what it was told to."""

    slots = 1

    def __init__(self, *answers):
        self.answers = list(answers)
        self.closed = []

    def submit(self, job):
        future, answer = Future(), self.answers.pop(0)
        if answer is None:
            assert future.cancel()
        elif isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    def close(self, launch):
        self.closed.append(launch)


@pytest.fixture
def sent(monkeypatch, server):
    """Runs something in a session, and returns what was received."""

    def run(what):
        with server(200) as got:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.address)
            with telemetry.session() as delivery, telemetry.span("tune"):
                what()
        assert delivery.loss == ""
        return got

    return run


def test_a_workers_phases_lie_under_the_span_that_its_job_was_made_in(sent, attributes):
    def work():
        pool = ObservedPool(Answers(replace(MEASURED, reused=True), MEASURED))
        with telemetry.span("trial"):
            job = replace(JOB, trace_parent=telemetry.trace_parent())
        assert pool.submit(job).result().reused, "wherever the job ends, it belongs to its trial"
        with telemetry.span("verify"):
            pool.submit(replace(JOB, launch="contest0", trace_parent=telemetry.trace_parent())).result()

    got = sent(work)
    assert got.under(got.span("trial")) == got.under(got.span("verify")) == ["monitor"]
    first, second = [span for span in got.spans if span.name == "monitor"]
    assert got.under(first) == ["open", "warm_up", "measure", "outputs"]
    about = {"autotune.outcome": "measured", "autotune.reason": "precision"}
    assert attributes(first) == {**about, "autotune.launch": "search", "autotune.reused": True}
    assert attributes(second) == {**about, "autotune.launch": "contest0", "autotune.reused": False}
    began_ns = int(AT.timestamp() * 1e9)
    at_ms = {
        span.name: [round((at_ns - began_ns) / 1e6) for at_ns in (span.start_time_unix_nano, span.end_time_unix_nano)]
        for span in got.spans
        if span.parent_span_id == first.span_id
    }
    assert at_ms == {"open": [0, 2000], "warm_up": [2000, 3000], "measure": [3000, 6000], "outputs": [6000, 6250]}


def test_failures_of_jobs_and_machines_are_errors_of_their_span(sent):
    def work():
        failure = Failure(FailureKind.OUT_OF_MEMORY, "a secret of the workload")
        pool = ObservedPool(Answers(failure, MachineError("the disk is full"), None))
        assert pool.submit(JOB).result() == failure
        with pytest.raises(MachineError):
            pool.submit(JOB).result()
        assert pool.submit(JOB).cancelled()
        pool.close("search")
        assert pool.pool.closed == ["search"]

    got = sent(work)
    monitors = [span for span in got.spans if span.name == "monitor"]
    assert [span.status.message for span in monitors] == ["out_of_memory", "MachineError", "cancelled"]
    assert {span.status.code for span in monitors} == {2}
    assert b"a secret" not in b"".join(got.bodies)


def test_a_gpu_is_named_after_the_conventions(sent):
    asked = []

    def find(device):
        asked.append(device)
        return GPU

    def work():
        seen = replace(MEASURED, telemetry=SIGNALS)
        pool = ObservedPool(Answers(MEASURED, seen, replace(seen, telemetry={**SIGNALS, "gpu_lost": 1.0})), find)
        for _ in range(3):
            pool.submit(replace(JOB, device="cuda")).result()

    got = sent(work)
    assert asked == ["cuda"], "only when there is something to tell, and once"
    typed = {**IDENTITY, "hw.type": "gpu"}
    assert got.points("hw.power") == [(typed, 350.0)]
    assert got.points("hw.energy") == [(typed, 1050.0)]
    assert got.points("hw.temperature") == [(typed, 60.0)]
    assert got.points("hw.gpu.utilization") == [({**IDENTITY, "hw.gpu.task": "general"}, 0.9)]
    assert got.points("hw.gpu.memory.usage") == [(IDENTITY, 2.0**30)]
    assert got.points("hw.gpu.memory.limit") == [(IDENTITY, 2**32)]
    assert got.points("hw.gpu.memory.utilization") == [(IDENTITY, 0.25)]
    assert got.points("hw.gpu.io") == [({**IDENTITY, "network.io.direction": "transmit"}, 2 * 1.5 * 4e6)]
    assert got.points("hw.errors") == [({**typed, "error.type": "corrected"}, 4)]
    states = {about["hw.state"]: value for about, value in got.points("hw.status")}
    assert states == {"ok": 0, "failed": 1}
    units = {about["autotune.gpu.unit"]: value for about, value in got.points("autotune.gpu.utilization")}
    assert units == {"sm": 0.5, "dram": 0.7}
    assert {(metric.name, metric.unit) for metric in got.metrics if metric.name.startswith("hw.")} >= {
        ("hw.power", "W"), ("hw.energy", "J"), ("hw.temperature", "Cel"), ("hw.gpu.memory.usage", "By"),
        ("hw.gpu.utilization", "1"), ("hw.errors", "{error}"),
    }  # fmt: skip


def test_without_a_session_nobody_looks_for_a_gpu():
    pool = ObservedPool(Answers(replace(MEASURED, telemetry=SIGNALS)), find_gpu=lambda device: pytest.fail("asked"))
    assert pool.submit(replace(JOB, device="cuda")).result().telemetry == SIGNALS


def trial(number, outcome, value=None):
    verdict = None
    if value is not None:
        diagnosis = Diagnosis(Binding.COMPUTE, ceiling_ratio=0.8)
        verdict = Verdict({"throughput_tokens_per_s": value, "latency_p95_s": math.nan}, {}, diagnosis)
    return Trial(number, {"batch": number}, Origin.SAMPLER, outcome, verdict)


def test_events_become_metrics_and_log_records_and_still_reach_their_listener(sent, attributes):
    heard = []
    verification = Verification(Decision.BETTER, "it is", {}, {}, "throughput_tokens_per_s", 1.5, (1.4, 1.6))
    summary = StudySummary("s", Decision.BETTER, "it is", verification, 3, {}, {"setup": 2.0}, "", "", {})
    events = [
        StudyStarted("s", "throughput_tokens_per_s", True, 1, 3, 3, None, 0, "", "", ""),
        TrialStarted(0, {}, {}, Origin.BASELINE),
        TrialEnded(trial(0, MEASURED, 10.0), {}, 0, 4.0),
        TrialEnded(trial(1, replace(MEASURED, contended=True), 9.0), {"batch": 1}, 0, 8.0),
        TrialEnded(trial(2, Failure(FailureKind.CRASHED, "a secret", "logs/2.log")), {"batch": 2}, 0, 9.0),
        TrialEnded(trial(3, MEASURED, 15.0), {"batch": 3}, 3, 12.0),
        TrialEnded(trial(4, MEASURED, 11.0), {"batch": 4}, 3, 13.0),
        PairMeasured("contest0", Pair(0, 15.0, 10.0), 1, 1.5, (0.0, math.inf)),
        PairMeasured("contest0", Pair(0, 15.0, 10.0, contended=True), 2, 1.5, (1.2, 1.8)),
        Note("a worker was replaced"),
        StudyEnded(summary),
    ]

    def work():
        listener = observed(heard.append)
        for event in events:
            with telemetry.span(type(event).__name__):
                listener(event)

    got = sent(work)
    assert heard == events
    study = {"autotune.study": "s"}
    outcomes = [
        (about["autotune.outcome"], about.get("autotune.binding"), n) for about, n in got.points("autotune.trials")
    ]
    assert sorted(outcomes, key=str) == [
        ("contended", "compute", 1),
        ("crashed", None, 1),
        ("measured", "compute", 3),
    ]
    objective = {**study, "autotune.metric": "throughput_tokens_per_s"}
    assert got.points("autotune.trial.objective") == [(objective, 11.0)], "what is not finite is left out"
    assert got.points("autotune.study.best") == [(objective, 15.0)]
    assert got.points("autotune.study.elapsed") == [(study, 13.0)]
    assert sum(count for _, count in got.points("autotune.trial.duration")) == 5
    assert sorted(
        (about["autotune.contended"], count) for about, count in got.points("autotune.verification.pairs")
    ) == [(False, 1), (True, 1)]
    running = {about["autotune.bound"]: value for about, value in got.points("autotune.verification.gain")}
    assert running == {"estimate": 1.5, "low": 1.2, "high": 1.8}
    final = {about["autotune.bound"]: value for about, value in got.points("autotune.study.gain")}
    assert final == {"estimate": 1.5, "low": 1.4, "high": 1.6}
    assert got.points("autotune.studies") == [({"autotune.decision": "BETTER"}, 1)]
    assert got.points("autotune.study.phase.duration") == [({**study, "autotune.phase": "setup"}, 2.0)]
    told = {record.body.string_value: record for record in got.logs}
    assert list(told) == [
        "trial 0: measured", "trial 1: contended", "trial 2: crashed", "trial 3: measured", "trial 4: measured",
        "a worker was replaced",
        "BETTER: it is",
    ]  # fmt: skip
    assert told["trial 2: crashed"].severity_text == "WARN"
    assert attributes(told["trial 2: crashed"])["autotune.log"] == "logs/2.log"
    last = [span for span in got.spans if span.name == "TrialEnded"][-1]
    assert attributes(last)["autotune.objective.throughput_tokens_per_s"] == 11.0
    assert attributes(last)["autotune.changed"] == '{"batch": 4}'
    assert told["trial 4: measured"].span_id == last.span_id
    assert b"a secret" not in b"".join(got.bodies)
