"""What an episode says of the server, and whether it may be believed: pure functions of the replies."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.errors import UnsupportedError
from autotuner.load.plan import Episode, Reply
from autotuner.metrics import quantile
from autotuner.statistics import required_requests

LAG_SHARE = 0.99  # of the requests that must have been sent in time
LARGEST_LAG_S = 0.005
LARGEST_LAG_RATIO = 0.05  # of the median time to the first token
LARGEST_STALL_S = 0.05  # of the client, in which a busy machine lets it wait
LARGEST_STALL_RATIO = 0.05  # of the median latency, and of the whole episode
LARGEST_CLIENT_BUSY_RATIO = 0.8  # of one core
LARGEST_LITTLE_RATIO = 0.1
CONFIDENCE = 0.95  # with which a share of good requests is claimed
LARGEST_GROWTH_RATIO = 0.1  # of the requests that came between two thirds of an episode


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """What a request must keep to count as good.

    Attributes:
        latency_s: Most seconds from due to complete; inf for no bound, and so on.
        ttft_s: To the first token.
        tpot_s: For each further token.
        share: Of all requests that must be good.
    """

    latency_s: float = math.inf
    ttft_s: float = math.inf
    tpot_s: float = math.inf
    share: float = 0.95


def latency_s(reply: Reply) -> float:
    """From when it was due to its end; a failure is infinitely late."""
    return math.inf if reply.answer.failure else reply.ended_s - reply.due_s


def ttft_s(reply: Reply) -> float:
    """From when it was due to its first text; inf for a failure, NaN for an answer that came as a whole."""
    return math.inf if reply.answer.failure else reply.answer.first_s - reply.due_s


def tpot_s(reply: Reply) -> float:
    """Mean seconds between tokens after those of the first part; inf for a failure, NaN where it cannot be told.

    The tokens of the first part are taken to be as many as those of a mean part.
    """
    answer = reply.answer
    if answer.failure:
        return math.inf
    if not answer.tokens or answer.chunks < 2:
        return math.nan
    return (answer.last_s - answer.first_s) / (answer.tokens * (1 - 1 / answer.chunks))


def is_good(reply: Reply, level: ServiceLevel) -> bool:
    """Whether it kept the service level; what cannot be told of it is not held against it."""
    bounds = ((latency_s(reply), level.latency_s), (ttft_s(reply), level.ttft_s), (tpot_s(reply), level.tpot_s))
    return not reply.answer.failure and not any(value > bound for value, bound in bounds)


def check_measurable(episode: Episode, level: ServiceLevel) -> None:
    """Whether what the level bounds can be told of these answers.

    Raises:
        UnsupportedError: A bounded time can be told of none.
    """
    answered = [reply for reply in episode.replies if not reply.answer.failure]
    for name, of, bound in (("ttft_s", ttft_s, level.ttft_s), ("tpot_s", tpot_s, level.tpot_s)):
        if math.isfinite(bound) and answered and all(math.isnan(of(reply)) for reply in answered):
            hint = "answers must come in parts, and the server must count tokens"
            raise UnsupportedError(f"the service level bounds {name}, which no answer tells", hint)


def duration_s(episode: Episode) -> float:
    """From the first request that was due to the last response."""
    replies = episode.replies
    return max(reply.ended_s for reply in replies) - min(reply.due_s for reply in replies)


def attainment_ratio(episode: Episode, level: ServiceLevel) -> float:
    """Share of the requests that kept the service level."""
    return sum(is_good(reply, level) for reply in episode.replies) / len(episode.replies)


def is_claimable(requests: int, share: float) -> bool:
    """Whether so many requests could prove a share of good ones at all, if every one of them were good."""
    return share < 1 and requests >= required_requests(0, share, CONFIDENCE)


def is_kept(episode: Episode, level: ServiceLevel) -> bool:
    """Whether the level's share of requests was good: proven where that many requests could prove it, else as counted.

    A share of 95 % that was just reached in 200 requests is as likely 93 % as 97 %: at a rate that is chosen because it
    just passed, rather 93 %.
    """
    bad = sum(not is_good(reply, level) for reply in episode.replies)
    if is_claimable(len(episode.replies), level.share):
        return len(episode.replies) >= required_requests(bad, level.share, CONFIDENCE)
    return attainment_ratio(episode, level) >= level.share


def failures(replies: Sequence[Reply]) -> Counter[str]:
    """How often what went wrong."""
    return Counter(reply.answer.failure for reply in replies if reply.answer.failure)


def tokens(episode: Episode) -> int | None:
    """Tokens that were generated; None when an answer was not counted by the server."""
    counts = [reply.answer.tokens for reply in episode.replies if not reply.answer.failure]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def dispatch_lag_s(episode: Episode, paced: bool, places: int | None) -> float:
    """How late 99 % of the requests were sent at most; 0 where waiting for a place is meant."""
    if paced and places is not None:
        return 0.0
    lags_s = sorted((reply.sent_s - reply.due_s for reply in episode.replies), reverse=True)
    return lags_s[min(_spared(lags_s), len(lags_s) - 1)]


def _spared(found: Sequence[object]) -> int:
    """How many may be disturbed: of a short episode one, for one hiccup shows no habit."""
    return max(1, int((1 - LAG_SHARE) * len(found)))


def is_saturated(replies: Sequence[Reply]) -> bool:
    """Whether requests piled up for as long as they came: then every latency says only how long that lasted.

    The mean number on their way in the last third of the arrivals against that in the first; a tenth of what came in
    between must be left lying, and more than chance would leave of so many.
    """
    first_s, last_s = replies[0].due_s, replies[-1].due_s
    third_s = (last_s - first_s) / 3
    if third_s <= 0:
        return False
    early, late = (_mean_in_flight(replies, begin_s, begin_s + third_s) for begin_s in (first_s, last_s - third_s))
    came = 2 / 3 * len(replies)
    return late - early > max(LARGEST_GROWTH_RATIO * came, 3 * math.sqrt(early + 1))


def _mean_in_flight(replies: Sequence[Reply], begin_s: float, end_s: float) -> float:
    shared_s = (max(0.0, min(end_s, reply.ended_s) - max(begin_s, reply.due_s)) for reply in replies)
    return math.fsum(shared_s) / (end_s - begin_s)


def doubts(episode: Episode, paced: bool, places: int | None) -> str:
    """Why the client cannot be believed; empty when it can. See section a.2 of the measurement research.

    Four audits: requests were sent when they were due, the client had time to spare, it did not stand still while more
    than one of a hundred was on its way, and the mean number of requests on their way is rate times mean latency
    (Little 1961), the one as counted meanwhile, the others as read afterwards.
    """
    replies = episode.replies
    lag_s = dispatch_lag_s(episode, paced, places)
    first = [value for reply in replies if math.isfinite(value := ttft_s(reply))]
    allowed_s = max(LARGEST_LAG_S, LARGEST_LAG_RATIO * quantile(first, 0.5) if first else 0.0)
    if lag_s > allowed_s:
        return f"client-bound: 1 % of the requests were sent {1e3 * lag_s:.1f} ms late or later"
    if episode.client_busy_ratio > LARGEST_CLIENT_BUSY_RATIO:
        return f"client-bound: the client used {episode.client_busy_ratio:.0%} of a core"
    if stalled := _stalled(episode):
        return stalled
    span_s = max(reply.ended_s for reply in replies)
    expected = math.fsum(reply.ended_s - reply.due_s for reply in replies) / span_s if span_s > 0 else 0.0
    late = len(replies) / span_s * allowed_s if span_s > 0 else 0.0  # on their way by the clock, and not sent yet
    if abs(episode.in_flight_mean - expected) > LARGEST_LITTLE_RATIO * expected + late:
        counted = episode.in_flight_mean
        return (
            f"the client miscounts: {counted:.2f} requests were on their way in the mean, but rate times latency is "
            f"{expected:.2f} (Little's law)"
        )
    return ""


def _stalled(episode: Episode) -> str:
    """Whether the client stood still for long, or while many waited: a closed loop has no due times that would tell."""
    replies = episode.replies
    known = [value for reply in replies if math.isfinite(value := latency_s(reply))]
    allowed_s = max(LARGEST_STALL_S, LARGEST_STALL_RATIO * quantile(known, 0.5) if known else 0.0)
    long = [(end_s - length_s, end_s) for end_s, length_s in episode.stalls if length_s > allowed_s]
    hit = sum(any(reply.sent_s < end_s and reply.ended_s > begin_s for begin_s, end_s in long) for reply in replies)
    total_s = math.fsum(length_s for _, length_s in episode.stalls)
    if hit <= _spared(replies) and total_s <= LARGEST_STALL_RATIO * max(reply.ended_s for reply in replies):
        return ""
    return f"client-bound: the client stood still for {total_s:.2f} s, while {hit} of {len(replies)} requests waited"


def samples_of(episode: Episode) -> dict[str, list[float]]:
    """Every latency, and of answers in parts every time to the first token and of each further one."""
    found = {}
    answered = [reply for reply in episode.replies if not reply.answer.failure]
    for name, of in (("latency_s", latency_s), ("ttft_s", ttft_s), ("tpot_s", tpot_s)):
        if not answered or any(not math.isnan(of(reply)) for reply in answered):
            found[name] = [value for reply in episode.replies if not math.isnan(value := of(reply))]
    return found
