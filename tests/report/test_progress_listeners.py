"""Lines, JSON lines and the live view over the scripted study."""

import io
import json
import math

import pytest
import scripted_study as script

from autotuner.report.json_lines import event_json, summary_json, write_json_lines
from autotuner.report.lines import write_lines
from autotuner.report.live import interval_bar, view
from autotuner.report.progress import Progress, advance, budget_left_s, search_left_s
from autotuner.report.terminal import render

GOLDEN_LINES = """\
study qwen3-cpu: maximize throughput_tokens_per_s; 5 parameters, 288 configurations, at most 12 trials
machine: 2 cores of Some CPU, 8.00 GiB, no GPU; torch 2.13.0
trial 0: 2,204 /s ±1.2 %: baseline
trial 1: 2,612 /s ±1.2 %, 1.19×, best so far: batch_size=16
trial 2: failed, out_of_memory: tried to allocate 20.00 GiB [bold]on[/bold] a device with 8.00 GiB: batch_size=64
trial 3: 1,190 /s ±1.2 %, 0.54×: threads=1
trial 4: 2,890 /s ±1.2 %, 1.31×, breaks latency_p95_s <= 150 ms by 31 %: batch_size=32
trial 5: 902 /s ±1.2 %, 0.41×: dtype=bfloat16
trial 6: 2,931 /s ±1.2 %, 1.33×, best so far: batch_size=16 compile=default
trial 7: failed, timed_out: no result after 600 s: threads=1 compile=max-autotune attention=eager dtype=bfloat16
trial 8: 2,411 /s ±1.2 %, 1.09×: compile=default
trial 9: 1,987 /s ±1.2 %, 0.90×: attention=eager
trial 10: 2,705 /s ±1.2 %, 1.23×: batch_size=16 compile=default attention=eager
trial 11: 1,330 /s ±1.2 %, 0.60×: batch_size=16 threads=1 compile=default
note: trial 9 was measured again: another process used the CPU
verify, outputs: the same outputs as the baseline's?
verify, race: batch_size=16 compile=default against the baseline
pair 5: gain 1.33× [1.21, 1.45]
pair 10: gain 1.33× [1.27, 1.39]
verify, contributions: what is batch_size=16 worth?
"""


def play(listener):
    for event in script.events():
        listener(event)


def progress(until=None, step_s=12.0):
    state, now_s = Progress(), 0.0
    for event in script.events()[:until]:
        now_s += step_s / 2
        state = advance(state, event, now_s)
    return state, now_s


def test_lines_are_golden():
    stream = io.StringIO()
    play(write_lines(stream))
    assert stream.getvalue() == GOLDEN_LINES


def test_json_lines_are_strict_and_leave_samples_in_the_record():
    stream = io.StringIO()
    play(write_json_lines(stream))
    read = [json.loads(line, parse_constant=pytest.fail) for line in stream.getvalue().splitlines()]
    assert len(read) == len(script.events())
    kinds = {event["event"] for event in read}
    assert kinds >= {"study_started", "trial_started", "trial_ended", "pair_measured", "study_ended"}
    assert "samples" not in stream.getvalue()
    assert next(event for event in read if event["event"] == "pair_measured")["gain_interval"] == [0.0, None]
    assert read[-1]["verdict"] == "BETTER"


def test_a_failed_trial_in_json_says_why():
    event = next(e for e in map(event_json, script.events()) if "failure" in e)
    assert event["failure"]["kind"] == "out_of_memory"
    assert event["config"]["batch_size"] == 64


def test_the_summary_holds_what_it_promises():
    promised = {
        "study", "verdict", "gain", "gain_interval", "config", "baseline", "metrics", "trials", "failures", "seconds",
        "record", "folder", "reason", "equivalence", "contributions", "environment",
    }  # fmt: skip
    body = json.loads(json.dumps(summary_json(script.SUMMARY), allow_nan=False))
    assert promised <= set(body)
    assert body["config"] == dict(script.WINNER)
    assert body["contributions"][1]["gain_interval"] == [0.0, None]
    assert set(body["metrics"]) == {"candidate", "baseline"}


def test_the_config_to_use_is_the_baseline_unless_the_candidate_is_better():
    from dataclasses import replace

    from autotuner.types import Decision

    same = replace(
        script.SUMMARY, decision=Decision.SAME, verification=replace(script.VERIFICATION, decision=Decision.SAME)
    )
    assert summary_json(same)["config"] == dict(script.BASELINE)
    assert summary_json(same)["candidate"] == dict(script.WINNER)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 20), (40, 16)])
def test_every_frame_fits_its_terminal(width, height):
    for until in range(len(script.events()) + 1):
        state, now_s = progress(until)
        lines = render(view(state, now_s + 3, width, height), width).splitlines()
        assert len(lines) < height, f"after event {until}"
        assert max(map(len, lines)) <= width


def test_the_best_trial_stays_in_sight():
    until = [type(e).__name__ for e in script.events()].index("Note")
    state, now_s = progress(until)
    assert "★ 6" in render(view(state, now_s, 80, 13), 80)
    assert "trial 6  " not in render(view(state, now_s, 80, 13), 80)


def test_the_running_trial_and_the_time_left_are_shown():
    until = next(i for i, e in enumerate(script.events()) if getattr(e, "number", None) == 5) + 1
    state, now_s = progress(until)
    text = render(view(state, now_s + 65, 80, 24), 80)
    assert "trial 5  dtype=bfloat16" in text
    assert "1:05" in text
    assert "5 of 12 trials, 1 failed" in text
    assert "left, then verification" in text


def test_time_left_is_the_mean_trial_times_what_is_left_within_the_budget():
    until = next(i for i, e in enumerate(script.events()) if getattr(e, "number", None) == 5)
    state, now_s = progress(until)
    assert search_left_s(state, now_s) == pytest.approx(7 * 12.0)
    assert budget_left_s(state, now_s) == pytest.approx(600 - 60)
    assert search_left_s(state, now_s + 1e4) == 0
    assert math.isnan(search_left_s(Progress(), 0.0))


def test_the_interval_bar_marks_no_gain_and_the_gain():
    bar = interval_bar(1.3, 1.2, 1.4, 60).plain
    assert bar.index("┼") < bar.index("━") < bar.index("●")
    unsure = interval_bar(1.01, 0.9, 1.13, 60).plain
    assert unsure.index("━") < unsure.index("┼")
