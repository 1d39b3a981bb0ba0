from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from autotuner.analyze.front import pareto_front
from autotuner.types import Diagnosis, Failure, FailureKind, Measurement, Origin, Trial, Verdict

SIGNS = {"rate_per_s": 1, "latency_s": -1}
SEEN = Measurement({}, 0.0, 0.0, 0.0, {}, {}, datetime(2026, 1, 1, tzinfo=UTC))


def trial(number, rate, latency, excess=0.0):
    verdict = Verdict({"score": 1.0, "rate_per_s": rate, "latency_s": latency}, {"limit": excess}, Diagnosis("unknown"))
    return Trial(number, {"a": number}, Origin.SAMPLER, SEEN, verdict)


def test_what_another_beats_in_everything_is_left_out():
    failed = Trial(4, {"a": 4}, Origin.SAMPLER, Failure(FailureKind.CRASHED, ""), None)
    trials = [trial(0, 1, 1), trial(1, 3, 5), trial(2, 2, 6), trial(3, 9, 0.1, excess=0.5), failed, trial(5, 3, 4)]
    assert [each.number for each in pareto_front(trials, SIGNS)] == [5, 0], "3 breaks a limit, 1 and 2 are beaten by 5"
    assert pareto_front([], SIGNS) == []


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25)


@given(points)
def test_it_is_what_the_definition_says(values):
    trials = [trial(number, *map(float, value)) for number, value in enumerate(values)]

    def beaten(value):
        return any(o != value and o[0] >= value[0] and o[1] <= value[1] for o in values)

    front = pareto_front(trials, SIGNS)
    assert {values[each.number] for each in front} == {value for value in values if not beaten(value)}
    assert len({values[each.number] for each in front}) == len(front), "none twice"
    rates = [values[each.number][0] for each in front]
    assert rates == sorted(rates, reverse=True)
