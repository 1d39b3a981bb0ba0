"""A response is a success only when its body says so, and tokens are what the server counted."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.load.answers import events, read_answer

JSON, SSE = "application/json; charset=utf-8", "text/event-stream"


def stream(*bodies, done=True):
    lines = [f"data: {json.dumps(body)}\n\n" for body in bodies] + (["data: [DONE]\n\n"] if done else [])
    return [(0.1 * (number + 1), line.encode()) for number, line in enumerate(lines)]


def chunk(text, finish=None, **more):
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish}], **more}


def test_a_stream_of_words():
    role = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    usage = {"choices": [], "usage": {"completion_tokens": 7, "prompt_tokens": 3}}
    parts = stream(role, chunk("Hello "), chunk("you"), chunk("", "length"), usage)
    answer = read_answer("chat", 200, SSE, parts, keep=True)
    assert answer.failure == ""
    assert (answer.first_s, answer.last_s) == pytest.approx((0.2, 0.3))  # the role's event is no token
    assert (answer.chunks, answer.tokens, answer.prompt_tokens) == (2, 7, 3)  # counted by the server, not by events
    assert answer.text == "Hello you"


def test_texts_are_kept_only_when_wanted():
    assert read_answer("chat", 200, SSE, stream(chunk("Hello"))).text == ""


@pytest.mark.parametrize(
    ("status", "kind", "parts", "says"),
    [
        (503, JSON, [(0.1, b'{"error": "loading"}')], "HTTP 503: "),
        (200, JSON, [(0.1, b'{"error": {"message": "the engine is dead"}}')], "the engine is dead"),
        (200, JSON, [(0.1, b'{"choices": [{"message": {"content": ""}}]}')], "empty"),
        (200, JSON, [(0.1, b"{")], "no JSON"),
        (200, "text/html", [(0.1, b"<html>login</html>")], "text/html, not JSON or an event stream: <html>"),
        (200, "", [(0.1, b"hi")], "of no type"),
        (200, SSE, stream(chunk("a"), {"error": "out of blocks"}), "out of blocks"),
        (200, SSE, stream(chunk("a"), done=False), "broke off after 1 parts"),
        (200, SSE, [(0.1, b"data: {\n\n")], "no JSON"),
        (200, SSE, stream(chunk("", "stop")), "empty"),
        (200, SSE, [], "broke off after 0 parts"),
    ],
)
def test_what_is_no_answer(status, kind, parts, says):
    assert says in read_answer("chat", status, kind, parts).failure


def test_a_stream_may_end_with_its_reason_alone():
    assert read_answer("chat", 200, SSE, stream(chunk("a"), chunk("", "stop"), done=False)).failure == ""


def test_a_thought_and_a_call_are_generated_too():
    for delta in ({"reasoning_content": "hm"}, {"tool_calls": [{"function": {"name": "f"}}]}):
        parts = stream({"choices": [{"delta": delta, "finish_reason": None}]}, chunk("", "stop"))
        assert read_answer("chat", 200, SSE, parts).chunks == 1


def test_a_whole_answer_has_no_first_token():
    body = {"choices": [{"text": "a b"}], "usage": {"completion_tokens": 2, "prompt_tokens": 1}}
    answer = read_answer("completions", 200, JSON, [(0.5, json.dumps(body).encode())])
    assert math.isnan(answer.first_s)
    assert (answer.last_s, answer.tokens) == (0.5, 2)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'""'])
def test_an_endpoint_that_says_nothing(body):
    assert read_answer("json", 200, JSON, [(0.1, body)]).failure


def test_likeliest_tokens_in_both_forms():
    chat = {"choices": [{"message": {"content": "a"}, "logprobs": {"content": [
        {"token": "a", "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3}]}
    ]}}]}  # fmt: skip
    completions = {"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "top_logprobs": [{"a": -0.1, "b": -3}]}}]}
    for api, body in (("chat", chat), ("completions", completions)):
        answer = read_answer(api, 200, JSON, [(0.1, json.dumps(body).encode())], keep=True)
        assert answer.picked == ("a",)
        assert dict(answer.logprobs[0]) == {"a": -0.1, "b": -3.0}


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), min_size=1), max_size=5),
       st.lists(st.integers(0, 200), max_size=6))  # fmt: skip
def test_events_survive_any_cutting(texts, cuts):
    texts = [text for text in texts if not text.startswith(" ")]
    whole = b"".join(f": ping\r\n\r\ndata: {text}\r\n\r\n".encode() for text in texts)
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    parts = [(float(end), whole[begin:end]) for begin, end in pairwise(places)]
    assert [text for _, text in events(parts)] == texts
