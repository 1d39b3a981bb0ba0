"""What an episode is worth: latencies from when requests were due, and the audits that refuse what cannot be true."""

import math
import random
from dataclasses import replace

import pytest

from autotuner.errors import UnsupportedError
from autotuner.load.capacity import highest_rate
from autotuner.load.plan import Answer, Episode, Reply
from autotuner.load.results import (
    ServiceLevel,
    attainment_ratio,
    check_measurable,
    doubts,
    failures,
    is_good,
    is_kept,
    is_saturated,
    latency_s,
    samples_of,
    tokens,
    tpot_s,
    ttft_s,
)


def reply(due_s=0.0, sent_s=None, ended_s=1.0, **answer):
    sent_s = due_s if sent_s is None else sent_s
    known = {"first_s": due_s + 0.2, "last_s": ended_s, "chunks": 5, "tokens": 5, **answer}
    return Reply(due_s, sent_s, ended_s, Answer(**known))


def queue(rate_per_s, service_s, count, seed=0, client_busy_ratio=0.1):
    """An M/D/1 queue, simulated exactly."""
    draw, now_s, free_s, replies = random.Random(seed), 0.0, 0.0, []
    for _ in range(count):
        free_s = max(free_s, now_s) + service_s
        replies.append(reply(now_s, ended_s=free_s))
        now_s += draw.expovariate(rate_per_s)
    span_s = max(one.ended_s for one in replies)
    in_flight = sum(one.ended_s - one.due_s for one in replies) / span_s
    return Episode(tuple(replies), client_busy_ratio, in_flight)


def test_latency_counts_from_when_it_was_due():
    late = reply(due_s=1.0, sent_s=1.5, ended_s=2.0, first_s=1.75)
    assert latency_s(late) == 1.0
    assert ttft_s(late) == 0.75


def test_a_failure_is_infinitely_late():
    failed = reply(failure="HTTP 500")
    assert latency_s(failed) == ttft_s(failed) == tpot_s(failed) == math.inf
    assert not is_good(failed, ServiceLevel())
    assert failures([failed, reply()]) == {"HTTP 500": 1}


def test_time_for_a_token_leaves_out_those_of_the_first_part():
    assert tpot_s(reply(first_s=0.2, last_s=1.0, chunks=5, tokens=5)) == pytest.approx(0.2)
    assert tpot_s(reply(first_s=0.2, last_s=1.0, chunks=9, tokens=10)) == pytest.approx(0.8 / (10 * 8 / 9))
    assert tpot_s(reply(first_s=0.2, last_s=1.0, chunks=5, tokens=32)) == pytest.approx(0.8 / (32 * 4 / 5))
    assert math.isnan(tpot_s(reply(tokens=None)))


def test_tokens_are_known_only_when_all_are_counted():
    assert tokens(Episode((reply(), reply(failure="x", tokens=None)), 0, 0)) == 5
    assert tokens(Episode((reply(), reply(tokens=None)), 0, 0)) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_queue_that_drains_is_not_saturated(seed):
    assert not is_saturated(queue(8.0, 0.1, 200, seed).replies)


@pytest.mark.parametrize("seed", range(20))
def test_a_queue_that_grows_is(seed):
    assert is_saturated(queue(14.0, 0.1, 200, seed).replies)


def test_a_client_that_may_be_believed():
    assert doubts(queue(5.0, 0.1, 50), paced=True, places=None) == ""


def test_a_client_that_sends_late_is_refused():
    late = Episode(tuple(reply(0.1 * n, sent_s=0.1 * n + 0.05, ended_s=0.1 * n + 0.3) for n in range(50)), 0.1, 2.9)
    assert "sent 50.0 ms late" in doubts(late, paced=True, places=None)
    assert "late" not in doubts(late, paced=True, places=4)  # they wait for a place, which is meant


def test_a_client_without_time_to_spare_is_refused():
    assert "used 90% of a core" in doubts(queue(5.0, 0.1, 50, client_busy_ratio=0.9), paced=True, places=None)


def test_little_lag_is_no_miscount_where_hardly_anything_is_on_its_way():
    """A server that answers in 2 ms, 60 times a second, and a client that is a millisecond late each time."""
    replies = [reply(n / 60, sent_s=n / 60 + 0.001, ended_s=n / 60 + 0.002) for n in range(200)]
    seen = Episode(tuple(replies), 0.1, 60 * 0.001)
    assert doubts(seen, paced=True, places=None) == ""
    assert "Little" in doubts(Episode(tuple(replies), 0.1, 1.0), paced=True, places=None)


def test_failures_of_whole_answers_are_late_and_nothing_else():
    whole = {"first_s": math.nan, "last_s": math.nan, "chunks": 0, "tokens": None}
    replies = [reply(0.0, **whole), reply(1.0, **whole, failure="HTTP 500")]
    assert samples_of(Episode(tuple(replies), 0.1, 1.0)) == {"latency_s": [1.0, math.inf]}
    parts = [reply(0.0, ended_s=1.0), reply(1.0, failure="HTTP 500")]
    assert set(samples_of(Episode(tuple(parts), 0.1, 1.0))) == {"latency_s", "ttft_s", "tpot_s"}


def test_littles_law_finds_a_miscount():
    found = queue(5.0, 0.1, 50)
    wrong = Episode(found.replies, 0.1, 1.3 * found.in_flight_mean)
    assert "Little" in doubts(wrong, paced=True, places=None)


@pytest.mark.parametrize(
    ("requests", "late", "kept"),
    [(20, 1, True), (20, 2, False), (58, 2, True), (59, 0, True), (59, 1, False), (93, 1, True), (92, 1, False),
     (1000, 50, False), (1000, 38, True)],
)  # fmt: skip
def test_a_share_is_claimed_by_mlperfs_counts(requests, late, kept):
    """By `required_requests`; fewer than 59 could not prove 95 %, and are taken as counted."""
    replies = [reply(float(n), ended_s=n + (1.0 if n < late else 0.1)) for n in range(requests)]
    assert is_kept(Episode(tuple(replies), 0.1, 1.0), ServiceLevel(latency_s=0.5, share=0.95)) is kept


@pytest.mark.parametrize("guess", [0.5, 6.0, 200.0])
def test_the_highest_rate_is_found_from_anywhere(guess):
    """Of M/D/1 with 0.1 s of service, 95 % within 0.5 s: near 0.74 of its 10 requests/s."""
    level = ServiceLevel(latency_s=0.5)
    found = highest_rate(lambda rate: queue(rate, 0.1, 3000), lambda: queue(1e-3, 0.1, 20), level, guess)
    assert 6.8 < found.rate_per_s < 7.8
    assert found.episode is not None
    assert attainment_ratio(found.episode, level) >= 0.95


def test_a_level_that_no_rate_keeps():
    asked = []

    def measure(rate):
        asked.append(rate)
        return queue(rate, 0.1, 50)

    def alone():
        return queue(1e-3, 0.1, 20)

    found = highest_rate(measure, alone, ServiceLevel(latency_s=0.05), 5.0)
    assert (found.rate_per_s, found.episode) == (0, None)
    assert asked == [5.0], "what a request alone breaks needs no slower rate to be tried, and those take long"
    assert "to itself" in found.reason
    found = highest_rate(lambda rate: queue(1000, 0.1, 50), alone, ServiceLevel(latency_s=0.15), 5.0)
    assert found.rate_per_s == 0
    assert "tried down to" in found.reason


def test_a_bound_on_what_no_answer_tells_is_refused():
    episode = queue(5.0, 0.1, 20)
    check_measurable(episode, ServiceLevel(latency_s=0.1))
    silent = replace(episode, replies=tuple(replace(r, answer=replace(r.answer, tokens=None)) for r in episode.replies))
    with pytest.raises(UnsupportedError, match="tpot_s, which no answer tells"):
        check_measurable(silent, ServiceLevel(tpot_s=0.1))


def test_a_client_that_stood_still_while_many_waited_is_not_believed():
    """Four places of a closed loop, each request a second: four of 400 requests are few, and four of 40 are many."""

    def closed(count, stalls):
        replies = tuple(reply(number // 4, ended_s=number // 4 + 1.0) for number in range(count))
        return Episode(replies, 0.1, 4.0, stalls)

    def told(*known):
        return doubts(closed(*known), paced=False, places=4)

    assert told(400, ()) == told(40, ((5.5, 0.04),)) == ""
    assert told(400, ((50.5, 0.4),)) == ""
    assert told(40, ((5.5, 0.4),)) == "client-bound: the client stood still for 0.40 s, while 4 of 40 requests waited"
    assert "stood still for 10.00 s, while 4 of 400" in told(400, ((50.9, 0.8), *[(50.0, 0.04)] * 230))
