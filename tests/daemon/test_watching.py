from datetime import UTC, datetime, time, timedelta
from random import Random

import pytest

from autotuner.analyze.drift import Drift
from autotuner.daemon import watching
from autotuner.daemon.sources import Gap, Reading
from autotuner.daemon.watching import Pauses, Watch, moved
from autotuner.spec.expressions import Limit

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
P95 = "latency_p95_s"


def looks(watch, values, begun=()):
    """What each look says."""
    said = []
    for number, value in enumerate(values):
        read = Gap("down") if value is None else Reading(value, 0.0)
        said.append(watch.look({P95: read}, "", NOW + timedelta(minutes=number), begun))
    return said


def test_a_level_is_broken_after_several_looks_in_a_row():
    watch = Watch([Limit.parse(f"{P95} <= 200 ms")], breaches=3)
    said = looks(watch, [0.25, 0.25, 0.19, 0.25, 0.25, 0.25, 0.25])
    assert [bool(text) for text in said] == [False] * 5 + [True, True]
    assert said[5] == f"{P95} is 250 ms, 3 looks in a row over {P95} <= 200 ms"


def test_no_number_is_no_breach_and_breaks_the_row():
    watch = Watch([Limit.parse(f"{P95} <= 200 ms")], breaches=3)
    assert not any(looks(watch, [None] * 20))
    assert not any(looks(watch, [0.25, 0.25, None, 0.25, 0.25, None]))


def test_a_drift_is_said_from_when_it_is_proven_until_the_service_is_changed():
    """A pause may stand in the way for hours: then it is still worse."""
    draw = Random(0)
    watch = Watch(drifting=[P95])
    values = [0.1 * draw.lognormvariate(0, 0.02) for _ in range(40)]
    assert not any(looks(watch, values))
    said = looks(watch, [0.105 * draw.lognormvariate(0, 0.02) for _ in range(30)])
    first = next(number for number, text in enumerate(said) if text)
    assert 2 < first < 25
    assert said[first].startswith(f"{P95} is 1.0")
    assert said[first:] == [said[first]] * (30 - first)
    watch.forget()
    assert not any(looks(watch, [0.105] * 9))


def test_what_drifted_and_came_back_is_no_reason_any_more():
    draw = Random(3)
    watch = Watch(drifting=[P95])
    worse = [0.1 * (1.2 if 20 <= number < 40 else 1) * draw.lognormvariate(0, 0.02) for number in range(60)]
    said = looks(watch, worse)
    assert said[39]
    assert not said[59]


@pytest.mark.parametrize(
    ("rising", "factor", "told"), [((), 0.8, False), ((), 1.25, True), ([P95], 0.8, True), ([P95], 1.25, False)]
)
def test_a_drift_for_the_better_is_no_reason(rising, factor, told):
    draw = Random(1)
    values = [0.1 * (factor if number >= 20 else 1) * draw.lognormvariate(0, 0.02) for number in range(40)]
    assert any(looks(Watch(drifting=[P95], rising=rising), values)) == told


def traffic(watch, values):
    """What each look says of `prompt_tokens`, a name of the user's own."""
    reads = (Reading(value, 0.0) if value is not None else Gap("down") for value in values)
    return [watch.look({"prompt_tokens": read}, "", NOW, ()) for read in reads]


@pytest.mark.parametrize("change", [2.1, 1 / 2.1])
def test_other_traffic_asks_for_tuning_for_as_long_as_it_stays(change):
    draw = Random(2)
    watch = Watch(traffic={"prompt_tokens": 1.5})
    assert not any(traffic(watch, [300 * draw.lognormvariate(0, 0.05) for _ in range(25)]))
    said = traffic(watch, [300 * change * draw.lognormvariate(0, 0.05) for _ in range(25)])
    begin = said.index(next(filter(None, said)))
    assert all(said[begin:]), "a pause may stand in the way of the first"
    assert said[-1].startswith(f"the traffic is another: prompt_tokens is {change:.1f}"[:-1])
    assert said[-1].endswith("of what it was")
    watch.forget()
    assert not any(traffic(watch, [300 * change * draw.lognormvariate(0, 0.05) for _ in range(25)]))


def test_traffic_that_comes_back_or_changes_little_is_no_reason():
    draw = Random(3)
    little = [300 * (1.3 if number >= 15 else 1) * draw.lognormvariate(0, 0.05) for number in range(30)]
    assert not any(traffic(Watch(traffic={"prompt_tokens": 1.5}), little))
    watch = Watch(traffic={"prompt_tokens": 1.5})
    for level in (300, 900):
        said = traffic(watch, [level * draw.lognormvariate(0, 0.05) for _ in range(20)])
    assert said[-1]
    assert not traffic(watch, [300 * draw.lognormvariate(0, 0.05) for _ in range(20)])[-1]
    assert not any(traffic(Watch(traffic={"prompt_tokens": 1.5}), [0.0, None] * 20 + [300.0] * 10))


def test_traffic_that_grows_slowly_is_another_in_the_end(monkeypatch):
    """Twice as much within a thousand looks: more than are remembered, but the first ones are."""
    draw = Random(4)
    watch = Watch(traffic={"prompt_tokens": 1.5})
    values = [300 * 2 ** (number / 1000) * draw.lognormvariate(0, 0.05) for number in range(1000)]
    for begin, end, told in ((0, 300, False), (300, 1000, True)):
        with monkeypatch.context() as patched:
            patched.setattr(watching, "find_drift", lambda seen: Drift((), 0.0, 0, 0))  # 700 looks take 20 s
            traffic(watch, values[begin : end - 1])
        assert bool(traffic(watch, values[end - 1 : end])[0]) is told


def test_a_signal_that_has_no_number_for_long_is_told_once_until_it_comes_back():
    watch = Watch([Limit.parse(f"{P95} <= 200 ms")], ["ttft_p95_s"], breaches=2, traffic={P95: 2.0, "asked": 2.0})
    there, gone = Reading(0.1, 0.0), Gap("down")

    def silent(count, **reads):
        said = []
        for _ in range(count):
            said.append(watch.silent({P95: there, "ttft_p95_s": there, "asked": there, "other": gone, **reads}))
        return said

    assert not any(silent(19, **{P95: gone}))
    assert not any(silent(1))
    said = silent(100, **{P95: gone})
    assert said[19] == f"no number for 20 looks in a row: {P95}: down"
    assert [bool(text) for text in said] == [number == 19 for number in range(100)]
    watch.forget()  # the service was changed, and it still has none
    said = silent(100, **{P95: gone, "asked": gone, "ttft_p95_s": Gap("stale")})
    assert [text for text in said if text] == ["no number for 20 looks in a row: ttft_p95_s: stale; asked: down"]
    assert not any(silent(1))
    assert any(silent(20, **{P95: gone})), "it had come back"


def test_after_a_change_of_the_service_it_is_seen_anew():
    watch = Watch([Limit.parse(f"{P95} <= 200 ms")], drifting=[P95], breaches=2)
    looks(watch, [0.1] * 20 + [0.25])
    watch.forget()
    assert not any(looks(watch, [0.25]))
    assert looks(watch, [0.25])[0].startswith(P95)


def test_another_environment_is_named():
    assert moved({"driver": "1", "gpu": "A"}, {"driver": "2", "gpu": "A", "vllm": "3"}) == (
        "the environment is another: driver, vllm"
    )
    assert moved({"driver": "1"}, {"driver": "1"}) == ""
    watch = Watch()
    assert watch.look({}, "the environment is another: driver", NOW, ()) == "the environment is another: driver"


def test_a_schedule():
    begun = [NOW - timedelta(days=6, hours=23, minutes=58)]
    said = looks(Watch(every_s=7 * 86400), [0.1] * 4, begun=begun)
    assert [bool(text) for text in said] == [False, False, True, True]
    assert said[2] == "7 days have passed"


@pytest.mark.parametrize(
    ("hours_ago", "now", "reason"),
    [
        ([0.5], 12, "the last time was less than 3600 s ago"),
        ([2, 5, 23.9], 12, "3 times within a day are enough"),
        ([2, 5, 24.1], 12, ""),
        ([], 23, "these are quiet hours"),
        ([], 3, "these are quiet hours"),
        ([], 6, ""),
        ([], 22, "these are quiet hours"),
    ],
)
def test_pauses(hours_ago, now, reason):
    at = NOW.replace(hour=now)
    pauses = Pauses(quiet=[(time(22), time(6))])
    assert pauses.reason(at, [at - timedelta(hours=hours) for hours in hours_ago]) == reason


def test_what_was_begun_in_a_future_that_was_a_wrong_clock_keeps_nobody_waiting():
    wrong = NOW + timedelta(days=365)
    assert Pauses(cooldown_s=3600).reason(NOW, [wrong]) == ""
    watch = Watch(every_s=86400.0)
    assert watch.look({}, {}, NOW, [wrong]) == ""
    assert watch.look({}, {}, NOW, [NOW - timedelta(days=2), wrong]) == "1 days have passed"


@pytest.mark.parametrize(("before", "after"), [(5e-324, 1.7e308), (1.7e308, 5e-324)])
def test_absurd_numbers_end_no_look(before, after):
    watch = Watch([], [P95], traffic={P95: 1.5})
    assert "the traffic is another" in looks(watch, [before] * 30 + [after] * 30)[-1]
