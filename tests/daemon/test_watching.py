from datetime import UTC, datetime, time, timedelta
from random import Random

import pytest

from autotuner.daemon.sources import Gap, Reading
from autotuner.daemon.watching import Pauses, Watch
from autotuner.spec.expressions import Limit

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
P95 = "latency_p95_s"


def looks(watch, values, environment=({},), begun=()):
    """What each look says."""
    said = []
    for number, value in enumerate(values):
        read = Gap("down") if value is None else Reading(value, 0.0)
        around = environment[min(number, len(environment) - 1)]
        said.append(watch.look({P95: read}, around, NOW + timedelta(minutes=number), begun))
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


def test_a_drift_is_said_once_when_it_is_proven():
    draw = Random(0)
    watch = Watch(drifting=[P95])
    values = [0.1 * draw.lognormvariate(0, 0.02) for _ in range(40)]
    assert not any(looks(watch, values))
    said = looks(watch, [0.105 * draw.lognormvariate(0, 0.02) for _ in range(30)])
    assert sum(map(bool, said)) == 1
    assert next(text for text in said if text).startswith(f"{P95} is 1.0")


def test_after_a_change_of_the_service_it_is_seen_anew():
    watch = Watch([Limit.parse(f"{P95} <= 200 ms")], drifting=[P95], breaches=2)
    looks(watch, [0.1] * 20 + [0.25])
    watch.forget()
    assert not any(looks(watch, [0.25]))
    assert looks(watch, [0.25])[0].startswith(P95)


def test_another_environment_asks_for_tuning():
    said = looks(Watch(), [0.1] * 4, [{"driver": "1"}, {"driver": "1"}, {"driver": "2"}, {"driver": "2"}])
    assert said == ["", "", "the environment is another: driver", ""]


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
