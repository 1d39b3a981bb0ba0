"""Tables over the record and over a study file; small fakes of their rows."""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import scripted_study as script

from autotuner.report.overview import overview_table
from autotuner.report.space import space_table
from autotuner.report.study import Portrait, compare_ground, compare_table, portrait_json, portrait_view
from autotuner.report.terminal import render
from autotuner.report.text import duration, factor, one_line, shorten, violation
from autotuner.types import Decision

PORTRAIT = Portrait(
    "qwen3-cpu", script.AT, script.METRIC, True, f"maximize {script.METRIC}", {script.METRIC: True}, 12,
    {"out_of_memory": 1, "timed_out": 1}, (2204.0, 1102.0, None, 2938.0), script.BASELINE, 2204.0,
    baseline_diagnosis=script.HOST_BOUND,
    best=(script.TRIALS[6], script.TRIALS[10]), winner=script.TRIALS[6], front=(), last=script.TRIALS[-2:],
    verifications=((script.AT, script.VERIFICATION),), environment=script.ENVIRONMENT,
)  # fmt: skip


@dataclass(frozen=True)
class FakeRow:
    name: str
    decision: Decision | None
    gain_ratio: float | None
    state: str = "finished"
    created_at: datetime = script.AT
    metric: str = script.METRIC
    trials: int = 30
    failures: int = 0


@dataclass(frozen=True)
class FakeSpace:
    name: str = "qwen3-cpu"
    source: str = "search_spaces/inference.yaml"
    parameters: Any = None
    baseline: Any = None
    raw_size: int = 320
    legal_size: int | None = 288
    objective: str = "maximize throughput_tokens_per_s"
    limits: tuple[str, ...] = ("latency_p95_s <= 150 ms",)
    max_trials: int = 30
    max_minutes: float | None = 4.0
    device: str = "cpu"


def fits(text):
    return max(map(len, text.splitlines())) <= 80


def test_overview_names_state_or_verdict():
    rows = [
        FakeRow("a", Decision.BETTER, 1.33),
        FakeRow("b", None, None, state="unfinished"),
        FakeRow("c", Decision.INVALID, None),
    ]
    text = render(overview_table(rows))
    assert fits(text)
    assert [line.split()[0] for line in text.splitlines()] == ["study", "a", "b", "c"]
    assert "1.33×" in text
    assert "unfinished" in text
    assert "autotune study start" in render(overview_table([]))


def test_overview_of_long_names_fits():
    assert fits(render(overview_table([FakeRow("n" * 64, Decision.AMBIGUOUS, 1.0)])))


def test_a_study_shows_its_verdict_the_best_and_the_last():
    text = render(portrait_view(PORTRAIT))
    assert fits(text)
    assert text.index("BETTER") < text.index("best trials") < text.index("last trials")
    assert "★ 6" in text
    assert "▇▄×█" in text
    unverified = render(portrait_view(replace(PORTRAIT, verifications=(), last=script.TRIALS)))
    assert "not verified yet" in unverified
    assert "best trials" not in unverified, "all trials are listed already"
    assert "timed out" in unverified
    assert fits(unverified)


def test_an_empty_study_shows():
    empty = replace(PORTRAIT, count=0, failures={}, best=(), last=(), verifications=(), baseline_value=math.nan)
    assert "0 trials" in render(portrait_view(empty))
    assert portrait_json(empty)["baseline_value"] is None


def test_the_guard_of_the_outputs_has_no_excess():
    broken = script.measured(1, script.WINNER, 1.0).verdict
    assert violation(replace(broken, violations={"same outputs": 1.0})) == "not kept: same outputs"
    assert violation(replace(broken, violations={script.LIMIT: 0.1, "a <= 1": 0.2})) == "breaks a <= 1 by 20 %"


def test_compare_names_different_ground():
    other = replace(PORTRAIT, name="other", environment={**script.ENVIRONMENT, "torch": "2.11"}, verifications=())
    text = render(compare_table(PORTRAIT, other))
    assert fits(text)
    assert "not verified" in text
    assert compare_ground(PORTRAIT, other) == ["the machines or versions differ in torch"]
    assert compare_ground(PORTRAIT, PORTRAIT) == []


def test_space_lists_values_and_sizes():
    parameters = {"batch_size": tuple(range(1, 100)), "compile": ("none", "default"), "flag": (False, True)}
    baseline = {"batch_size": 8, "compile": "none", "flag": True}
    text = render(space_table(FakeSpace(parameters=parameters, baseline=baseline)))
    assert fits(text)
    assert "1 2 3 … 99  (99)" in text
    assert "false true" in text
    assert "288 legal" in text
    assert "latency_p95_s <= 150 ms" in text


def test_words():
    assert [duration(s) for s in (3.21, 9.97, 59.6, 252)] == ["3.2 s", "10 s", "1 min 00 s", "4 min 12 s"]
    assert duration(7380) == "2 h 03 min"
    assert [factor(r) for r in (1.333, 250.0, math.inf, math.nan)] == ["1.33×", "250×", "-", "-"]
    assert one_line("a\x1b[2J\tb\n\x1b]0;title\x07c\x9bd") == "a b c d"
    assert shorten("abcdef", 4) == "abc…"
