"""Rank 0 speaks for its group: of what the others see, power adds up and the worst disturbance counts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import Pipe
from threading import Thread
from typing import Any

import pytest

from autotuner.monitor.gpu import throttling
from autotuner.monitor.team import RankLostError, Team, TeamReader, follow
from autotuner.plugins import Step
from autotuner.types import Config, Metrics


class Nothing:
    """A workload that steps."""

    def step(self, config: Config) -> Step:
        return Step({"samples": 1.0})

    def outputs(self, config: Config, reference: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return {}


class Seen:
    """A probe that sees what it was told."""

    def __init__(self, **signals: float) -> None:
        self._signals = signals

    def read(self) -> Metrics:
        return self._signals


@contextmanager
def team_of(*others: Seen) -> Iterator[Team]:
    """Rank 0's view; every other rank is a thread."""
    pipes = [Pipe() for _ in others]
    ranks = [
        Thread(target=follow, args=(Nothing(), "cpu", theirs, [probe]))
        for (_, theirs), probe in zip(pipes, others, strict=True)
    ]
    for rank in ranks:
        rank.start()
    yield Team(Nothing(), "cpu", [ours for ours, _ in pipes])
    for ours, _ in pipes:
        ours.close()
    for rank in ranks:
        rank.join(10)
        assert not rank.is_alive()


def test_power_adds_up_and_the_worst_disturbance_counts() -> None:
    own = Seen(power_w=300.0, gpu_energy_j=30.0, gpu_busy_ratio=0.9, throttle_thermal_ratio=0.0)
    hot = Seen(power_w=250.0, gpu_energy_j=25.0, gpu_busy_ratio=0.2, throttle_thermal_ratio=0.5)
    shared = Seen(power_w=50.0, gpu_energy_j=5.0, gpu_foreign_processes=2.0)
    with team_of(hot, shared) as team:
        seen = TeamReader([own], team).read()
    assert seen == {
        "power_w": 600.0, "gpu_energy_j": 60.0, "gpu_busy_ratio": 0.9, "throttle_thermal_ratio": 0.5,
        "gpu_foreign_processes": 2.0,
    }  # fmt: skip
    assert "too hot" in throttling(seen)


def test_power_that_rank_0_does_not_know_is_not_the_others_either() -> None:
    with team_of(Seen(power_w=250.0)) as team:
        assert TeamReader([Seen()], team).read() == {}


def test_a_rank_that_has_ended_is_said() -> None:
    ours, theirs = Pipe()
    theirs.close()
    with pytest.raises(RankLostError):
        TeamReader([Seen()], Team(Nothing(), "cpu", [ours])).read()
