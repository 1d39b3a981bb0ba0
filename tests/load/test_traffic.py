"""When requests are due and what they ask: the same for every configuration, never twice the same for a server."""

import json
import math
from itertools import pairwise

import pytest
from pydantic import ValidationError

from autotuner.errors import UsageError
from autotuner.load.arrivals import due_times_s
from autotuner.load.dialect import Dialect
from autotuner.load.prompts import made_prompt, read_requests
from autotuner.load.traffic import Level, Traffic

DIALECT = Dialect("http://127.0.0.1:1/v1/completions", "completions")


@pytest.mark.parametrize("seed", range(5))
def test_poisson_arrivals_pass_a_kolmogorov_smirnov_test(seed):
    times = due_times_s("poisson", 20.0, 4000, seed)
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    expected = [1 - math.exp(-20.0 * gap) for gap in gaps]
    distance = max(max(abs(x - n / len(gaps)), abs(x - (n + 1) / len(gaps))) for n, x in enumerate(expected))
    assert distance < 1.63 / math.sqrt(len(gaps))  # the critical value at p = 0.01


def test_gaps_scale_with_the_rate():
    slow, fast = (due_times_s("poisson", rate, 50, 3) for rate in (1.0, 10.0))
    assert [time / 10 for time in slow] == pytest.approx(fast)


def test_constant_arrivals():
    assert due_times_s("constant", 4.0, 4, 0) == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_must_be_one(rate):
    with pytest.raises(ValueError, match="rate_per_s"):
        due_times_s("poisson", rate, 4, 0)


def test_the_same_seed_sends_the_same_at_the_same_times():
    load = Traffic(arrivals="poisson", rate_per_s=9, requests=20)
    assert load.plan(DIALECT, 3) == load.plan(DIALECT, 3)
    assert load.plan(DIALECT, 3).calls[5].due_s != load.plan(DIALECT, 4).calls[5].due_s
    other = load.model_copy(update={"seed": 1})
    assert load.plan(DIALECT, 3) != other.plan(DIALECT, 3)


def test_a_rate_that_is_tried_lasts_long_enough_for_requests_to_pile_up():
    load = Traffic(requests=100)
    assert len(load.plan(DIALECT, 1, rate_per_s=10.0).calls) == 100
    assert len(load.plan(DIALECT, 1, rate_per_s=400.0).calls) == 1200


def test_no_prompt_begins_as_another_does():
    beginnings = {made_prompt(0, episode, number, 8).split()[0] for episode in range(3) for number in range(50)}
    assert len(beginnings) > 147  # of 150, for chance may repeat one of a million
    assert len(made_prompt(0, 0, 0, 64).split()) == 64


def test_prompts_share_a_beginning_where_one_is_asked_for():
    load = Traffic(prompt_words=12, shared_words=8, requests=50)
    prompts = [one.prompt.split() for episode in range(2) for one in load.wanted(episode)]
    assert len({tuple(words[:8]) for words in prompts}) == 1
    assert len({words[8] for words in prompts}) > 97
    assert {len(words) for words in prompts} == {12}
    with pytest.raises(ValidationError, match="shared_words: 12 must be fewer than prompt_words: 12"):
        Traffic(prompt_words=12, shared_words=12)


def test_a_trace_keeps_its_times_and_lengths(tmp_path):
    file = tmp_path / "trace.jsonl"
    rows = [
        {"at_s": 7.5, "prompt": "later", "output_tokens": 3},
        {"at_s": 7.0, "prompt": "first"},
        {"timestamp": 8000, "input_length": 5, "output_length": 9},  # Mooncake's
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    plan = Traffic(arrivals="trace", prompts=file, time_scale=0.5, output_tokens=4).plan(DIALECT, 0)
    assert [call.due_s for call in plan.calls] == [0.0, 0.25, 0.5]
    assert [call.body["max_tokens"] for call in plan.calls] == [4, 3, 9]
    assert [call.body["prompt"] for call in plan.calls[:2]] == ["first", "later"]
    assert len(plan.calls[2].body["prompt"].split()) == 5


def test_a_file_of_prompts_goes_round(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('"one"\n"two"\n\n{"prompt": "three"}\n')
    load = Traffic(prompts=file, requests=2)
    asked = [[one.prompt for one in load.wanted(episode)] for episode in range(3)]
    assert asked == [["one", "two"], ["1 three", "1 one"], ["2 two", "2 three"]], "no cache has seen them"


def test_bodies_of_other_endpoints(tmp_path):
    file = tmp_path / "bodies.jsonl"
    file.write_text('{"body": {"x": 1}}\n')
    plan = Traffic(prompts=file, requests=2).plan(Dialect("http://h/predict", "json"), 0, {"k": 2})
    assert [call.body for call in plan.calls] == [{"x": 1, "k": 2}] * 2


@pytest.mark.parametrize("text", ["{", "[1]", '{"at_s": "soon"}', ""])
def test_a_file_that_cannot_be_read(tmp_path, text):
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"prompts\.jsonl"):
        read_requests(file)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"arrivals": "poisson"}, "rate_per_s"),
        ({"arrivals": "trace"}, "prompts"),
        ({"rate_per_s": 3}, "arrivals: poisson"),
    ],
)
def test_traffic_that_contradicts_itself(options, says):
    with pytest.raises(ValidationError, match=says):
        Traffic(**options)


def test_a_service_level_in_any_unit():
    level = Level(latency_s="200 ms", ttft_s=0.1).bounds()
    assert (level.latency_s, level.ttft_s, level.tpot_s) == (0.2, 0.1, math.inf)
    with pytest.raises(ValidationError, match="at least one"):
        Level()
