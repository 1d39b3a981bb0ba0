"""The end of a study, as text: the golden page, and every verdict."""

from dataclasses import replace

import pytest
import scripted_study as script

from autotuner.report.sentences import conclude, headline, next_step, resume_command
from autotuner.report.terminal import render, summary
from autotuner.types import Decision, Equivalence, Tier

GOLDEN = """\
BETTER  throughput_tokens_per_s is 33 % higher than the baseline's.

metric                   baseline    winner   gain
throughput_tokens_per_s  2,194 /s  2,918 /s  1.33×
latency_p95_s             98.0 ms    141 ms  0.70×
peak_memory_bytes        1.46 GiB  1.61 GiB  0.91×

gain       1.33×, 95 % interval [1.28, 1.38]
proof      12 pairs in 3 launches, noise 1.4 % a pair, 1 contended
outputs    kept (rule: rounding): largest KL 2.1e-06 nats, bound 1e-03
changed    batch_size  8 → 16          1.18×  [1.14, 1.23]
           compile     none → default  1.12×  too few pairs

why        All 12 trials of the budget are used; the interval excludes equality.
was bound  host launch (likely): 71% of a step is the host's own work: 3.20 ms
           of Python and launches around 412 operations. Next: compile,
           batch_size.
now bound  compute (confirmed by relief): 93% of a step is arithmetic: 98.1
           GFLOP/s, 81% of what was measured on this machine.
trials     12 trials, 2 failed (1 out_of_memory, 1 timed_out)
time       5 min 08 s: verifying 43 %, measuring 29 %, setup 20 %, warmup 7 %
record     studies/autotune.db
folder     studies/qwen3-cpu
last log   studies/qwen3-cpu/logs/trial-7.log

next  autotune export qwen3-cpu --to env"""


def with_decision(decision, **changes):
    verification = replace(script.VERIFICATION, decision=decision, **changes)
    return replace(script.SUMMARY, decision=decision, verification=verification)


def widest(text):
    return max(map(len, text.splitlines()))


def test_the_golden_page():
    assert render(summary(script.SUMMARY)) == GOLDEN


@pytest.mark.parametrize("decision", list(Decision))
def test_every_verdict_comes_first_and_fits(decision):
    text = render(summary(with_decision(decision)))
    assert text.startswith(f"{decision}  ")
    assert widest(text) <= 80


@pytest.mark.parametrize("decision", [Decision.SAME, Decision.WORSE, Decision.AMBIGUOUS, Decision.INVALID])
def test_what_is_not_better_is_never_called_a_winner_nor_exported(decision):
    text = render(summary(with_decision(decision, gain_ratio=1.31)))
    assert "winner" not in text
    assert "candidate" in text
    assert "export" not in text
    assert "higher" not in text


def test_same_says_that_nothing_has_to_change():
    assert "as good as anything tried; nothing to change" in render(summary(with_decision(Decision.SAME)))


def test_ambiguous_says_how_to_go_on_in_the_same_record():
    ended = with_decision(Decision.AMBIGUOUS)
    assert next_step(ended) == "autotune study verify qwen3-cpu"
    assert next_step(ended, "my record.db") == "autotune study verify qwen3-cpu --db 'my record.db'"
    assert resume_command("x", "postgresql://h/d") == "autotune study resume x --db postgresql://h/d"


def test_outputs_that_moved_are_said_loudly():
    moved = Equivalence(False, Tier.EXACT, "3 of 4 vectors differ")
    text = render(summary(with_decision(Decision.INVALID, equivalence=moved)))
    assert "NOT kept (rule: exact): 3 of 4 vectors differ" in text
    assert "not compared" in render(summary(with_decision(Decision.BETTER, equivalence=None)))


def test_a_lower_metric_is_lower_and_a_large_gain_is_a_factor():
    latency = replace(script.VERIFICATION, metric="latency_p95_s", gain_ratio=4 / 3)
    assert conclude(latency) == "latency_p95_s is 25 % lower than the baseline's."
    assert conclude(replace(script.VERIFICATION, gain_ratio=2.5)).endswith("is 2.50× the baseline's.")


def test_a_metric_of_one_s_own_gains_in_the_direction_that_was_asked_for():
    found = replace(
        script.VERIFICATION, metric="kernel_s", gain_ratio=1.5, metrics={"kernel_s": 0.2},
        baseline_metrics={"kernel_s": 0.3},
    )  # fmt: skip
    ended = replace(script.SUMMARY, verification=found)
    assert "kernel_s is 33 % lower than" in headline(ended)
    assert "1.50×" in render(summary(ended))
    asked = replace(ended, verification=replace(found, maximize={"kernel_s": True}))
    assert "kernel_s is 50 % higher than" in headline(asked)


def test_a_study_that_only_failed_names_kinds_and_log():
    nothing = replace(
        script.SUMMARY, decision=Decision.INVALID, verification=None, trials=3, failures={"crashed": 2, "timed_out": 1}
    )
    assert headline(nothing) == "Every trial failed; nothing was measured."
    text = render(summary(nothing))
    assert "3 failed (2 crashed, 1 timed_out)" in text
    assert "studies/qwen3-cpu/logs/trial-7.log" in text


def test_broken_limits_are_listed():
    text = render(summary(with_decision(Decision.INVALID, violations={script.LIMIT: 0.1, "setup_s <= 60 s": -0.5})))
    assert f"{script.LIMIT} is broken" in text
    assert "setup_s <= 60 s" not in text


def test_long_words_and_markup_stay_inside_the_page():
    config = {**script.BASELINE, "compile": "[bold]" + "x" * 90}
    ended = replace(with_decision(Decision.SAME, config=config), reason="y" * 200 + " \x1b[31mred\x1b[0m " + "z" * 50)
    text = render(summary(ended))
    assert widest(text) <= 80
    assert "[bold]" in text
    assert "\x1b" not in text
