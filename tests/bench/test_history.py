"""What a history says: pure functions, on runs with known numbers."""

import math
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from autotuner.bench.judge import of_history
from autotuner.bench.trend import changes_in, left_out, past_of, trend_of
from autotuner.report.bench import bench_json, bench_summary, headline, history_table, sides
from autotuner.report.bench_files import fails, junit, markdown
from autotuner.report.terminal import render
from autotuner.types import BenchDecision, BenchKey, BenchReport, BenchRun

HERE = {"cpu": "A", "cores": "2", "torch": "2.13"}
RATE = BenchKey("bench.yaml", "main", "", "throughput_samples_per_s", True)
LATENCY = replace(RATE, metric="latency_p50_s", maximize=False)
REGRESSION, FASTER, SAME, UNCLEAR, INVALID = BenchDecision


def runs(count, value=100.0, key=RATE, seed=0, first=0, noise=0.01, **facts):
    rng, day = random.Random(seed), datetime(2026, 1, 1, 12, tzinfo=UTC)
    values = [value * math.exp(rng.gauss(0.0, noise)) for _ in range(count)]
    return [
        BenchRun(
            key=key,
            revision=f"{first + place:012x}",
            environment=HERE,
            decision=SAME,
            reason="",
            value=one,
            launch_values=(0.99 * one, one, 1.01 * one),
            metrics={key.metric: one},
            created_at=day + timedelta(days=first + place),
            **facts,
        )
        for place, one in enumerate(values)
    ]


def judge(history, margin=0.05):
    return of_history(past_of(history, HERE), history[-1], margin)


@pytest.mark.parametrize(("key", "factor"), [(RATE, 0.9), (LATENCY, 1.1)])
def test_a_level_that_got_worse_fails_once(key, factor):
    history = runs(25, key=key)
    said = []
    for run in runs(15, 100.0 * factor, key, seed=1, first=25):
        found = judge([*history, run])
        said.append(found.decision)
        history.append(replace(run, decision=found.decision))
    assert said.count(REGRESSION) == 1
    assert said.index(REGRESSION) < 10
    assert set(said) == {SAME, REGRESSION}
    assert "said" in judge(history + runs(1, 100.0 * factor, key, seed=9, first=40)).reason


def test_asking_again_makes_no_revision_good():
    history = runs(25) + runs(10, 90.0, seed=1, first=25)
    found = judge(history)
    assert found.decision is REGRESSION
    assert found.gain_interval[1] < 1
    told = replace(history[-1], decision=REGRESSION)
    assert judge([*history[:-1], told, replace(told, value=90.0)]).decision is REGRESSION
    assert judge([*history[:-1], told, replace(told, value=90.0, revision="another")]).decision is SAME


def test_better_is_faster_and_little_is_the_same():
    assert judge(runs(25) + runs(10, 120.0, seed=1)).decision is FASTER
    assert judge(runs(30) + runs(20, 97.0, seed=1)).decision is SAME
    assert "within the margin" in judge(runs(30) + runs(20, 97.0, seed=1)).reason


def test_noise_alone_never_fails_and_few_runs_are_unclear():
    for seed in range(5):
        assert judge(runs(60, seed=seed)).decision is SAME
    assert judge(runs(7)).decision is UNCLEAR


def test_runs_of_other_environments_do_not_mix():
    elsewhere = {**HERE, "cpu": "B"}
    other = [replace(run, environment=elsewhere) for run in runs(30, 50.0)]
    past = past_of(other + runs(30, seed=2), HERE)
    assert past.drift.changes == ()
    assert len(past.runs) == 30
    assert left_out(other + runs(2), HERE) == "30 runs in other environments left out: cpu differs"
    assert left_out(runs(2), HERE) == ""
    assert past_of(other + runs(30, seed=2), elsewhere).drift.level == pytest.approx(math.log(50), abs=0.01)


def test_disturbed_and_failed_runs_are_kept_but_not_counted():
    bad = [replace(run, contended=True) for run in runs(10, 50.0, first=30)]
    failed = [replace(run, value=None, launch_values=(), failure="crashed: no") for run in runs(3, first=40)]
    past = past_of([*runs(30), *bad, *failed], HERE)
    assert len(past.runs) == 43
    assert len(past.counted) == 30
    assert past.drift.changes == ()
    assert judge([*runs(30), bad[0]]).decision is INVALID
    assert judge([*runs(30), failed[0]]).decision is REGRESSION
    assert judge([failed[0]]).decision is INVALID


def test_a_limit_that_was_kept_and_is_broken_is_a_regression():
    kept = runs(10, violations={"latency_p50_s <= 1 s": -0.2})

    def with_excess(excess):
        return judge([*kept, *runs(1, first=10, violations={"latency_p50_s <= 1 s": excess})])

    assert with_excess(0.3).decision is REGRESSION
    assert with_excess(0.3).broken == ("latency_p50_s <= 1 s",)
    assert with_excess(-0.01).decision is SAME
    always = [replace(run, violations={"latency_p50_s <= 1 s": 0.3}) for run in kept]
    assert judge(always).decision is SAME
    edge = [replace(run, violations={"latency_p50_s <= 1 s": -0.01}) for run in kept]
    assert judge([*edge, *runs(1, violations={"latency_p50_s <= 1 s": 0.01})]).decision is UNCLEAR


def report(history, margin=0.05, **facts):
    past = past_of(history, HERE)
    return BenchReport(
        key=history[-1].key, run=history[-1], history=past.runs, changes=changes_in(past), trend=trend_of(past),
        notes=("somebody | <b>said</b>",), record="sqlite:///r.db", margin=margin, **facts,
    )  # fmt: skip


@pytest.mark.parametrize("key", [RATE, LATENCY])
def test_the_trend_is_in_the_metrics_own_direction(key):
    found = trend_of(past_of(runs(25, key=key) + runs(10, 200.0, key, seed=1, first=25), HERE))
    assert found.level == pytest.approx(200.0, rel=0.02)
    assert found.changed_at == f"{25:012x}"
    assert found.changed_ratio == pytest.approx(2.0 if key.maximize else 0.5, rel=0.02)
    low, high = found.expected_interval
    assert low < found.expected < high
    assert high - low < 20


def test_the_history_is_a_table_of_80_columns_with_a_forecast():
    history = runs(25) + runs(10, 90.0, seed=1, first=25, base_revision="0123456789ab", gain_ratio=0.9)
    text = render(history_table(report(history, measured=False), terminal=True))
    assert max(map(len, text.splitlines())) <= 80
    assert "new level" in text
    assert "95 % of runs in [" in text
    assert "…" not in text
    assert "▇" in text or "█" in text
    assert "█" not in render(history_table(report(history), terminal=False))


def test_what_got_worse_is_shown_beside_the_level_before():
    told = report(runs(25) + runs(8, 90.0, seed=1, first=25))
    shown = replace(told, run=replace(told.run, decision=REGRESSION, gain_ratio=0.9, gain_interval=(0.88, 0.92)))
    assert float(sides(told)[0][3].removesuffix("×")) == pytest.approx(1.0, abs=0.03)
    assert float(sides(shown)[0][1].removesuffix(" /s")) == pytest.approx(100, rel=0.02)
    assert float(sides(shown)[0][3].removesuffix("×")) == pytest.approx(0.9, abs=0.03)


def test_json_knows_no_infinity_and_has_everything():
    body = bench_json(report(runs(3)))
    assert body["trend"]["expected_interval"]
    assert len(body["history"]) == 3
    assert bench_json(report(runs(1)))["trend"]["expected_interval"] is None


CASES = [
    (SAME, {}, (0, 0)),
    (UNCLEAR, {}, (0, 1)),
    (REGRESSION, {"gain_ratio": 0.8, "gain_interval": (0.7, 0.9), "base_revision": "abc"}, (1, 0)),
    (REGRESSION, {"broken": ("a <= b",), "violations": {"a <= b": 0.5}}, (1, 0)),
    (REGRESSION, {"value": None, "failure": "crashed: \x1b[31m]]> & \x00"}, (1, 0)),
    (INVALID, {"value": None, "failure": "crashed: no"}, (1, 0)),
]


@pytest.mark.parametrize(("decision", "facts", "expected"), CASES)
def test_what_ci_reads_agrees_with_the_exit_code(decision, facts, expected):
    run = replace(runs(1)[0], decision=decision, reason=facts.get("failure", "because"), **facts)
    told = replace(report(runs(1)), run=run)
    root = ElementTree.fromstring(junit(told))
    suite = root.find("testsuite")
    assert (int(suite.get("failures")), int(suite.get("skipped"))) == expected
    assert len(suite.findall("testcase")) == int(suite.get("tests")) == 1 + len(run.violations)
    assert fails(run) == bool(expected[0])
    assert fails(run, strict=True) == (decision is not SAME)
    assert int(ElementTree.fromstring(junit(told, strict=True)).get("failures")) == int(fails(run, strict=True))
    text = markdown(told)
    assert text.startswith(f"### autotune bench: {decision}")
    assert "somebody \\| \\<b\\>said" in text
    assert "\x1b" not in text
    assert headline(told) in render(bench_summary(told)).replace("\n", " ")
