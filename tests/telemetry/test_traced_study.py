"""A whole study, worker processes included, as one trace at a real receiver; and with a collector that is dead."""

import json

import pytest

from autotuner import api
from autotuner.events import Event, Note, StudyEnded
from autotuner.types import Decision

STUDY = """
workload: {kind: replay, step_s: "0.004 + 0.001 * batch", tokens: "batch", fault: {segfault: "mode == 'b'"}}
parameters:
  batch: {powers_of_two: [1, 16], default: 1, live: true, memory: true}
  mode: {choices: [a, b], default: a}
objectives: [{maximize: throughput_tokens_per_s}]
budget: {trials: 8}
protocol:
  {block_s: 0.005, warmup_min_s: 0.01, warmup_max_s: 0.5, min_measure_s: 0.03, max_measure_s: 0.2, time_limit_s: 10}
"""


@pytest.fixture
def start(tmp_path):
    events: list[Event] = []

    def run() -> tuple[api.StudySummary, list[Event]]:
        (tmp_path / "s.yaml").write_text(STUDY)
        return api.start(tmp_path / "s.yaml", db=str(tmp_path / "autotune.db"), listener=events.append), events

    return run


def inside(inner, outer) -> bool:
    slack_ns = 5_000_000  # a worker's times are differences of another clock
    return (
        outer.start_time_unix_nano - slack_ns <= inner.start_time_unix_nano
        and inner.end_time_unix_nano <= outer.end_time_unix_nano + slack_ns
    )


@pytest.mark.slow
def test_a_study_is_one_trace_with_its_workers_nested_rightly(monkeypatch, tap, attributes, start):
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
    with tap() as got:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", got.address)
        summary, events = start()
    assert summary.decision is Decision.BETTER, summary.reason
    assert not [event for event in events if isinstance(event, Note) and "telemetry" in event.text]
    tune = got.span("tune")
    assert tune.parent_span_id == b""
    assert {span.trace_id for span in got.spans} == {tune.trace_id}
    by_id = {span.span_id: span for span in got.spans}
    assert [span.name for span in got.spans if not inside(span, by_id.get(span.parent_span_id, span))] == []
    below = got.under(tune)
    assert below[:4] == ["adjust", "trial", "adjust", "trial"]
    assert below[-1] == "verify"
    assert (below.count("trial"), below.count("adjust")) == (8, 8 + (below[-2] == "adjust"))
    trials = sorted(
        (span for span in got.spans if span.name == "trial"), key=lambda span: attributes(span)["autotune.trial"]
    )
    assert [attributes(span)["autotune.trial"] for span in trials] == list(range(8))
    assert got.under(trials[0])[:2] == ["monitor", "analyze"]
    monitor = next(span for span in got.spans if span.parent_span_id == trials[0].span_id and span.name == "monitor")
    assert got.under(monitor)[:3] == ["open", "warm_up", "measure"]
    crashed = [span for span in trials if attributes(span)["autotune.outcome"] == "crashed"]
    assert crashed
    assert {json.loads(attributes(span)["autotune.changed"])["mode"] for span in crashed} == {"b"}
    assert [got.under(span) for span in crashed] == [["monitor"]] * len(crashed)
    windows = got.under(got.span("verify"))
    assert set(windows) == {"monitor"}
    assert len(windows) >= 12, "both arms, in at least three launches, in pairs"
    outcomes = {about["autotune.outcome"]: count for about, count in got.points("autotune.trials")}
    assert sum(count for _, count in got.points("autotune.trials")) == 8
    assert outcomes["crashed"] == len(crashed)
    assert got.points("autotune.studies") == [({"autotune.decision": "BETTER"}, 1)]
    verified = {about["autotune.bound"]: value for about, value in got.points("autotune.study.gain")}
    assert summary.verification is not None
    assert verified["estimate"] == pytest.approx(summary.verification.gain_ratio)
    told = {record.body.string_value.partition(":")[0]: record for record in got.logs}
    assert told["trial 0"].span_id == trials[0].span_id
    assert told["BETTER"].span_id == tune.span_id


@pytest.mark.slow
def test_a_study_with_a_dead_collector_comes_to_the_same_and_says_what_was_lost(monkeypatch, free_port, start):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    summary, events = start()
    assert summary.decision is Decision.BETTER, summary.reason
    *_, ended, note = events
    assert isinstance(ended, StudyEnded)
    assert isinstance(note, Note)
    assert "could not be delivered" in note.text
